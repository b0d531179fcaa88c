"""The rows of the client library: single `track()` calls through to Redis, and what they cost the app."""

from collections.abc import Iterator

from flusher.bench.contest import Contestant, Pace, Title, contest
from flusher.bench.figures import Figure, Goal
from flusher.bench.http_rows import set_nx_contestant
from flusher.bench.load import App
from flusher.bench.servers import Stand


def client(scheme: str, rate: Goal, cpu: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield how many calls a second arrive over `scheme`, stream or unix, and the CPU of the app for one call."""
    stand.fresh()
    path = (stand.stream if scheme == "stream" else stand.unix).path
    name = "client library, " + ("stream socket" if scheme == "stream" else "HTTP on the Unix socket")
    title = Title(f"client-{scheme}", f"{name}, single calls", goals=(rate,))
    ours = Contestant("ours", App(f"{scheme}://{path}"), stand.ingest_pids)
    figure = contest(pace, title, ours, [set_nx_contestant(stand)])
    yield figure
    yield Figure(
        f"client-{scheme}",
        f"{name}, app CPU for a call",
        "µs",
        [figure.cpu_us["app"]],
        goals=(cpu,),
        note="of all its threads: the call itself, and what sends",
    )
