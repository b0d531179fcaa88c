"""Measures a rebuild of Redis from Postgres, and what readers and senders see meanwhile: `make measure-rebuild`.

A whole system runs on disk in a directory of its own, its usage is filled inside Postgres, and then Redis is rebuilt
twice while one client reads and another one sends: by the flusher after a FLUSHALL, and by `taximeter rebuild`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import redis

from flusher.embedded.system import System, free_address
from flusher.endpoints import Endpoints

DAYS: Final = 63  # what Redis holds
METERS: Final = 3
WINDOWS_A_DAY: Final = 40  # quarters of an hour in which a customer uses something
READER: Final = "cus_000000"
READ_EVERY_S: Final = 0.05
SEND_EVERY_S: Final = 0.1
SEND_EVENTS: Final = 20
DEADLINE_S: Final = 3_600.0

FILL = """
INSERT INTO taximeter.usage (shard, user_id, meter, dimensions, window_start, units, events)
SELECT 0, 'cus_' || lpad(u::text, 6, '0'), (ARRAY['api_call', 'tokens', 'storage_gb'])[m],
       CASE m WHEN 1 THEN '{}' WHEN 2 THEN jsonb_build_object('model', 'm' || (u + w) %% 5, 'region', 'eu')
              ELSE jsonb_build_object('region', 'us') END,
       date_trunc('day', now(), 'UTC') - (d * interval '1 day') + (24 + w) * interval '15 minutes',
       (1 + (u * 7 + w * 13 + d) %% 100000) / 1000.0, 1 + (u + w) %% 50
FROM generate_series(%(days)s - 1, 0, -1) AS d, generate_series(0, %(users)s - 1) AS u,
     generate_series(0, %(windows)s - 1) AS w, generate_series(1, %(meters)s) AS m
LIMIT %(rows)s
"""
EXPECTED = """
SELECT coalesce(sum(units), 0) FROM taximeter.usage
WHERE user_id = %s AND window_start >= date_trunc('month', now(), 'UTC')
"""


@dataclass
class Seen:
    """What a client saw: its answers by what they were, and how long each took."""

    answers: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    firsts: dict[str, float] = field(default_factory=dict)
    lasts: dict[str, float] = field(default_factory=dict)

    def add(self, answer: str, at_s: float, took_s: float) -> None:
        self.answers[answer] += 1
        self.took_s.append(took_s)
        self.firsts.setdefault(answer, round(at_s, 2))
        self.lasts[answer] = round(at_s, 2)

    def as_json(self) -> dict[str, Any]:
        ordered = sorted(self.took_s)
        return {
            "answers": {name: [n, self.firsts[name], self.lasts[name]] for name, n in self.answers.items()},
            "median_ms": round(statistics.median(ordered) * 1000, 1) if ordered else None,
            "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1) if ordered else None,
            "max_ms": round(ordered[-1] * 1000, 1) if ordered else None,
        }


class Clients:
    """A reader and a sender, each in a thread, from `start` to `stop`."""

    def __init__(self, url: str, expected: Decimal) -> None:
        self._url = url
        self.expected = expected
        self.sent = 0
        self._ended = threading.Event()

    def start(self) -> None:
        self.reads, self.sends = Seen(), Seen()
        self._began = time.monotonic()
        self._ended.clear()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._send)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def usage(self, user_id: str) -> Decimal | None:
        """Returns what the sidecar says that a user has used, None while it says that it can't."""
        status, answer, _ = self._call(f"/v1/usage?user_id={user_id}")
        return sum((Decimal(row["units"]) for row in answer["usage"]), Decimal(0)) if status == 200 else None

    def _read(self) -> None:
        while not self._ended.wait(READ_EVERY_S):
            began = time.monotonic()
            status, answer, retry_after = self._call(f"/v1/usage?user_id={READER}")
            if status == 200:
                units = sum((Decimal(row["units"]) for row in answer["usage"]), Decimal(0))
                name = "200 right" if units == self.expected else f"200 WRONG {units}"
            else:
                name = f"{status} {answer.get('code')} Retry-After {retry_after}"
            self.reads.add(name, began - self._began, time.monotonic() - began)

    def _send(self) -> None:
        while not self._ended.wait(SEND_EVERY_S):
            began = time.monotonic()
            events = [{"user_id": "cus_sender", "event_type": "api_call"} for _ in range(SEND_EVENTS)]
            status, answer, _ = self._call("/v1/events", json.dumps(events).encode())
            self.sent += answer.get("accepted") or 0
            self.sends.add(
                f"{status} {answer.get('status', answer.get('code'))}", began - self._began, time.monotonic() - began
            )

    def _call(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any], str | None]:
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer), None
        except urllib.error.HTTPError as error:
            return error.code, json.load(error), error.headers.get("Retry-After")


