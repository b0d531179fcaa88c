"""A whole system of real processes, with a proxy in front of each link, and clients that write down what they send.

client -> proxy -> sidecar -> proxy -> Redis <- proxy <- flusher -> proxy -> PostgreSQL
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flusher.catalog_store import apply_catalog
from flusher.database import connect, migrate
from flusher.proof import verify
from sidecar.contract.codes import TryAgainError
from tests.faults.nursery import Nursery
from tests.faults.processes import ROOT, Client, Program, wait_until
from tests.faults.proxy import Proxy, ProxyLoop
from tests.faults.servers import PostgresBox, RedisBox
from tests.faults.undertaker import Undertaker
from tests.faults.wire import http_get

CATALOG: Final = """
[[meters]]
name = "api_call"
event_type = "api_call"

[[meters]]
name = "requests"
event_type = "api_call"
aggregation = "count"
group_by = ["region"]

[[customers]]
id = "acme"
user_ids = ["cus_1", "cus_2"]
"""
READY_S: Final = 60.0
PATIENCE_S: Final = 60.0  # for what comes in a second on a quiet machine
TRY_AGAIN: Final = 75  # the exit status of a proof that could not be decided


@dataclass(frozen=True)
class Shape:
    """What a world consists of."""

    seed: int = 1
    sidecars: int = 2
    flushers: int = 2
    shards: int = 2
    durable_redis: bool = True
    rate: float = 200.0
    batch: int = 20
    client_threads: int = 2
    drain_s: float = 120.0  # how long draining may take
    sidecar: Mapping[str, str] = field(default_factory=dict)
    postgres: Mapping[str, str] = field(default_factory=dict)
    sidecar_bugs: str = ""
    flusher_bugs: str = ""


class Broken(Exception):
    """A process of the run ended where nobody killed it."""


class World:
    """Started by its constructor; `close` it. Faults change what they like, `heal` puts everything back."""

    def __init__(self, directory: Path, shape: Shape, nursery: Nursery) -> None:
        self.directory = directory
        self.shape = shape
        self.nursery = nursery
        self.rng = random.Random(shape.seed)
        self.undertaker = Undertaker(directory)
        self.loop = ProxyLoop()
        self.sidecars: dict[str, Program] = {}
        self.flushers: dict[str, Program] = {}
        self.clients: list[Client] = []
        self.proxies: dict[str, Proxy] = {}
        self.given_up: set[str] = set()
        self.problems: list[str] = []
        self.skew_s = 0.0  # the most that any clock was wrong by
        self._clients_made = 0
        self._meters_declared = 0
        self.held_down: set[Program] = set()  # killed, and not started again while it is in here
        self._paused: dict[Program, float] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.redis = RedisBox(self.directory, self.undertaker, durable=self.shape.durable_redis)
        self.postgres = PostgresBox(self.directory, self.undertaker, self.shape.postgres)
        migrate(self.postgres.server.url, shards=self.shape.shards)
        self.apply(CATALOG)
        for number in range(self.shape.flushers):
            self._add_flusher(f"flusher{number}")
        for number in range(self.shape.sidecars):
            self.add_sidecar(f"sidecar{number}")
        self.wait_until_ready()

    def apply(self, catalog: str) -> None:
        """Applies a catalog, past all proxies."""
        with connect(self.postgres.server.url) as connection:
            apply_catalog(connection, catalog)

    def proxy(self, name: str, upstream: str = "") -> Proxy:
        """Returns the proxy of this name, made with the Unix socket that it leads to."""
        if name not in self.proxies:
            self.proxies[name] = Proxy(self.loop, name, upstream)
        return self.proxies[name]

    def _add_flusher(self, name: str) -> None:
        redis = self.proxy(f"{name}-redis", self.redis.socket)
        postgres = self.proxy(f"{name}-postgres", self.postgres.socket)
        settings = {
            "TAXIMETER_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "TAXIMETER_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{postgres.port}/taximeter"
            "?sslmode=disable&gssencmode=disable",
            "TAXIMETER_FLUSH_INTERVAL_S": "0.1",
            "TAXIMETER_HEALTH_HTTP": "",
            "FAULTS_BUGS": self.shape.flusher_bugs,
        }
        self.flushers[name] = Program(name, "flusher", settings, self.directory, self.undertaker, self.nursery)
        self.flushers[name].start()

    def journal(self, name: str) -> Path:
        """The directory of a sidecar's journal."""
        return self.directory / f"{name}-journal"

    def add_sidecar(self, name: str) -> Program:
        """Starts a further sidecar, on what its directory holds."""
        socket = str(self.directory / f"{name}.sock")
        redis = self.proxy(f"{name}-redis", self.redis.socket)
        self.proxy(f"{name}-client", socket)
        settings = {
            "TAXIMETER_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "TAXIMETER_JOURNAL_DIR": str(self.journal(name)),
            "TAXIMETER_HTTP": "",
            "TAXIMETER_SOCKET": socket,
            "TAXIMETER_ACK_DEADLINE_S": "0.5",
            "TAXIMETER_WATERMARK_INTERVAL_S": "1",
            "TAXIMETER_JOURNAL_SEGMENT_BYTES": "32768",
            "TAXIMETER_JOURNAL_HOLD_S": "1",
            "FAULTS_BUGS": self.shape.sidecar_bugs,
            **self.shape.sidecar,
        }
        self.sidecars[name] = Program(name, "sidecar", settings, self.directory, self.undertaker, self.nursery)
        self.sidecars[name].start()
        return self.sidecars[name]

    @property
    def programs(self) -> dict[str, Program]:
        """Sidecars and flushers by name."""
        return {**self.sidecars, **self.flushers}

    def start_clients(
        self, count: int = 1, prefix: str = "client", targets: Sequence[str] = (), share: float = 1.0
    ) -> None:
        """Starts clients that send a share of the run's rate to these sidecars, or to every one, through its proxy."""
        addresses = ",".join(f"127.0.0.1:{self.proxies[f'{name}-client'].port}" for name in targets or self.sidecars)
        for number in range(count):
            self._clients_made += 1
            name = f"{prefix}{self._clients_made}-"
            options = {
                "directory": str(self.directory),
                "name": name,
                "targets": addresses,
                "seed": f"{self.shape.seed * 100 + number}",
                "rate": f"{self.shape.rate * share / count}",
                "batch": f"{self.shape.batch}",
                "threads": f"{self.shape.client_threads}",
            }
            command = [sys.executable, "-S", str(ROOT / "tests" / "faults" / "client.py")]
            command += [part for option, value in options.items() for part in (f"--{option}", value)]
            client = Client(name, command, self.directory, self.undertaker)
            client.start()
            self.clients.append(client)

    def declare_a_meter(self) -> None:
        """Applies a catalog with one more meter, so that every sidecar has new meters to adopt."""
        self._meters_declared += 1
        name = f"extra_{self._meters_declared}"
        self.apply(f'[[meters]]\nname = "{name}"\nevent_type = "{name}"\n')

    # -- while faults happen ------------------------------------------------------------------------------------------

    def is_ready(self, name: str) -> bool:
        """Whether a sidecar accepts events."""
        with contextlib.suppress(OSError):
            return http_get(self.directory / f"{name}.sock", "/readyz")[0] == 200
        return False

    def wait_until_ready(self, *names: str) -> None:
        """Waits until these sidecars accept events, or all. Raises TimeoutError that says what they say."""
        try:
            self.wait(lambda: all(map(self.is_ready, names or self.sidecars)), READY_S, "the sidecars are ready")
        except TimeoutError as error:
            said = [http_get(self.directory / f"{name}.sock", "/readyz") for name in names or self.sidecars]
            raise TimeoutError(f"{error}; they say {said}") from error

    def pause(self, program: Program, seconds: float) -> None:
        """Has a program that is stopped, or is stopped here, go on after so long."""
        program.signal(signal.SIGSTOP)
        self._paused[program] = time.monotonic() + seconds

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Stops every sidecar meanwhile, so that nobody writes a journal that is read."""
        for program in self.sidecars.values():
            program.signal(signal.SIGSTOP)
        programs = self.sidecars.values()
        wait_until(lambda: all(program.is_stopped for program in programs), PATIENCE_S, "the sidecars stop")
        yield
        for program in self.sidecars.values():
            program.signal(signal.SIGCONT)

    def tend(self) -> None:
        """Restarts what was killed, and lets go on what was stopped for long enough."""
        for program, until in list(self._paused.items()):
            if time.monotonic() >= until or program.pid is None:
                program.signal(signal.SIGCONT)
                del self._paused[program]
        for program in self.programs.values():
            if program.pid is None and program not in self.held_down:
                status = program.exit_status
                expected = status in {None, -signal.SIGKILL} or (status in {0, -signal.SIGTERM} and program.is_ending)
                if not expected and not program.may_fail:
                    raise Broken(f"{program.name} ended with {status}:\n{program.log_tail()}")
                program.start()

    def wait(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Tends until the condition holds. Raises TimeoutError."""

        def tended() -> bool:
            self.tend()
            return condition()

        wait_until(tended, deadline_s, what)

    def rest(self, seconds: float) -> None:
        """Tends for so long."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, seconds + 5, "time passes")

    def counted(self) -> int:
        """Returns how many events PostgreSQL has counted."""
        with self.postgres.connect() as connection:
            row = connection.execute("SELECT coalesce(sum(inserted_events), 0) FROM taximeter.positions").fetchone()
        return int(row[0]) if row else 0

    def wait_for_traffic(self, deadline_s: float = PATIENCE_S) -> None:
        """Waits until PostgreSQL has got further: the whole way works."""
        before = self.counted()
        self.wait(lambda: self.counted() > before, deadline_s, "events are counted")

    def point_proxies(self) -> None:
        """Lets all links lead to the servers that count now, and cuts those that led elsewhere."""
        for name, proxy in self.proxies.items():
            for end, socket in (("-redis", self.redis.socket), ("-postgres", self.postgres.socket)):
                if name.endswith(end) and proxy.upstream != socket:
                    proxy.upstream = socket
                    proxy.cut()

    def heal(self) -> None:
        """Ends every fault that is still there."""
        self.point_proxies()
        for proxy in self.proxies.values():
            proxy.heal()
        for client in self.clients:
            client.signal(signal.SIGCONT)
        for program in self.programs.values():
            program.disarm()
            program.bend_clock(0)
            program.signal(signal.SIGCONT)
        self._paused.clear()
        self.held_down.clear()
        self.postgres.signal_all(signal.SIGCONT)
        self.redis.command("CONFIG", "SET", "maxmemory", "0")
        self.tend()

    # -- at the end ---------------------------------------------------------------------------------------------------

    def settle(self) -> dict[str, Any]:
        """Heals, lets the clients finish, waits until everything is drained; returns the proof."""
        self.heal()
        for client in self.clients:
            client.signal(signal.SIGTERM)
        self.wait(lambda: all(client.pid is None for client in self.clients), 60, "the clients finish")
        self.problems += [f"{client.name}: {client.log_tail()}" for client in self.clients if client.exit_status != 0]
        self.wait_until_ready()
        end = time.monotonic() + self.shape.drain_s
        while not self._is_drained() and time.monotonic() < end:
            self.rest(0.2)
        proof = self.prove()
        while proof["exit"] == TRY_AGAIN and time.monotonic() < end:
            self.rest(0.2)
            proof = self.prove()
        return proof

    def _is_drained(self) -> bool:
        with contextlib.suppress(TryAgainError):
            proof = verify(self.redis.server.url, self.postgres.server.url, answer_timeout_s=5.0)
            return proof.ok and not proof.redis.events and not proof.journal.events
        return False

    def prove(self) -> dict[str, Any]:
        """Returns what `taximeter verify --json` says, `exit` among it."""
        done = self.taximeter("verify", "--json", check=False)
        try:
            said: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            said = {"ok": False, "error": done.stderr}
        return {**said, "exit": done.returncode}

    def taximeter(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs a command past all proxies."""
        environment = {
            **os.environ,
            "TAXIMETER_REDIS_URL": self.redis.server.url,
            "TAXIMETER_DATABASE_URL": self.postgres.server.url,
        }
        command = [sys.executable, "-m", "flusher", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=ROOT
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"taximeter {' '.join(arguments)}: {done.returncode}: {done.stderr}")
        return done

    def close(self) -> None:
        """Ends everything at once."""
        for process in [*self.clients, *self.programs.values()]:
            process.kill()
        for proxy in self.proxies.values():
            proxy.close()
        for name in ("redis", "postgres"):
            if box := getattr(self, name, None):
                box.server.kill()
        self.loop.close()
        self.undertaker.close()
