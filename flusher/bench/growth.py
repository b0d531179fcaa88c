"""What ingest and drain cost when Redis and PostgreSQL are full of what came before.

Two stands are measured in turn: one keeps the smallest size, the other one grows through all of them. So whatever else
the machine does meets both, and the first point, where both have the same, says how far the figures can be trusted.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

from flusher.bench.chart import Line, draw
from flusher.bench.contest import Pace, cpu_s
from flusher.bench.driver import Driver
from flusher.bench.figures import Figure, Goal
from flusher.bench.filling import fill_events, fill_keys, kept, without_vacuum
from flusher.bench.http_rows import Kind
from flusher.bench.load import Turn
from flusher.bench.servers import Stand
from sidecar.contract.codes import TaximeterError

MOST: Final = 1.15  # of what it costs at the smallest size
BATCH: Final = 500
FILL_S: Final = 120.0
INGEST: Final = "growth-ingest"
DRAIN: Final = "growth-drain"
MILLION: Final = 1_000_000


class Cost(NamedTuple):
    """What an event took of a core, microseconds, by row and process, and how many were drained in a second."""

    used_us: Mapping[str, Mapping[str, float]]
    drained_a_second: float


class Grown:
    """A stand that is filled, with its load generator and a flusher in this process."""

    def __init__(self, parent: Path | None, stack: ExitStack) -> None:
        self._stand = stack.enter_context(Stand(parent))
        without_vacuum(self._stand)
        self._stand.fresh()
        self._worker = stack.enter_context(self._stand.worker())
        self._driver = stack.enter_context(Driver(Kind(BATCH).contestant(self._stand).load))
        self._size = 0

    def grow(self, size: int) -> None:
        """Fill it up to so many keys and events."""
        missing = size - self._size
        if missing > 0:
            fill_keys(self._stand, missing)
            fill_events(self._stand, missing, behind=self._size)
            self._size = size

    def turn(self, events: int) -> Cost:
        """Send events and drain them. Raises TaximeterError `server_failed` unless all of them are drained."""
        before = self._used_s()
        sent = self._driver.turn(Turn(FILL_S, events)).events
        between, began_at = self._used_s(), time.perf_counter()
        drained = self._worker.run_once()
        took_s, after = time.perf_counter() - began_at, self._used_s()
        if drained.events != sent:
            raise TaximeterError("server_failed", f"{sent} events were sent, {drained.events} were drained")
        ingest = {name: (between[name] - before[name]) / sent * 1e6 for name in ("sidecar", "Valkey")}
        drain = {name: (after[name] - between[name]) / sent * 1e6 for name in ("flusher", "PostgreSQL", "Valkey")}
        return Cost({INGEST: ingest, DRAIN: drain}, sent / took_s)

    def said(self) -> str:
        """Return what it holds, for a person."""
        there, taken = kept(self._stand)
        return f"{there:,} keys in Redis; events take {taken / 1e9:.2f} GB of PostgreSQL"

    def _used_s(self) -> dict[str, float]:
        used = {name: cpu_s(pid) for name, pid in self._stand.ingest_pids.items()}
        return used | {"flusher": time.process_time(), "PostgreSQL": _family_s(self._stand.postgres.pid)}


def measure(sizes: Sequence[int], parent: Path | None, pace: Pace) -> Iterator[Figure]:
    """Yield, for each size from the smallest on, what an event costs at ingest and at the drain.

    Beside each stands what it costs at the smallest size in the same rounds.
    """
    smallest, *_ = ordered = sorted(sizes)
    with ExitStack() as stack:
        small, large = (Grown(parent, stack) for _ in range(2))
        small.grow(smallest)
        for size in ordered:
            began_at = time.monotonic()
            large.grow(size)
            _tell(f"{named(size)}: filled in {time.monotonic() - began_at:.0f} s")
            for one in (small, large):
                one.turn(pace.drain_events)  # connections, caches, scripts
            pairs = [_pair(large, small, pace.drain_events, first=turn % 2 == 0) for turn in range(pace.rounds)]
            for figure in _figures(size, smallest, pairs, large.said()):
                _tell(f"{figure.name}: {figure.value:.2f} {figure.unit}, ratio {figure.ratio(named(smallest)):.3f}")
                yield figure


def chart(figures: Sequence[Figure], machine: Mapping[str, object]) -> str:
    """Return what was measured as a picture."""
    lines: list[Line] = []
    for name, row in (("ingest", INGEST), ("drain", DRAIN)):
        ratios = [(figure, figure.ratio(next(iter(figure.beside)))) for figure in figures if figure.row == row]
        labels = [f"{name} {figure.value or 0:.1f} µs" for figure, _ in ratios]
        lines.append(Line(name, [ratio or 0.0 for _, ratio in ratios], labels))
    sizes = [figure.name.rpartition(": ")[2] for figure in figures if figure.row == DRAIN]
    under = f"{machine['processor']}, {machine['cores']} cores; each beside {sizes[0]} in the same rounds"
    return draw("CPU for an event, by keys in Redis and events in PostgreSQL", under, sizes, lines, MOST)


def named(size: int) -> str:
    """Return a size for a person."""
    return f"{size / MILLION:g} million"


def _pair(large: Grown, small: Grown, events: int, *, first: bool) -> tuple[Cost, Cost]:
    """Return what a round of both costs; `first`: the large one begins."""
    if first:
        return large.turn(events), small.turn(events)
    cost = small.turn(events)
    return large.turn(events), cost


def _figures(size: int, smallest: int, pairs: Sequence[tuple[Cost, Cost]], said: str) -> Iterator[Figure]:
    large, small = zip(*pairs, strict=True)
    beside = named(smallest)
    rates = [statistics.median(cost.drained_a_second for cost in some) for some in (large, small)]
    drained = f"{rates[0]:,.0f} events drained in a second, beside {rates[1]:,.0f}"
    for row, what, note in ((INGEST, "ingest, keys in Redis", said), (DRAIN, "drain, events in PostgreSQL", drained)):
        ours, its = ([cost.used_us[row] for cost in some] for some in (large, small))
        figure = Figure(row, f"{what}: {named(size)}", "µs of CPU", goals=(Goal(beside, most=MOST),))
        figure.ours = [sum(cost.values()) for cost in ours]
        figure.beside[beside] = [sum(cost.values()) for cost in its]
        figure.cpu_us = _medians(ours)
        figure.note = f"{note}; at {beside}: {' + '.join(f'{cost:.2f} {name}' for name, cost in _medians(its).items())}"
        yield figure


def _medians(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}


def _tell(line: str) -> None:
    """Say how far it is: a large size takes long."""
    sys.stderr.write(f"taximeter bench: {line}\n")


def _family_s(pid: int | None) -> float:
    """Return the seconds of a core that a process and its children have used so far, those that ended included."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if path.parent.name == str(pid):
                total += _seconds(fields[13:15])
            if str(pid) in {path.parent.name, fields[1]}:
                total += _seconds(fields[11:13])
    return total


def _seconds(ticks: Sequence[str]) -> float:
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
