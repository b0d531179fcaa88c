"""The share of a whole period that is billed: covered / whole, in microseconds, so that it is exact below a second.

Proration by the second is Stripe's: https://docs.stripe.com/billing/subscriptions/prorations.
"""

from datetime import timedelta
from decimal import Decimal

from flusher.pricing.money import grouped, round_to
from flusher.pricing.period import BillingPeriod

NANO = Decimal("0.000000001")
"""What a prorated quantity is rounded to, half up: the precision of an event's units."""
_DAY_US = timedelta(days=1) // timedelta(microseconds=1)
_SECOND_US = timedelta(seconds=1) // timedelta(microseconds=1)


def share(billing: BillingPeriod) -> tuple[int, int]:
    """Return how much of the period is billed, as (covered, whole) microseconds."""
    return billing.period.length_us, billing.full.length_us


def share_note(billing: BillingPeriod) -> str:
    """Return a partial period's share for the customer: "17 of 31 days", or seconds where days don't do."""
    covered, whole = share(billing)
    if covered % _DAY_US == 0 and whole % _DAY_US == 0:
        return f"{covered // _DAY_US} of {whole // _DAY_US} days"
    return f"{_seconds(covered)} of {_seconds(whole)} seconds"


def scaled(quantity: Decimal, billing: BillingPeriod) -> Decimal:
    """Return a quantity's share, rounded half up to 9 fractional digits."""
    covered, whole = share(billing)
    return round_to(quantity * covered, NANO, divisor=whole)


def _seconds(microseconds: int) -> str:
    return grouped(Decimal(microseconds) / _SECOND_US)
