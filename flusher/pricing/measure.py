"""What rating reads: which meter over which period, and what it showed."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple

from flusher.pricing.line import Dimensions
from flusher.pricing.money import EXACT
from flusher.pricing.period import Period

QUANTITY_LIMIT = Decimal(10) ** 27
"""A quantity stays below this, with at most 9 fractional digits, so that no product needs over 60 digits."""


class Need(NamedTuple):
    """A reading that a price wants.

    `free_events` is None where sums and counts are enough. Else the price is per event: `Measure.runs` are wanted, the
    first `free_events` of them (of each group where `per_group`) one by one. With `per_group` there is a measure for
    each group of the meter; without, one for all of them together will do, and must be where it is per event.
    """

    meter: str
    period: Period
    free_events: int | None = None
    per_group: bool = False


class Run(NamedTuple):
    """`events` events of `units` each."""

    units: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class Measure:
    """What a meter shows over a period for one group; `dimensions` is () where the meter has no groups.

    `quantity` is what its aggregation makes of `events` events. `runs`, where the need is per event, are their units
    in the order of time and key; behind the free ones order doesn't matter, and equal units may be one run.
    """

    quantity: Decimal
    dimensions: Dimensions = ()
    events: int = 0
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter shows over a period: a measure for each group, and the number of events in all of them."""

    measures: tuple[Measure, ...] = ()
    events: int = 0

    @property
    def quantity(self) -> Decimal:
        """The whole quantity, over all groups."""
        with localcontext(EXACT):
            return sum((measure.quantity for measure in self.measures), Decimal(0))


Usage = Mapping[Need, Reading]
"""What was used, by need. A need that is absent shows nothing."""

NOTHING = Reading()
