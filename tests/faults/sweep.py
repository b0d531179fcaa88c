"""Every named point is hit: killed before it, killed after it, its reply lost; on all programs at once."""

import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from tests.faults.points import POINTS
from tests.faults.processes import Program
from tests.faults.provoke import phase, provoke, where
from tests.faults.run import Report
from tests.faults.traps import Trap
from tests.faults.world import World

AGAIN_S: Final = 1.0  # from one provocation to the next
DEADLINE_S: Final = 60.0


class Sweep:
    """Sets one trap after the other, one on each program at a time; together those that the same thing leads to."""

    def __init__(self, world: World, traps: Iterable[Trap], seed: int) -> None:
        self._world = world
        ordered = list(traps)
        random.Random(seed).shuffle(ordered)
        self._phases: dict[str, list[Trap]] = {}
        for trap in ordered:
            self._phases.setdefault(phase(trap.point), []).append(trap)
        self._set: dict[Program, tuple[Trap, float]] = {}
        self._provoked_at: dict[str, float] = {}

    def run(self, report: Report) -> None:
        """Does all of it. Raises TimeoutError for a point that is not come to."""
        for _, traps in sorted(self._phases.items()):
            queues = {kind: deque(trap for trap in traps if trap.program == kind) for kind in POINTS}
            while any(queues.values()) or self._set:
                self._world.rest(0.02)
                for program in self._world.programs.values():
                    self._attend(program, queues[program.kind], report)

    def _attend(self, program: Program, queue: "deque[Trap]", report: Report) -> None:
        now = time.monotonic()
        if program not in self._set:
            if queue and program.pid is not None:
                trap = queue.popleft()
                program.arm(trap.point, trap.moment, trap.act)
                self._set[program] = (trap, now)
            return
        trap, since = self._set[program]
        if program.has_fired:
            report.done[str(trap)] += 1
            report.lines.append(f"{program.name}: {trap} ({now - since:.1f} s)")
            program.may_fail = trap.may_end
            del self._set[program]
        elif now - since > DEADLINE_S:
            raise TimeoutError(f"{program.name} did not come to {trap.point!r} within {DEADLINE_S:g} s")
        elif now - self._provoked_at.get(whom := where(trap.point, program), 0.0) > AGAIN_S:
            self._provoked_at[whom] = now
            provoke(self._world, trap.point, program)