def fill(url: str, rows: int) -> Decimal:
    """Fills usage, and returns what the reader has to be told."""
    users = -(-rows // (DAYS * WINDOWS_A_DAY * METERS))
    with psycopg.connect(url, autocommit=True) as connection:
        known = {"days": DAYS, "users": users, "windows": WINDOWS_A_DAY, "meters": METERS, "rows": rows}
        connection.execute(FILL, known)
        connection.execute("VACUUM ANALYZE taximeter.usage")
        row = connection.execute(EXPECTED, (READER,)).fetchone()
    return row[0] if row else Decimal(0)


def peak_mib(pid: int) -> float:
    """Returns the most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def cpu_s(endpoints: Endpoints) -> dict[str, float]:
    """Returns the processor's seconds that each part has used: on a busy machine they say more than the clock."""
    parts = {name: [pid] for name, pid in endpoints.pids.items() if name in {"flusher", "redis", "postgres"}}
    parts["postgres"] += [pid for pid, parent in parents().items() if parent == endpoints.pids["postgres"]]
    ticks = os.sysconf("SC_CLK_TCK")
    return {name: sum(sum(map(int, stat(pid)[11:13])) for pid in pids) / ticks for name, pids in parts.items()}


def parents() -> dict[int, int]:
    """Returns the parent of every process."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return {pid: int(fields[1]) for pid in pids if (fields := stat(pid))}


def stat(pid: int) -> list[str]:
    """Returns what /proc says of a process behind its name, nothing when it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def by_command(system: System) -> dict[str, Any]:
    """Rebuilds with the command, and returns what it said and the most memory that it had."""
    command = [sys.executable, "-m", "flusher", "rebuild", "--json"]
    with subprocess.Popen(command, env=system.environment(), stdout=subprocess.PIPE, text=True) as running:
        said = running.stdout.read() if running.stdout else ""
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        sys.exit(f"rebuild ended with {running.returncode}")
    return {
        "said": json.loads(said),
        "command_peak_mib": round(usage.ru_maxrss / 1024, 1),
        "command_cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
    }


def by_flusher(endpoints: Endpoints, clients: Clients) -> dict[str, Any]:
    """Waits until the flusher has restored Redis."""
    wait(lambda: clients.usage(READER) == clients.expected)
    return {"flusher_peak_mib": peak_mib(endpoints.pids["flusher"])}


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not until():
        if time.monotonic() > deadline:
            sys.exit("it took longer than an hour")
        time.sleep(0.05)


def measure(phase: str, clients: Clients, endpoints: Endpoints, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does the work while the clients run, and returns what it took and what they saw."""
    with redis.Redis.from_url(endpoints.redis) as client:
        if phase == "flushall":
            client.flushall()
        client.config_resetstat()
        memory = client.info("memory")["used_memory"]
        clients.start()
        began, cpu = time.monotonic(), cpu_s(endpoints)
        found = work()
        took_s = time.monotonic() - began
        used = {name: round(seconds - cpu[name], 1) for name, seconds in cpu_s(endpoints).items()}
        wait(lambda: clients.usage("cus_sender") == clients.sent)
        applied_s = time.monotonic() - began - took_s
        clients.stop()
        after = client.info("memory")
    peak = max(after["used_memory_peak"], after["used_memory"])
    return {
        "phase": phase,
        "seconds": round(took_s, 1),
        "until_all_sent_is_applied_s": round(applied_s, 1),
        **found,
        "cpu_s": used,
        "redis_mib": {"before": memory >> 20, "peak": peak >> 20, "after": after["used_memory"] >> 20},
        "reads": clients.reads.as_json(),
        "sends": clients.sends.as_json(),
    }


@contextmanager
def directory() -> Iterator[Path]:
    """Gives a directory on disk that every user can enter."""
    made = Path(tempfile.mkdtemp(prefix="tm-measure-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def run(system: System, rows: int) -> Iterator[dict[str, Any]]:
    """Fills the ledger, and yields what each phase came to."""
    endpoints = system.start()
    began = time.monotonic()
    expected = fill(endpoints.database, rows)
    tell(f"filled {rows:,} rows in {time.monotonic() - began:.0f} s")
    clients = Clients(endpoints.http, expected)
    works = {"flushall": partial(by_flusher, endpoints, clients), "command": partial(by_command, system)}
    for phase, work in works.items():
        tell(f"rebuilding: {phase}")
        yield measure(phase, clients, endpoints, work)


def tell(line: str) -> None:
    """Says how far it is."""
    sys.stderr.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of usage (default: %(default)s)")
    args = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
        del os.environ[name]
    with directory() as data_dir:
        system = System(data_dir / "data", free_address(), tell=tell)
        try:
            report = {"rows": args.rows, "phases": list(run(system, args.rows))}
            system.stop()
        except BaseException:
            system.kill()
            raise
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
