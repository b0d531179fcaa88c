"""The rows of ingest over HTTP: sizes, encodings, transports, identities, and latency at half load."""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final, NamedTuple

from flusher.bench import peers
from flusher.bench.contest import Contestant, Pace, Title, contest, rate
from flusher.bench.driver import Driver
from flusher.bench.figures import Figure, Goal, percentile
from flusher.bench.load import Load, Target, Turn
from flusher.bench.requests import Encoding, Request, http_batch, http_body, http_event, set_nx, webdis_set
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
    unix: bool = False
    append_only: bool = True

    @property
    def row(self) -> str:
        """What `--only` takes."""
        parts = ["unix" if self.unix else "http", self.encoding, str(self.events)]
        return "-".join([*parts, *(["key"] if self.keyed else []), *([] if self.append_only else ["memory"])])

    @property
    def name(self) -> str:
        """What the table says."""
        size = "1 event" if self.events == 1 else f"{self.events:,} events"
        identity = "one key" if self.keyed else "ids"
        encoding = {"json": "JSON", "ndjson": "NDJSON", "msgpack": "msgpack"}[self.encoding]
        where = "Unix socket" if self.unix else "HTTP"
        return f"{where}, {encoding}, {size}, {identity}" + ("" if self.append_only else ", no AOF")

    @property
    def connections(self) -> int:
        """How many requests are under way at once."""
        return CONNECTIONS_SMALL if self.events <= SMALL_EVENTS else CONNECTIONS

    def request(self) -> Request:
        """Return a request of this kind that no other run sends."""
        return http_batch(self.events, secrets.token_hex(4), self.encoding, keyed=self.keyed)

    def contestant(self, stand: Stand) -> Contestant:
        """Return us."""
        target = stand.unix if self.unix else stand.tcp
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


@contextmanager
def _set_nx(stand: Stand, _kind: Kind) -> Iterator[Contestant]:
    request = set_nx(PIPELINE, secrets.token_hex(4), peers.TTL_S)
    yield Contestant(SET_NX, Load(stand.valkey_socket, request, PIPELINES), {"Valkey": stand.valkey.pid})


@contextmanager
def _bare(stand: Stand, kind: Kind) -> Iterator[Contestant]:
    port = free_address().port
    with stand.running("bare", [sys.executable, "-m", "flusher.bench.ceilings", str(port)], port) as pid:
        load = Load(Target(port=port), http_body(kind.request()), kind.connections)
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


def latency(kind: Kind, goal: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield how long an answer takes at half of what we can do: then the events are in `GET /v1/usage`."""
    stand.fresh()
    with Driver(kind.contestant(stand).load) as driver:
        full = rate(driver.turn(Turn(pace.seconds, pace.events_max))) / kind.events
        half = Turn(max(1.0, pace.seconds), pace.events_max, full / 2)
        halves = [driver.turn(half) for _ in range(pace.rounds)]
    name = f"{kind.name}: applied, at half load"
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        values = [percentile(measured.latencies_us, share) / 1000 for measured in halves]
        goals = (goal,) if label == "p99" else ()
        yield Figure(f"latency-{kind.row}", f"{name}, {label}", "ms", values, goals=goals)
