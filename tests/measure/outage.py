"""Measures a sidecar through an outage of Redis: `make measure-outage`.

A sidecar and a flusher run over a Valkey and a PostgreSQL on disk. Clients send as fast as they are answered, with
Redis and then with Redis killed; and at a fixed rate, before an outage, while the sidecar catches up, and afterwards.
Latencies are the clients'. `loop_ms` is how long `GET /livez` takes, which waits for nothing but the event loop.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.process import Child
from flusher.embedded.valkey import ValkeyServer
from sidecar.sender import IN_FLIGHT_MAX

EVENTS: Final = 500  # in a request
USERS: Final = 100
DEADLINE_S: Final = 900.0
PROBE_EVERY_S: Final = 0.02
MARK: Final = b"Zmark000"  # stands in a body where each request has its own number


def body() -> bytes:
    """Returns a request with ids, to be made its own by replacing `MARK`."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    events = [
        {
            "id": f"{MARK.decode()}-{number:03}",
            "user_id": f"cus_{number % USERS:04}",
            "event_type": "api_call",
            "units": number + 1,
            "timestamp": now,
        }
        for number in range(EVENTS)
    ]
    return json.dumps(events).encode()


class Connection:
    """HTTP/1.1 on a Unix socket, one request at a time, with as little work as possible."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))

    def request(self, head: bytes, content: bytes = b"") -> tuple[int, bytes]:
        """Returns status and body of the answer."""
        self._socket.sendall(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._receive()
        top, _, rest = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", top)
        while len(rest) < int(length[1] if length else 0):
            rest += self._receive()
        return int(top[9:12]), rest

    def _receive(self) -> bytes:
        found = self._socket.recv(1 << 16)
        if not found:
            raise ConnectionError("the sidecar closed the connection")
        return found

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


@dataclass
class Seen:
    """What clients saw: answers by status, and how long each took."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    loop_s: list[float] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)

    def summary(self) -> dict[str, Any]:
        """Returns the figures so far."""
        seconds = time.monotonic() - self.began_at
        requests = sum(self.statuses.values())
        return {
            "seconds": round(seconds, 1),
            "statuses": dict(self.statuses),
            "requests_per_s": round(requests / seconds, 1),
            "events_per_s": round(requests * EVENTS / seconds),
            "latency_ms": spread(self.took_s),
            "loop_ms": spread(self.loop_s),
        }


