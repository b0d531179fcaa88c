"""A program is killed, stopped or fails where it comes to a point that has a name."""

import contextlib
import time

from tests.faults.provoke import provoke
from tests.faults.traps import Trap, all_traps
from tests.faults.world import World

WAIT_S = 10.0
AGAIN_S = 2.0


def spring(world: World) -> str:
    """At a point by chance: killed, failed, or stopped past its deadlines and let go on."""
    trap = world.rng.choice(all_traps())
    if world.rng.random() < 0.3:
        trap = trap._replace(act="stop")
    programs = world.sidecars if trap.program == "sidecar" else world.flushers
    program = programs[world.rng.choice(sorted(programs))]
    program.arm(trap.point, trap.moment, trap.act)
    end = time.monotonic() + WAIT_S
    while not program.has_fired and time.monotonic() < end:
        provoke(world, trap.point, program)
        with contextlib.suppress(TimeoutError):
            world.wait(lambda: program.has_fired, AGAIN_S, "it comes to the point")
    return f"{program.name}: {_fire(world, trap, program.name)}"


def _fire(world: World, trap: Trap, name: str) -> str:
    program = world.programs[name]
    if not program.has_fired:
        program.disarm()
        return f"{trap}, which it did not come to"
    program.may_fail = trap.may_end
    if trap.act == "stop":
        world.pause(program, 1.5)
        world.rest(1.6)
    world.rest(0.2)
    return str(trap)
