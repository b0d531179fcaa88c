"""Model `fixed`: a fee for a period, whatever is used; prorated for a partial period."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from flusher.pricing.period import BillingPeriod

_DAY_US = timedelta(days=1) // timedelta(microseconds=1)
_SECOND_US = 1_000_000


class Charge(StrEnum):
    """When a fixed fee is billed."""

    IN_ADVANCE = "in_advance"
    """At the start of its period: with the invoice of the period before, or the subscription's opening one."""
    IN_ARREARS = "in_arrears"
    """At the end of its period, with that period's usage."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A fee of `amount` a period, in major units of the plan's currency."""

    amount: Decimal
    charge: Charge = Charge.IN_ARREARS

    def share(self, billing: BillingPeriod) -> tuple[int, int]:
        """Return how much of the period is billed, as (covered, whole) microseconds.

        The fee is `amount` * covered / whole, rounded once: proration by the second, and exact below it.
        """
        return billing.period.length_us, billing.full.length_us

    def label(self, billing: BillingPeriod) -> str:
        """Return what the line says about its share: "17 of 31 days", or nothing for a whole period."""
        if not billing.is_partial:
            return ""
        covered, whole = self.share(billing)
        if covered % _DAY_US == 0 and whole % _DAY_US == 0:
            return f"{covered // _DAY_US} of {whole // _DAY_US} days"
        return f"{covered // _SECOND_US:,} of {whole // _SECOND_US:,} seconds"
