"""What the tests of pricing share: short ways to write plans, tiers and periods."""

from datetime import UTC, datetime
from decimal import Decimal

from flusher.pricing.line import Line
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.plan import Plan, Price, Tier, UsageModel, UsagePrice
from flusher.pricing.rate import Measure, rate_arrears

JULY = Period(datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC))
WHOLE_JULY = BillingPeriod(JULY, JULY)


def tiers(*rows: tuple[str | None, str, str] | tuple[str | None, str]) -> tuple[Tier, ...]:
    """Tiers from (up_to, unit_price, flat_fee)."""
    return tuple(Tier(None if row[0] is None else Decimal(row[0]), *map(Decimal, row[1:])) for row in rows)


ARTICLE = tiers(("1000", "0"), ("10000", "0.01"), (None, "0.005"))


def plan(*prices: Price, currency: str = "usd") -> Plan:
    return Plan("pro", currency, prices)


def rate_model(model: UsageModel, quantity: str, free_units: str = "0", currency: str = "usd") -> tuple[Line, ...]:
    """The lines of a quantity at one price, for July."""
    price = UsagePrice("calls", "calls", model, Decimal(free_units))
    return rate_arrears(plan(price, currency=currency), WHOLE_JULY, {"calls": [Measure(Decimal(quantity))]})


def amounts(lines: tuple[Line, ...]) -> list[str]:
    return [str(line.amount) for line in lines]
