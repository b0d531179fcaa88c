"""Contestants in turn: short rounds one after the other, so that a noisy moment meets all of them."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flusher.bench.driver import Driver
from flusher.bench.figures import Figure, Goal
from flusher.bench.load import App, Load, Measured, Turn, Wrk

WARM_UP_S: Final = 0.25
DRAIN_EVENTS_A_SECOND: Final = 100_000
EPOCH_EVENTS: Final = 1_500_000  # what a row may bring into Redis undrained: above two million a sidecar waits


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure: `rounds` for each contestant of `seconds` each."""

    rounds: int
    seconds: float

    @property
    def events_max(self) -> int:
        """How many events a round may bring."""
        return EPOCH_EVENTS // (self.rounds + 1)

    @property
    def drain_events(self) -> int:
        """How many events a drain gets at once."""
        return int(self.seconds * DRAIN_EVENTS_A_SECOND)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who is sent a load.

    `name` is what the table calls it; `pids` are the processes that it works with, none where there are more of them
    than can be told.
    """

    name: str
    load: Load | App | Wrk
    pids: Mapping[str, int | None]


@dataclass(slots=True)
class Title:
    """What a figure is called, in the table and by `--only`, and its goals."""

    row: str
    name: str
    unit: str = "events/s"
    goals: tuple[Goal, ...] = ()


class _Running:
    """A contestant whose load generator runs, and what came of its turns."""

    def __init__(self, contestant: Contestant, stack: ExitStack) -> None:
        self.contestant = contestant
        self.rates: list[float] = []
        self._driver = stack.enter_context(Driver(contestant.load))
        self._events = 0
        self._requests = 0
        self._late = 0
        self._used_s = dict.fromkeys([*contestant.pids, contestant.load.sender], 0.0)
        self._seconds = 0.0

    def warm_up(self, pace: Pace) -> None:
        """Send for a moment: connections, caches, scripts."""
        self._driver.turn(Turn(WARM_UP_S, pace.events_max))

    def turn(self, pace: Pace) -> None:
        """Send for a round."""
        before = {name: cpu_s(pid) for name, pid in self.contestant.pids.items()}
        measured = self._driver.turn(Turn(pace.seconds, pace.events_max))
        self.rates.append(rate(measured))
        self._events += measured.events
        self._seconds += measured.seconds
        self._requests += len(measured.latencies_us)
        self._late += measured.late
        self._used_s[self.contestant.load.sender] += measured.cpu_s
        for name, pid in self.contestant.pids.items():
            self._used_s[name] += cpu_s(pid) - before[name]

    def cpu_us(self) -> dict[str, float]:
        """Return what each process took of a core for an event, microseconds."""
        return {name: used_s / self._events * 1e6 for name, used_s in self._used_s.items()}

    def note(self) -> str:
        """Return how it was sent, what the sender took of the whole machine, and whether Redis was late."""
        load = self.contestant.load
        share = self._used_s[load.sender] / self._seconds / (os.cpu_count() or 1)
        late = f"; {self._late / self._requests:.1%} of the answers were journaled only" if self._late else ""
        return f"{load.manner}; {load.who} took {share:.1%} of the machine{late}"


def contest(pace: Pace, title: Title, ours: Contestant, others: Sequence[Contestant]) -> Figure:
    """Measure ours and the others in turn.

    Raises TaximeterError `server_failed` when one of them does not answer as it should.
    """
    figure = Figure(title.row, title.name, title.unit, goals=title.goals)
    with ExitStack() as stack:
        running = [_Running(one, stack) for one in (ours, *others)]
        for one in running:
            one.warm_up(pace)
        for _ in range(pace.rounds):
            for one in running:
                one.turn(pace)
    us, *them = running
    figure.ours, figure.cpu_us = us.rates, us.cpu_us()
    for one in them:
        figure.beside[one.contestant.name] = one.rates
        if one.contestant.pids:
            figure.beside_cpu_us[one.contestant.name] = sum(one.cpu_us().values())
    figure.note = us.note()
    return figure


def rate(measured: Measured) -> float:
    """Return events a second."""
    return measured.events / measured.seconds


def cpu_s(pid: int | None) -> float:
    """Return the seconds of a core that a process has used so far, 0 where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
