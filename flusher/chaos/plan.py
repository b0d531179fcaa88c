"""What is done to the system, and when: it follows from the seed alone. Pure."""

from enum import StrEnum
from typing import Final, NamedTuple

from flusher.chaos.dice import Dice

PARTS: Final = ("sidecar", "flusher", "redis", "postgres")
LONG_STOP_S: Final = 20.0  # longer than every deadline that one part gives another
SHORT_STOP_S: Final = (0.3, 2.5)
LONG_STOPS: Final = 3  # one stop in so many is long
BACK_S: Final = (1.0, 15.0)


class Kind(StrEnum):
    """What can be done to a part."""

    KILL = "killed"  # kill -9
    STOP = "stopped"  # SIGSTOP, and SIGCONT later
    WIPE = "wiped"  # FLUSHALL
    EMPTY = "started empty"
    BACK = "taken back in time"  # it comes back with an older state of its append-only file
    REMEMBER = "remembered"  # no fault: the state that it is taken back to


class Fault(NamedTuple):
    """Something that is done to a part `at_s` seconds after the start; a stop ends `lasts_s` later."""

    at_s: float
    kind: Kind
    part: str
    lasts_s: float = 0.0


EVERY_FAULT: Final = (
    *((Kind.KILL, part) for part in PARTS),
    *((Kind.STOP, part) for part in PARTS),
    *((kind, "redis") for kind in (Kind.WIPE, Kind.EMPTY, Kind.BACK)),
)


def plan(seed: int, seconds: float, every_s: float) -> list[Fault]:
    """Return the faults of a run in the order of time: about one in `every_s`, each kind once before any comes again.

    Long stops are in runs that leave the time for them.
    """
    dice = Dice(seed, "plan")
    faults: list[Fault] = []
    round_: list[tuple[Kind, str]] = []
    long_s = min(LONG_STOP_S, seconds / 6)
    for place in range(int(seconds / every_s)):
        round_ = round_ or dice.shuffled(EVERY_FAULT)
        kind, part = round_.pop()
        at_s = every_s * (place + dice.between(0.2, 0.8))
        if kind is Kind.BACK:
            faults.append(Fault(max(0.0, at_s - dice.between(*BACK_S)), Kind.REMEMBER, part))
        lasts_s = 0.0
        if kind is Kind.STOP:
            lasts_s = dice.between(*SHORT_STOP_S)
            if dice.chance(LONG_STOPS):
                lasts_s = max(lasts_s, long_s)
        faults.append(Fault(at_s, kind, part, lasts_s))
    return sorted(faults, key=lambda fault: fault.at_s)
