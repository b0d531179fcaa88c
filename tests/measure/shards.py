"""Measures what an event costs with 1, 2, 4 and 8 shards, on one Valkey and on a cluster: `make measure-shards`.

Two cores hide what more servers gain, so this is CPU time: of the sidecar, of all Valkeys, of the flusher and of
PostgreSQL, while events go the whole way. With `--write` the figures go to `costs.json`, and the capacity page is made
from them anew.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
import redis
from psycopg import sql

from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.supervisor import Program, answers_ready
from flusher.embedded.system import free_address
from flusher.embedded.valkey import ValkeyServer
from tests.cluster.servers import Cluster
from tests.measure.capacity import COSTS, write_page
from tests.measure.rebuild import parents, stat

USERS: Final = 100
BATCH: Final = 500
CONNECTIONS: Final = 8
WARM_PART: Final = 10  # of the events: so many come before it is measured
PATIENCE_S: Final = 600.0
POLL_S: Final = 0.2
SHARDS: Final = (1, 2, 4, 8)
SCANNED: Final = 2_000  # keys at once
TABLE_BYTES: Final = 30  # that a server's tables take for a key: seen by `used_memory` of many
SERVERS: Final = ("one server", "cluster")
VALKEY: Final = {"appendonly": "yes", "appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
POSTGRES: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint, pg_current_wal_lsn() - '0/0'::pg_lsn "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'taximeter' AND c.relkind = 'r'"
)
DONE: Final = "SELECT coalesce(sum(events), 0)::bigint FROM taximeter.usage"


class Store:
    """A Valkey, or a cluster of them: what the programs call Redis."""

    def __init__(self, url: str, servers: list[ValkeyServer]) -> None:
        self.url = url
        self._servers = servers

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [server.pid for server in self._servers if server.pid is not None]

    def empty(self) -> None:
        """Removes all keys."""
        for server in self._servers:
            with redis.Redis.from_url(server.url) as client:
                client.flushall()

    def figures(self) -> dict[str, int]:
        """Returns bytes, over all servers: of the append-only files, that came and that went."""
        found = {"file": 0, "in": 0, "out": 0}
        for server in self._servers:
            with redis.Redis.from_url(server.url) as client:
                info: Any = client.info()
            found["file"] += info["aof_current_size"]
            found["in"] += info["total_net_input_bytes"]
            found["out"] += info["total_net_output_bytes"]
        return found

    def kept(self) -> int:
        """Returns the bytes of all keys, which costs Redis something."""
        total = 0
        for server in self._servers:
            with redis.Redis.from_url(server.url) as client:
                total += _bytes_of_keys(client)
        return total


class Row(NamedTuple):
    """What is measured: on what, with how many shards, and what identifies an event.

    `ids`: each event has one. `keys`: each request has a key; `sums`: then PostgreSQL keeps summed rows.
    """

    servers: str
    shards: int
    identity: str


class Stand:
    """The programs of one ledger on a store."""

    def __init__(self, directory: Path, store: Store, postgres: PostgresServer, row: Row) -> None:
        self.store = store
        self._postgres = postgres
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(directory.name)))
        self._database = postgres.url_of(directory.name)
        migrate(self._database, shards=row.shards)
        self.journal = directory / "journal"
        self.http = free_address()
        settings = {
            "TAXIMETER_REDIS_URL": store.url,
            "TAXIMETER_DATABASE_URL": self._database,
            "TAXIMETER_JOURNAL_DIR": str(self.journal),
            "TAXIMETER_HTTP": self.http.text,
            "TAXIMETER_HEALTH_HTTP": "",
            "TAXIMETER_LOG_LEVEL": "warning",
            "TAXIMETER_KEYED_ROWS": "summed" if row.identity == "sums" else "single",
        }
        commands = {"sidecar": ["sidecar"], "flusher": ["flusher", "flusher"]}
        self._programs = {
            part: Program(part, [sys.executable, "-m", *words], log=directory / part, environment=os.environ | settings)
            for part, words in commands.items()
        }

    def start(self) -> None:
        """Starts them, and waits until events are accepted."""
        for program in self._programs.values():
            program.start()
        self._programs["sidecar"].wait_ready(lambda: answers_ready(*self.http), deadline_s=60)

    def wait_drained(self, events: int) -> None:
        """Waits until PostgreSQL has so many events, without working it much."""
        deadline = time.monotonic() + PATIENCE_S
        with psycopg.connect(self._database, autocommit=True) as connection:
            while connection.execute(DONE).fetchone() != (events,):
                if time.monotonic() > deadline:
                    raise TimeoutError("the events are not drained")
                time.sleep(POLL_S)

    def figures(self) -> dict[str, float]:
        """Returns the CPU seconds of each part, and its bytes."""
        with psycopg.connect(self._database) as connection:
            size, log = connection.execute(SIZE).fetchall()[0]
        held = self.store.figures()
        family = [self._postgres.pid or 0]
        family += [pid for pid, parent in parents().items() if parent == family[0]]
        return {
            "sidecar_us": _cpu_us([self._programs["sidecar"].pid or 0]),
            "redis_us": _cpu_us(self.store.pids),
            "flusher_us": _cpu_us([self._programs["flusher"].pid or 0]),
            "postgres_us": _cpu_us(family) + _cpu_us(family[:1], first=13),  # with those that ended
            "journal_bytes": sum(path.stat().st_size for path in self.journal.glob("*.segment")),
            "redis_file_bytes": held["file"],
            "redis_in_bytes": held["in"],
            "redis_out_bytes": held["out"],
            "postgres_bytes": size,
            "postgres_log_bytes": int(log),
        }

    def end(self) -> None:
        """Ends them."""
        for program in self._programs.values():
            program.kill()


def _bytes_of_keys(client: redis.Redis) -> int:
    """Returns the bytes of all keys. The memory of the server also has buffers, which come and go."""
    found, cursor = 0, 0
    while True:
        reply: Any = client.scan(cursor, count=SCANNED)
        cursor, names = reply
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.memory_usage(name, samples=0)
        found += sum((size or 0) + TABLE_BYTES for size in pipeline.execute())
        if not cursor:
            return found


def _cpu_us(pids: list[int], first: int = 11) -> float:
    """Returns the CPU microseconds of processes; from field 13 on, those of their children that ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(sum(map(int, stat(pid)[first : first + 2])) for pid in pids) / ticks * 1e6