def spread(seconds: list[float]) -> dict[str, float]:
    """Returns median, 99th percentile and the most, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    places = {"p50": len(ordered) // 2, "p99": int(len(ordered) * 0.99), "max": len(ordered) - 1}
    return {name: round(ordered[place] * 1000, 1) for name, place in places.items()}


class Clients:
    """Connections that send from `start` to `stop`: as fast as they are answered, or at `rate` requests a second."""

    def __init__(self, path: Path, connections: int) -> None:
        self._path = path
        self._connections = connections
        self._template = body()
        self._numbers = iter(range(1, 1 << 40))
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, rate: float | None = None) -> Seen:
        """Begins to send and returns where to look."""
        seen = Seen()
        self._ended.clear()
        self._threads = [
            threading.Thread(target=self._send, args=(seen, rate, number), daemon=True)
            for number in range(self._connections)
        ]
        self._threads.append(threading.Thread(target=self._probe, args=(seen,), daemon=True))
        for thread in self._threads:
            thread.start()
        return seen

    def stop(self) -> None:
        """Waits for the answers that are under way."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self, seen: Seen, rate: float | None, number: int) -> None:
        connection = Connection(self._path)
        head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        due = time.monotonic() + (number / rate if rate is not None else 0)
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            content = self._template.replace(MARK, b"%08d" % next(self._numbers))
            began = time.monotonic()
            status, _ = connection.request(head, content)
            seen.took_s.append(time.monotonic() - began)
            seen.statuses[status] += 1
            due += self._connections / rate if rate is not None else 0
        connection.close()

    def _probe(self, seen: Seen) -> None:
        connection = Connection(self._path)
        while not self._ended.wait(PROBE_EVERY_S):
            began = time.monotonic()
            connection.request(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
            seen.loop_s.append(time.monotonic() - began)
        connection.close()


class System:
    """Servers and programs over one directory."""

    def __init__(self, directory: Path, stack: ExitStack, journal_bytes: str) -> None:
        self.socket = directory / "sidecar.sock"
        self.redis = ValkeyServer(directory / "redis")
        self.postgres = PostgresServer(directory / "postgres", durable=True)
        for server in (self.redis, self.postgres):
            server.start()
            stack.callback(server.stop)
        migrate(self.postgres.url, shards=1)
        self._directory = directory
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "TAXIMETER_REDIS_URL": self.redis.url,
            "TAXIMETER_DATABASE_URL": self.postgres.url,
            "TAXIMETER_JOURNAL_DIR": str(directory / "journal"),
            "TAXIMETER_JOURNAL_BYTES_MAX": journal_bytes,
            "TAXIMETER_SOCKET": str(self.socket),
            "TAXIMETER_HTTP": "",
        }
        self.flusher = self._start("flusher", stack)
        self.sidecar = self._start("sidecar", stack)
        wait(lambda: self.socket.exists() and self.ready(), "the sidecar is ready")

    def _start(self, name: str, stack: ExitStack) -> Child:
        log = self._directory / f"{name}.log"
        child = Child(name, [sys.executable, "-m", "flusher", name], log=log, environment=self._environment)
        stack.callback(child.kill)
        return child

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = Connection(self.socket)
        try:
            return connection.request(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode())
        finally:
            connection.close()

    def ready(self) -> bool:
        """Returns whether the sidecar accepts events."""
        return self._get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """Returns a metric of the sidecar."""
        for line in self._get("/metrics")[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.partition(" ")[2])
        raise LookupError(name)

    def lag(self) -> int:
        """Returns how many journaled batches Redis has not confirmed."""
        return int(self.metric("taximeter_redis_lag_batches"))

    def memory_mib(self, which: str = "VmRSS") -> int:
        """Returns the sidecar's memory now, or its peak (`VmHWM`)."""
        status = Path(f"/proc/{self.sidecar.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{which}:\s+(\d+)", status)
        return int(found[1]) // 1024 if found else 0

    def proof(self) -> dict[str, Any]:
        """Returns what `taximeter verify` says."""
        done = subprocess.run(
            [sys.executable, "-m", "flusher", "verify", "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        said: dict[str, Any] = json.loads(done.stdout)
        return {name: said[name] for name in ("ok", "accepted", "postgres", "difference")}


def wait(until: Callable[[], bool], what: str) -> None:
    """Polls until it holds."""
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > DEADLINE_S:
            sys.exit(f"{what}: not within {DEADLINE_S:g} s")
        time.sleep(0.1)


def tell(phase: str, **figures: Any) -> None:
    """Prints what was measured in a phase, as a line of JSON."""
    print(json.dumps({"phase": phase, **figures}), flush=True)


def for_a_while(clients: Clients, seconds: float, rate: float | None) -> dict[str, Any]:
    """Sends for so long and returns what was seen."""
    seen = clients.start(rate)
    time.sleep(seconds)
    clients.stop()
    return seen.summary()


def outage(system: System, clients: Clients, seconds: float, rate: float | None, caught_up: str) -> None:
    """Kills Redis, sends as fast as it goes, and starts Redis again, with what comes in meanwhile."""
    system.redis.kill()
    time.sleep(2)
    tell("full speed, Redis down", **for_a_while(clients, seconds, None), sidecar_mib=system.memory_mib())
    lags = [system.lag()]
    size = int(system.metric("taximeter_journal_bytes"))
    seen = clients.start(rate)
    system.redis.start()
    began = time.monotonic()
    while lags[-1] > IN_FLIGHT_MAX and time.monotonic() - began < DEADLINE_S:
        time.sleep(0.25)
        lags.append(system.lag())
    took_s = time.monotonic() - began
    figures = seen.summary()
    clients.stop()
    tell(
        caught_up,
        backlog_batches=lags[0],
        journal_mib=size >> 20,
        caught_up_s=round(took_s, 1) if lags[-1] <= IN_FLIGHT_MAX else None,
        **figures,
        sidecar_mib=system.memory_mib(),
        sidecar_peak_mib=system.memory_mib("VmHWM"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each phase (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10, help="requests a second meanwhile (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="of the clients (default: %(default)s)")
    parser.add_argument("--journal-bytes", default="4GiB", help="what the journal may hold (default: %(default)s)")
    args = parser.parse_args()
    with directory() as made, ExitStack() as stack:
        system = System(made, stack, args.journal_bytes)
        clients = Clients(system.socket, args.connections)
        tell("full speed, Redis up", **for_a_while(clients, args.seconds, None), sidecar_mib=system.memory_mib())
        wait(lambda: system.lag() <= 1, "Redis has everything")
        tell("fixed rate, Redis up", **for_a_while(clients, args.seconds, args.rate))
        outage(system, clients, args.seconds, args.rate, "fixed rate, catching up")
        tell("fixed rate, afterwards", **for_a_while(clients, args.seconds, args.rate))
        outage(system, clients, args.seconds, None, "full speed, catching up")
        proof = system.proof()
        while not proof["ok"]:
            proof = system.proof()
        tell("the proof", **proof)


@contextmanager
def directory() -> Iterator[Path]:
    """Gives a directory on disk that every user can enter."""
    made = Path(tempfile.mkdtemp(prefix="tm-measure-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


if __name__ == "__main__":
    main()
