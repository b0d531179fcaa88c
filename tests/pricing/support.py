"""What the tests of pricing share: short ways to write plans, tiers and periods."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from flusher.pricing.line import Line, dimensions_of
from flusher.pricing.period import BillingPeriod, Period, Span
from flusher.pricing.plan import Plan, Price, Tier, UsageModel, UsagePrice
from flusher.pricing.rate import Charge, Measure, Need, Reading, Run, needs, rate_advance, rate_arrears

JULY = Period(datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC))
WHOLE_JULY = BillingPeriod(JULY, JULY)
SPAN = Span(datetime(2025, 1, 1, tzinfo=UTC), None, datetime(2025, 1, 1, tzinfo=UTC))
"""A subscription that began with the year."""


def tiers(*rows: tuple[str | None, str, str] | tuple[str | None, str]) -> tuple[Tier, ...]:
    """Tiers from (up_to, unit_price, flat_fee)."""
    return tuple(Tier(None if row[0] is None else Decimal(row[0]), *map(Decimal, row[1:])) for row in rows)


ARTICLE = tiers(("1000", "0"), ("10000", "0.01"), (None, "0.005"))


def plan(*prices: Price, currency: str = "usd") -> Plan:
    return Plan("pro", currency, prices)


def lines_of(charges: Iterable[Charge]) -> tuple[Line, ...]:
    return tuple(line for charge in charges for line in charge.lines)


def usage_of(plan: Plan, billing: BillingPeriod, shown: Mapping[str, Sequence[Measure]]) -> dict[Need, Reading]:
    """What each of the plan's needs reads where a meter shows the same in each of its periods."""
    return {
        need: Reading(tuple(shown[need.meter]), sum(measure.events for measure in shown[need.meter]))
        for need in needs(plan, SPAN, billing)
        if need.meter in shown
    }


def arrears(
    plan: Plan, billing: BillingPeriod, shown: Mapping[str, Sequence[Measure]], scope: str = ""
) -> tuple[Line, ...]:
    """The lines due when a period is over, by what each meter shows."""
    return lines_of(rate_arrears(plan, SPAN, billing, usage_of(plan, billing, shown), scope=scope))


def advance(plan: Plan, billing: BillingPeriod) -> tuple[Line, ...]:
    """The lines due when a period begins."""
    return lines_of(rate_advance(plan, SPAN, billing))


def run_of(*units: str, **group: str) -> Measure:
    """What a meter shows of events of these units, in their order."""
    runs = tuple(Run(Decimal(one), 1) for one in units)
    return Measure(sum((run.units for run in runs), Decimal(0)), dimensions_of(group), len(runs), runs)


def rate_model(model: UsageModel, quantity: str, free_units: str = "0", currency: str = "usd") -> tuple[Line, ...]:
    """The lines of a quantity at one price, for July."""
    price = UsagePrice("calls", "calls", model, Decimal(free_units))
    return arrears(plan(price, currency=currency), WHOLE_JULY, {"calls": [Measure(Decimal(quantity))]})


def amounts(lines: tuple[Line, ...]) -> list[str]:
    return [str(line.amount) for line in lines]
