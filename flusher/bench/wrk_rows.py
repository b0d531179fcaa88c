"""The row that wrk measures, where it is installed: it takes less of two cores than a generator in Python."""

import shutil
import sys
from collections.abc import Iterator

from flusher.bench.contest import Contestant, Pace, Title, contest
from flusher.bench.figures import Figure, Goal
from flusher.bench.http_rows import BARE, CONNECTIONS_SMALL
from flusher.bench.load import Wrk
from flusher.bench.servers import Stand
from flusher.embedded.system import free_address


def by_wrk(goal: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield how many single events a second come in, beside the bare handler, both under wrk; nothing without wrk."""
    if shutil.which("wrk") is None:
        return
    stand.fresh()
    port = free_address().port
    with stand.running("bare", [sys.executable, "-m", "flusher.bench.ceilings", str(port)], port) as pid:
        ours = Contestant("ours", Wrk(stand.tcp.port, CONNECTIONS_SMALL), stand.ingest_pids)
        bare = Contestant(BARE, Wrk(port, CONNECTIONS_SMALL), {"handler": pid})
        title = Title("wrk", "HTTP, JSON, 1 event, ids, sent by wrk", goals=(goal,))
        figure = contest(pace, title, ours, [bare])
    yield figure
