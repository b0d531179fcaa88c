"""Model `fixed`: a fee for a period, whatever is used; prorated for a partial period."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from flusher.pricing.line import Part
from flusher.pricing.money import plain
from flusher.pricing.period import BillingPeriod
from flusher.pricing.share import share, share_note

ONE = Decimal(1)


class ChargeTime(StrEnum):
    """When a fixed fee is billed."""

    IN_ADVANCE = "in_advance"
    """At the start of its period: with the invoice of the period before, or the subscription's opening one."""
    IN_ARREARS = "in_arrears"
    """At the end of its period, with that period's usage."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A fee of `amount` a period, in major units of the plan's currency."""

    amount: Decimal
    charge: ChargeTime = ChargeTime.IN_ARREARS

    def part(self, own: BillingPeriod) -> Part:
        """Return the fee of a period; of a partial one its share, exactly: proration by the second and below."""
        if not own.is_partial:
            return Part(ONE, self.amount, self.amount, "", working=plain(self.amount))
        covered, whole = share(own)
        note = share_note(own)
        working = f"{plain(self.amount)} x {note}"
        return Part(ONE, self.amount, self.amount * covered, note, working=working, divisor=whole)
