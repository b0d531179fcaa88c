"""The HTTP interface on real sockets over a core that does what the test tells it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from sidecar.api import Api
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event
from sidecar.contract.meters import Revision
from sidecar.contract.settings import Address
from sidecar.guard import Guard
from sidecar.ingest import Receipt
from sidecar.intake import Intake
from sidecar.listening import UnixSocket, bind_tcp
from sidecar.live import LiveReading
from sidecar.metrics import Metrics
from sidecar.reading import Reading
from sidecar.serving import Serving
from sidecar.stream import Stream, rules_of
from sidecar.taking import Taking
from tests.sidecar.support import NOW_US


@dataclass
class Submitted:
    """One call of `submit`."""

    events: Sequence[Event]
    key: str | None
    digest: bytes | None
    assigned_us: int | None


@dataclass
class FakeCore:
    """A core that answers with `receipt`, or raises `error`, once `gate` is open; and remembers what was submitted."""

    receipt: Receipt = field(default_factory=lambda: Receipt(applied=True))
    error: Exception | None = None
    refusal: TaximeterError | None = None
    revision: Revision = field(default_factory=lambda: Revision(0, ()))
    event_floor_us: int = 0
    lanes: Sequence[int] = (0, 1)
    submitted: list[Submitted] = field(default_factory=list)
    finished: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def now_us(self) -> int:
        return NOW_US

    def unready(self) -> TaximeterError | None:
        return self.refusal

    async def submit(
        self, shares: Mapping[int, Columns], key: str | None, digest: bytes | None, assigned_us: int
    ) -> Receipt:
        events = Reading(dict(shares), []).events
        self.submitted.append(Submitted(events, key, digest, assigned_us))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.finished += 1
        return self.receipt._replace(
            duplicates=tuple(events[place].index for place in self.receipt.duplicates),
            conflicts=tuple(events[place].index for place in self.receipt.conflicts),
        )


@dataclass
class FakeUsage:
    """Live usage that reads `reading`, or raises `error`, and remembers what was asked."""

    reading: LiveReading = field(default_factory=lambda: LiveReading(NOW_US, []))
    error: TaximeterError | None = None
    asked: list[tuple[str, str | None, int, int]] = field(default_factory=list)

    async def read(
        self, user_id: str, meter: str | None, start_us: int, end_us: int, event_type: str | None = None
    ) -> LiveReading:
        self.asked.append((user_id, meter, start_us, end_us))
        if self.error is not None:
            raise self.error
        return self.reading


@dataclass
class Served:
    """An API that is being served: `http` and `unix` are clients of its two listeners."""

    core: FakeCore
    usage: FakeUsage
    metrics: Metrics
    intake: Intake
    serving: Serving
    port: int
    socket_path: Path
    stream_path: Path
    http: aiohttp.ClientSession
    unix: aiohttp.ClientSession

    async def raw(self, data: bytes) -> bytes:
        """Returns everything that comes back for these bytes on a TCP connection, until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        received = await asyncio.wait_for(reader.read(), timeout=20)
        writer.close()
        await writer.wait_closed()
        return received

    def metric(self, name: str, **labels: str) -> float:
        """Returns a sample's value, 0 where there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Returns `serve(body_bytes_max=..., tokens=..., ...)`, which starts an API on TCP and on a Unix socket."""
    stack = AsyncExitStack()

    async def start(
        *,
        tokens: Sequence[bytes] = (),
        body_bytes_max: int = 1 << 20,
        waiting_bytes_max: int = 1 << 22,
        read_deadline_s: float = 5.0,
        request_events_max: int = 1000,
        connections_max: int = 100,
    ) -> Served:
        core, usage, metrics = FakeCore(), FakeUsage(), Metrics()
        intake = Intake(
            body_bytes_max=body_bytes_max, waiting_bytes_max=waiting_bytes_max, read_deadline_s=read_deadline_s
        )
        taking = Taking(core, intake, metrics, request_events_max=request_events_max)
        rules = rules_of(
            body_bytes_max=body_bytes_max,
            waiting_bytes_max=waiting_bytes_max,
            request_events_max=request_events_max,
            read_deadline_s=read_deadline_s,
        )
        stream = Stream(taking, intake, metrics, rules)
        serving = Serving(Api(core, usage, intake, metrics, taking), stream, connections_max)
        tcp: socket.socket = bind_tcp(Address("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        unix = UnixSocket(tmp_path / "api.sock", 0o660)
        await serving.listen(tcp, Guard(Address("127.0.0.1", port), tokens))
        await serving.listen(unix.socket, None)
        streaming = UnixSocket(tmp_path / "stream.sock", 0o660, "--stream-socket")
        await serving.listen_stream(streaming.socket)
        stack.push_async_callback(serving.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
        connector = aiohttp.UnixConnector(str(unix.path))
        over_unix = await stack.enter_async_context(aiohttp.ClientSession("http://sidecar", connector=connector))
        return Served(core, usage, metrics, intake, serving, port, unix.path, streaming.path, http, over_unix)

    yield start
    await stack.aclose()


@pytest.fixture
async def served(serve: Serve) -> Served:
    """An API with usual limits and no tokens."""
    return await serve()
