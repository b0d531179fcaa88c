"""Every named point is hit: killed before it, killed after it, its reply lost; on all programs at once."""

import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from tests.faults.points import POINTS, Act, Moment
from tests.faults.processes import Program
from tests.faults.provoke import provoke
from tests.faults.run import Report
from tests.faults.world import World

AGAIN_S: Final = 3.0  # a point that was not come to is provoked again
DEADLINE_S: Final = 40.0
STOPPED_S: Final = 0.7


class Trap(NamedTuple):
    """What happens to the program that comes to a point next."""

    program: str
    point: str
    moment: Moment
    act: Act

    def __str__(self) -> str:
        return f"{self.act} {self.moment} {self.point}"


WAYS: Final[tuple[tuple[Moment, Act], ...]] = (("before", "kill"), ("after", "kill"), ("after", "raise"))


def all_traps(ways: Iterable[tuple[Moment, Act]] = WAYS) -> list[Trap]:
    """Returns every point in every way."""
    return [Trap(kind, name, *way) for kind, points in POINTS.items() for name in points for way in ways]


class Sweep:
    """Sets one trap after the other, one on each program at a time."""

    def __init__(self, world: World, traps: Iterable[Trap], seed: int) -> None:
        self._world = world
        self._queues: dict[str, deque[Trap]] = {kind: deque() for kind in POINTS}
        ordered = list(traps)
        random.Random(seed).shuffle(ordered)
        for trap in ordered:
            self._queues[trap.program].append(trap)
        self._set: dict[Program, tuple[Trap, float]] = {}
        self._provoked_at: dict[Program, float] = {}

    def run(self, report: Report) -> None:
        """Does all of it. Raises TimeoutError for a point that is not come to."""
        while any(self._queues.values()) or self._set:
            self._world.rest(0.05)
            for program in list(self._world.programs.values()):
                self._attend(program, report)

    def _attend(self, program: Program, report: Report) -> None:
        now = time.monotonic()
        if program not in self._set:
            if self._queues[program.kind] and program.pid is not None and not program.is_stopped:
                self._set_next(program, now)
            return
        trap, since = self._set[program]
        if program.has_fired:
            if trap.act == "stop":
                self._world.pause(program, STOPPED_S)
            report.done[str(trap)] += 1
            del self._set[program]
        elif now - since > DEADLINE_S:
            raise TimeoutError(f"{program.name} did not come to {trap.point!r} within {DEADLINE_S:g} s")
        elif now - self._provoked_at[program] > AGAIN_S:
            self._provoke(program, trap, now)

    def _set_next(self, program: Program, now: float) -> None:
        trap = self._queues[program.kind].popleft()
        program.arm(trap.point, trap.moment, trap.act)
        self._set[program] = (trap, now)
        self._provoke(program, trap, now)

    def _provoke(self, program: Program, trap: Trap, now: float) -> None:
        self._provoked_at[program] = now
        provoke(self._world, trap.point, program)
