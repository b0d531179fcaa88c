"""What a period costs, in parts that are remembered one by one: the charges."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from flusher.pricing.line import Line, total
from flusher.pricing.period import Period


class ChargeKind(StrEnum):
    """What makes a charge."""

    PRICE = "price"
    """A price of the plan over one of its own periods, its own minimum and maximum included."""
    MINIMUM = "minimum"
    """The invoice's minimum."""
    MAXIMUM = "maximum"
    """The invoice's maximum."""
    COMMITMENT = "commitment"
    """What is missing from a commitment (true-up)."""
    DISCOUNT = "discount"


@dataclass(frozen=True, slots=True)
class Charge:
    """One part of what a period costs; (`kind`, `name`, `period`) tells it from the others of `rate_arrears`, or from
    those of `rate_advance`.

    `period` is a price's own period, which differs from the billed one where the price has another interval.
    `quantity` is the meter's, before free units, and `events` how many it came from. A charge may be 0 and have no
    lines: that is what it costs so far.
    """

    kind: ChargeKind
    name: str
    period: Period
    lines: tuple[Line, ...]
    meter: str | None = None
    quantity: Decimal = Decimal(0)
    events: int = 0

    @property
    def amount(self) -> Decimal:
        """The sum of the lines' rounded amounts."""
        return total(self.lines)
