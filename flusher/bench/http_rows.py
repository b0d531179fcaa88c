"""The rows of ingest, over HTTP and the stream: sizes, encodings, transports, identities."""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final, Literal, NamedTuple

from flusher.bench import peers
from flusher.bench.contest import Contestant, Pace, Title, contest
from flusher.bench.figures import Figure, Goal
from flusher.bench.load import Load, Target
from flusher.bench.requests import (
    Encoding,
    Request,
    http_batch,
    http_body,
    http_event,
    set_nx,
    stream_batch,
    webdis_set,
)
from flusher.bench.servers import Stand
from flusher.embedded.system import free_address

SET_NX: Final = "pipelined SET NX EX"
BARE: Final = "bare aiohttp handler"
ARTICLE: Final = "the article's endpoint"
TWO_STEP: Final = "SET NX, then INCR"
WEBDIS: Final = "webdis, one SET NX"
PIPELINE: Final = 500
PIPELINES: Final = 4
CONNECTIONS: Final = 8
CONNECTIONS_SMALL: Final = 64  # requests of a few events: it takes many of them to share a sync of the journal
SMALL_EVENTS: Final = 10


class Kind(NamedTuple):
    """A load of ours: so many events a request, and how they come."""

    events: int
    encoding: Encoding = "json"
    keyed: bool = False
    way: Literal["http", "unix", "stream"] = "http"
    append_only: bool = True

    @property
    def row(self) -> str:
        """What `--only` takes."""
        parts = [self.way, self.encoding, str(self.events)]
        return "-".join([*parts, *(["key"] if self.keyed else []), *([] if self.append_only else ["memory"])])

    @property
    def name(self) -> str:
        """What the table says."""
        size = "1 event" if self.events == 1 else f"{self.events:,} events"
        identity = "one key" if self.keyed else "ids"
        encoding = {"json": "JSON", "ndjson": "NDJSON", "msgpack": "msgpack"}[self.encoding]
        way = {"http": "HTTP", "unix": "Unix socket", "stream": "stream socket"}[self.way]
        return f"{way}, {encoding}, {size}, {identity}" + ("" if self.append_only else ", no AOF")

    @property
    def connections(self) -> int:
        """How many requests are under way at once."""
        return CONNECTIONS_SMALL if self.events <= SMALL_EVENTS else CONNECTIONS

    def request(self) -> Request:
        """Return a request of this kind that no other run sends."""
        run = secrets.token_hex(4)
        if self.way == "stream":
            return stream_batch(self.events, run, keyed=self.keyed)
        return http_batch(self.events, run, self.encoding, keyed=self.keyed)

    def contestant(self, stand: Stand) -> Contestant:
        """Return us."""
        target = {"http": stand.tcp, "unix": stand.unix, "stream": stand.stream}[self.way]
        return Contestant("ours", Load(target, self.request(), self.connections), stand.ingest_pids)


def measure(kind: Kind, goals: tuple[Goal, ...], beside: tuple[str, ...], stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield the figure of a kind of load, with these ceilings and peers beside it."""
    stand.fresh(append_only=kind.append_only)
    with ExitStack() as stack:
        missing = [name for name in beside if name == WEBDIS and peers.webdis() is None]
        others = [stack.enter_context(_BESIDE[name](stand, kind)) for name in beside if name not in missing]
        title = Title(kind.row, kind.name, goals=goals)
        figure = contest(pace, title, kind.contestant(stand), others)
    for name in missing:
        figure.beside[name] = []
        figure.note += "; webdis is not installed, so nothing stands beside us there"
    yield figure


def set_nx_contestant(stand: Stand) -> Contestant:
    """Return the ceiling of Redis."""
    request = set_nx(PIPELINE, secrets.token_hex(4), peers.TTL_S)
    return Contestant(SET_NX, Load(stand.valkey_socket, request, PIPELINES), {"Valkey": stand.valkey.pid})


@contextmanager
def _set_nx(stand: Stand, _kind: Kind) -> Iterator[Contestant]:
    yield set_nx_contestant(stand)


@contextmanager
def _bare(stand: Stand, kind: Kind) -> Iterator[Contestant]:
    port = free_address().port
    with stand.running("bare", [sys.executable, "-m", "flusher.bench.ceilings", str(port)], port) as pid:
        request = http_body(kind._replace(way="http").request())
        load = Load(Target(port=port), request, kind.connections)
        yield Contestant(BARE, load, {"handler": pid})


@contextmanager
def _peer(name: str, program: str, stand: Stand, _kind: Kind) -> Iterator[Contestant]:
    port = free_address().port
    with stand.running(program, [sys.executable, "-m", "flusher.bench.peers", program, str(port)], port) as pid:
        load = Load(Target(port=port), http_event("/track", secrets.token_hex(4)), CONNECTIONS_SMALL)
        yield Contestant(name, load, {"peer": pid, "Valkey": stand.valkey.pid} if program == "two-step" else {})


@contextmanager
def _webdis(stand: Stand, _kind: Kind) -> Iterator[Contestant]:
    port = free_address().port
    settings = stand.directory / "webdis.json"
    peers.write_webdis_settings(settings, stand.valkey.socket, port)
    with stand.running("webdis", ["webdis", str(settings)], port) as pid:
        load = Load(Target(port=port), webdis_set(secrets.token_hex(4), peers.TTL_S), CONNECTIONS_SMALL)
        yield Contestant(WEBDIS, load, {"webdis": pid, "Valkey": stand.valkey.pid})


_BESIDE: Final[dict[str, Callable[[Stand, Kind], AbstractContextManager[Contestant]]]] = {
    SET_NX: _set_nx,
    BARE: _bare,
    ARTICLE: partial(_peer, ARTICLE, "article"),
    TWO_STEP: partial(_peer, TWO_STEP, "two-step"),
    WEBDIS: _webdis,
}
