"""What can happen to a program that comes to a named point."""

from typing import Final, NamedTuple

from tests.faults.points import POINTS, Act, Moment


class Trap(NamedTuple):
    """What happens to the program that comes to a point next."""

    program: str
    point: str
    moment: Moment
    act: Act

    @property
    def may_end(self) -> bool:
        """Whether a program may end of it: one that starts and can't read its journal does."""
        return self.act == "raise" and (self.point == "journal loaded" or _module(self) == "sidecar.disk")

    def __str__(self) -> str:
        return f"{self.act} {self.moment} {self.point}"


# Only what does I/O itself can have done it and fail all the same; anything else fails before it.
WITHIN: Final = ("sidecar.ingest", "sidecar.journal", "sidecar.chain")


def _module(trap: Trap) -> str:
    return POINTS[trap.program][trap.point].module


def all_traps() -> list[Trap]:
    """Returns every point in three ways: killed before it, killed after it, and failed."""
    traps: list[Trap] = []
    for kind, points in POINTS.items():
        for name, point in points.items():
            traps += [Trap(kind, name, "before", "kill"), Trap(kind, name, "after", "kill")]
            traps.append(Trap(kind, name, "before" if point.module in WITHIN else "after", "raise"))
    return traps
