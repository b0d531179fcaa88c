"""What a benchmark finds out: a measure, what stands beside it from the same rounds, and what was hoped for. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should come to: a ratio to what is beside it, by name, or a value of ours where `beside` is "".

    `least` or `most`; the other is None.
    """

    beside: str = ""
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Return whether a value is good enough."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def text(self) -> str:
        """The goal for a person."""
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


@dataclass(slots=True)
class Figure:
    """A measure, round by round. `beside` has what was measured in the same rounds, in turn, in the same unit.

    `cpu_us`: what each process of ours took of a core for an event, microseconds; `beside_cpu_us`: what all processes
    of another took, its load generator included. `note` is for the reader: why something is missing, or how much the
    load generator took.
    """

    row: str
    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    beside: dict[str, list[float]] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    cpu_us: dict[str, float] = field(default_factory=dict)
    beside_cpu_us: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def value(self) -> float | None:
        """The median of ours, None where nothing was measured."""
        return statistics.median(self.ours) if self.ours else None

    def ratio(self, name: str) -> float | None:
        """Return the median over the rounds of ours to what is beside it; None where a round has only one of them."""
        pairs = [(ours, its) for ours, its in zip(self.ours, self.beside[name], strict=False) if its > 0]
        return statistics.median(ours / its for ours, its in pairs) if pairs else None

    def goal(self, beside: str) -> Goal | None:
        """Return the goal of the ratio to what is beside it, of the value itself with ""."""
        return next((goal for goal in self.goals if goal.beside == beside), None)

    def as_json(self) -> dict[str, object]:
        """Return it for a program."""
        return {
            "row": self.row,
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "rounds": self.ours,
            "goal": _goal_json(self.goal(""), self.value),
            "beside": [
                {
                    "name": name,
                    "value": statistics.median(values) if values else None,
                    "rounds": values,
                    "ratio": self.ratio(name),
                    "goal": _goal_json(self.goal(name), self.ratio(name)),
                    "cpu_us": self.beside_cpu_us.get(name),
                }
                for name, values in self.beside.items()
            ],
            "cpu_us": self.cpu_us,
            "note": self.note,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least this share of the values does not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values: nothing was measured")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _goal_json(goal: Goal | None, value: float | None) -> dict[str, float | bool | None] | None:
    """Return a goal, and whether a value meets it; `met` is null where nothing was measured."""
    if goal is None:
        return None
    return {"least": goal.least, "most": goal.most, "met": None if value is None else goal.met(value)}