def bodies(run: str, events: int, *, ids: bool) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yields requests of `BATCH` events in JSON: each event with an id and a time, or all under one key."""
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    for first in range(0, events, BATCH):
        batch: list[dict[str, Any]] = [
            {"user_id": f"cus_{number % USERS:06}", "event_type": "api_call", "units": 1, "timestamp": now}
            for number in range(first, min(first + BATCH, events))
        ]
        headers = {"Content-Type": "application/json"}
        if ids:
            for place, event in enumerate(batch):
                event["id"] = f"{run}-{first + place:012}"
        else:
            headers["Idempotency-Key"] = f"{run}-{first:012}"
        yield msgspec.json.encode(batch), headers


def send(stand: Stand, run: str, events: int, *, ids: bool) -> None:
    """Sends so many events over some connections. Raises RuntimeError for an answer that is no success."""
    requests = list(bodies(run, events, ids=ids))

    def work(mine: list[tuple[bytes, dict[str, str]]]) -> None:
        connection = http.client.HTTPConnection(*stand.http, timeout=60)
        for body, headers in mine:
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status not in {200, 202}:
                raise RuntimeError(f"{answer.status}: {said.decode()[:300]}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(work, [requests[number::CONNECTIONS] for number in range(CONNECTIONS)]))


def measure(stand: Stand, events: int, *, ids: bool) -> dict[str, float]:
    """Returns what an event costs on its whole way, of so many."""
    warm = events // WARM_PART
    send(stand, "warm", warm, ids=ids)
    stand.wait_drained(warm)
    kept = stand.store.kept()
    before, began = stand.figures(), time.monotonic()
    send(stand, "cost", events, ids=ids)
    sent_s = time.monotonic() - began
    stand.wait_drained(warm + events)
    drained_s = time.monotonic() - began
    after = stand.figures()
    each = {name: round((after[name] - before[name]) / events, 2) for name in after}
    each["redis_bytes"] = round((stand.store.kept() - kept) / events, 2)
    return {**each, "sent_per_s": round(events / sent_s), "drained_per_s": round(events / drained_s)}


def plan() -> list[Row]:
    """Returns all rows."""
    rows = [Row(servers, shards, "ids") for servers in SERVERS for shards in SHARDS]
    ends = ((SERVERS[0], SHARDS[0]), (SERVERS[1], SHARDS[-1]))
    return [*rows, *(Row(*end, identity) for identity in ("keys", "sums") for end in ends)]


@contextmanager
def stores(directory: Path, names: set[str]) -> Iterator[Mapping[str, Store]]:
    """Gives one server, and a cluster of three, as far as they are named."""
    made: dict[str, Store] = {}
    with ExitStack() as stack:
        if "one server" in names:
            one = ValkeyServer(directory / "valkey", options=VALKEY)
            one.start()
            stack.callback(one.kill)
            made["one server"] = Store(one.url, [one])
        if "cluster" in names:
            cluster = Cluster(directory / "cluster", options={**VALKEY, "cluster-node-timeout": "15000"})
            stack.callback(cluster.end)
            made["cluster"] = Store(cluster.url, [node.server for node in cluster.nodes])
        yield made


def run(events: int, wanted: list[Row]) -> dict[str, Any]:
    """Measures rows in a directory of its own, and returns them with what they were measured on."""
    directory = Path(tempfile.mkdtemp(prefix="tm-measure-"))
    directory.chmod(0o711)  # as root PostgreSQL runs as nobody, who has to pass through
    postgres = PostgresServer(directory / "postgres", options=POSTGRES)
    rows: list[dict[str, Any]] = []
    try:
        postgres.start()
        with stores(directory, {row.servers for row in wanted}) as made:
            for number, row in enumerate(wanted):
                sys.stderr.write(f"{row.servers}, shards: {row.shards}, {row.identity}\n")
                made[row.servers].empty()
                home = directory / f"stand{number}"
                home.mkdir()
                stand = Stand(home, made[row.servers], postgres, row)
                try:
                    stand.start()
                    rows.append({**row._asdict(), **measure(stand, events, ids=row.identity == "ids")})
                finally:
                    stand.end()
        postgres.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    return {"measured": datetime.now(UTC).date().isoformat(), **machine, "events": events, "batch": BATCH, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000, help="in each row (default: %(default)s)")
    names = {"/".join(map(str, row)): row for row in plan()}
    parser.add_argument("--row", action="append", choices=names, help="measure this alone; may be repeated")
    parser.add_argument("--write", action="store_true", help="keep the figures, and make the capacity page of them")
    args = parser.parse_args()
    if args.write and args.row:
        parser.error("--write keeps all rows, --row measures some")
    for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
        del os.environ[name]
    report = run(args.events, [names[name] for name in args.row or names])
    text = json.dumps(report, indent=1) + "\n"
    sys.stdout.write(text)
    if args.write:
        COSTS.write_text(text, encoding="utf-8")
        write_page()


if __name__ == "__main__":
    main()
