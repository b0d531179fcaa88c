"""The load generator: a process of its own that sends ready-made bytes over a few sockets and only looks at answers.

It reads a `Load` and then a `Turn` a line from standard input, and answers each turn with a `Measured` on standard
output. It shares two cores with what it measures, so it makes no objects for events: a request is a template with its
number put in, an answer is compared with what is expected.
"""

import collections
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from flusher.bench.requests import MARK, STAMP, Request

TIMEOUT_S: Final = 30.0
_RECEIVE_BYTES: Final = 256 * 1024


class Target(msgspec.Struct, frozen=True):
    """Where requests go: a Unix socket, or a TCP port on loopback."""

    path: str = ""
    port: int = 0

    def connect(self) -> socket.socket:
        """Return a connection. Raises OSError."""
        if self.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(TIMEOUT_S)
            connection.connect(self.path)
            return connection
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class Load(msgspec.Struct, frozen=True):
    """What to send, to whom, over how many connections with one request under way on each."""

    target: Target
    request: Request
    connections: int

    module: ClassVar[str] = "flusher.bench.load"  # the program that sends it
    sender: ClassVar[str] = "load"  # what the table calls that
    who: ClassVar[str] = "the load generator"

    @property
    def manner(self) -> str:
        """How it is sent, for a person."""
        return f"{self.connections} connections"


class App(msgspec.Struct, frozen=True):
    """Single calls of the client library, through to an address; `flusher.bench.app` makes them."""

    address: str

    module: ClassVar[str] = "flusher.bench.app"
    sender: ClassVar[str] = "app"
    who: ClassVar[str] = "the app"
    manner: ClassVar[str] = "one thread calls"


class Wrk(msgspec.Struct, frozen=True):
    """Single events over HTTP, sent by wrk, a load generator in C; `flusher.bench.wrk` runs it."""

    port: int
    connections: int

    module: ClassVar[str] = "flusher.bench.wrk"
    sender: ClassVar[str] = "wrk"
    who: ClassVar[str] = "wrk"

    @property
    def manner(self) -> str:
        """How it is sent, for a person."""
        return f"{self.connections} connections"


class Turn(msgspec.Struct, frozen=True):
    """How long to send and how many events at most; `rate` is of requests a second, 0 as fast as answers come."""

    seconds: float
    events_max: int
    rate: float = 0.0


class Measured(msgspec.Struct, frozen=True):
    """What came of a turn. `latencies_us` is from when each request was due to its whole answer; `late` counts the
    answers that say that events are durable but not yet applied (202); `cpu_s` is what the generator itself took."""

    events: int
    seconds: float
    cpu_s: float
    late: int
    latencies_us: list[int]
    problem: str = ""


@dataclass(slots=True)
class _Line:
    """A connection and the request under way on it."""

    socket: socket.socket
    due_at: float = 0.0
    got: bytes = b""


class Generator:
    """Sends a load, turn by turn. Numbers go on from turn to turn, so that no request is sent twice."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._number = 0

    def run(self, turn: Turn) -> Measured:
        """Send until the time is over or the events are sent, and wait for the answers."""
        lines = [_Line(self._connected()) for _ in range(self._load.connections)]
        try:
            with selectors.DefaultSelector() as selector:
                for line in lines:
                    selector.register(line.socket, selectors.EVENT_READ, line)
                return self._send(turn, selector, lines)
        finally:
            for line in lines:
                line.socket.close()

    def _connected(self) -> socket.socket:
        """Return a connection on which requests may be sent. Raises OSError."""
        connection = self._load.target.connect()
        if self._load.request.greeting:
            connection.sendall(self._load.request.greeting)
            greeted = b""
            while not _is_frame(greeted):
                received = connection.recv(_RECEIVE_BYTES)
                if not received:
                    raise ConnectionResetError("nobody said hello")
                greeted += received
        return connection

    def _send(self, turn: Turn, selector: selectors.BaseSelector, lines: list[_Line]) -> Measured:
        idle = collections.deque(lines)
        latencies_us: list[int] = []
        late, problem = 0, ""
        events = self._load.request.events
        requests_max = max(1, turn.events_max // events)
        gap_s = 1.0 / turn.rate if turn.rate else 0.0
        cpu_s, began_at = time.process_time(), time.perf_counter()
        ends_at, due_at, sent = began_at + turn.seconds, began_at, 0
        while True:
            now = time.perf_counter()
            more = now < ends_at and sent < requests_max and not problem
            while more and idle and due_at <= now and sent < requests_max:
                self._begin(idle.popleft(), due_at if gap_s else time.perf_counter())
                due_at += gap_s
                sent += 1
            if not more and len(idle) == len(lines):
                break
            wait_s = max(0.0, due_at - now) if more and idle else TIMEOUT_S
            ready = selector.select(wait_s)
            if not ready and wait_s == TIMEOUT_S:
                problem = f"no answer within {TIMEOUT_S:g} s"
                break
            for key, _ in ready:
                line: _Line = key.data
                answer = self._receive(line)
                if answer:
                    latencies_us.append(int((time.perf_counter() - line.due_at) * 1e6))
                    late += b"journaled" in answer
                    problem = problem or self._problem(answer)
                    idle.append(line)
        took_s = time.perf_counter() - began_at
        return Measured(len(latencies_us) * events, took_s, time.process_time() - cpu_s, late, latencies_us, problem)

    def _begin(self, line: _Line, due_at: float) -> None:
        self._number += 1
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
        line.socket.sendall(self._load.request.template.replace(MARK, b"%012x" % self._number).replace(STAMP, stamp))
        line.due_at = due_at
        line.got = b""

    def _receive(self, line: _Line) -> bytes:
        """Take what came; return the answer when it is whole, else nothing."""
        received = line.socket.recv(_RECEIVE_BYTES)
        if not received:
            return line.got or b"the connection was closed"
        line.got = line.got + received if line.got else received
        return line.got if _is_whole(line.got, self._load.request) else b""

    def _problem(self, answer: bytes) -> str:
        request = self._load.request
        is_http = not request.answer_bytes and not request.greeting
        good = not is_http or answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202"))
        return "" if good and request.expected in answer else answer[:500].decode(errors="replace")


def _is_frame(got: bytes) -> bool:
    return len(got) >= 4 and len(got) >= 4 + int.from_bytes(got[:4], "big")


def _is_whole(got: bytes, request: Request) -> bool:
    if request.answer_bytes:
        return len(got) >= request.answer_bytes or got.startswith(b"-")
    if request.greeting:
        return _is_frame(got)
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    _, found, length = head.lower().partition(b"content-length:")
    return bool(found) and len(body) >= int(length.split(b"\r\n", 1)[0])


def main() -> None:
    """Answer turns until standard input ends."""
    generator: Generator | None = None
    for line in sys.stdin.buffer:
        if generator is None:
            generator = Generator(msgspec.json.decode(line, type=Load))
            continue
        try:
            measured = generator.run(msgspec.json.decode(line, type=Turn))
        except OSError as error:
            measured = Measured(0, 0.0, 0.0, 0, [], f"the connection broke: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(measured) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
