"""Adjustments: usage of a closed period now, minus what was billed for it (rule 16). Pure.

Never a flag by arrival time: what was billed is stored in the transaction that read the usage, so whatever came
late, in whatever order, is exactly the difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from flusher.invoicing.invoice import InvoiceLine
from flusher.pricing.line import Line, LineKind, line_id, rfc3339
from flusher.pricing.money import EXACT, grouped
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.plan import Plan, UsagePrice
from flusher.pricing.rate import Measure, Usage, rate_arrears


@dataclass(frozen=True, slots=True)
class Billed:
    """What has been billed so far for one price over one period.

    `quantity` is the meter's, before free units; `events` the number of events in it; `amount` the sum of every line
    for it, adjustments included.
    """

    period: Period
    price: str
    meter: str
    quantity: Decimal
    events: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter shows over a period: a quantity for each group, and the number of events in all of them."""

    measures: tuple[Measure, ...] = ()
    events: int = 0

    @property
    def quantity(self) -> Decimal:
        """The whole quantity, over all groups."""
        with localcontext(EXACT):
            return sum((measure.quantity for measure in self.measures), Decimal(0))


Readings = Mapping[str, Reading]
"""What was used in a period, by meter; a meter that is absent shows nothing."""

_NOTHING = Reading()


def usage_of(readings: Readings) -> Usage:
    """Return readings in the form that rating takes."""
    return {meter: reading.measures for meter, reading in readings.items()}


def billed_now(plan: Plan, period: Period, readings: Readings, lines: Iterable[Line]) -> list[Billed]:
    """Return what a set of rated lines bills, for every usage price of the plan, those at zero included."""
    amounts = _amounts(lines)
    found = []
    for price in plan.prices:
        if isinstance(price, UsagePrice):
            reading = readings.get(price.meter, _NOTHING)
            amount = amounts.get(price.name, Decimal(0))
            found.append(Billed(period, price.name, price.meter, reading.quantity, reading.events, amount))
    return found


def is_changed(billed: Billed, readings: Readings) -> bool:
    """Whether the usage of a billed period is no longer what was billed."""
    reading = readings.get(billed.meter, _NOTHING)
    return (reading.quantity, reading.events) != (billed.quantity, billed.events)


def adjustments(
    plan: Plan, billing: BillingPeriod, billed: Sequence[Billed], readings: Readings, *, scope: str
) -> tuple[list[InvoiceLine], list[Billed]]:
    """Return the lines that bring a closed period to what it should cost, and what is then billed so far.

    `plan` is the version that the period was billed under; `scope` the id of the invoice that carries the lines. A
    change that costs nothing, such as one within a free tier, makes no line and leaves `billed` as it is: the next
    look compares with the same amounts.
    """
    rated = rate_arrears(plan, billing, usage_of(readings))
    current = {entry.price: entry for entry in billed_now(plan, billing.period, readings, rated)}
    lines, now = [], []
    for before in billed:
        after = current.get(before.price)
        if after is None or after.amount == before.amount:
            continue
        lines.append(_line(before, after, scope))
        now.append(after)
    return lines, now


def _line(before: Billed, after: Billed, scope: str) -> InvoiceLine:
    with localcontext(EXACT):
        quantity = after.quantity - before.quantity
        amount = after.amount - before.amount
    more = f"{grouped(abs(quantity))} {'fewer' if quantity < 0 else 'more'}"
    dates = [rfc3339(instant).removesuffix("T00:00:00Z") for instant in (before.period.start, before.period.end)]
    return InvoiceLine(
        id=line_id(f"{scope}/adjustment", LineKind.USAGE, before.price, None, None, before.period),
        kind="adjustment",
        price=before.price,
        meter=before.meter,
        dimensions=None,
        tier=None,
        period=before.period,
        description=f"{before.price}, adjustment of {' to '.join(dates)}: {more} than billed",
        quantity=quantity,
        unit_price=None,
        amount=amount,
    )


def _amounts(lines: Iterable[Line]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    with localcontext(EXACT):
        for line in lines:
            if line.kind is LineKind.USAGE:
                amounts[line.price] = amounts.get(line.price, Decimal(0)) + line.amount
    return amounts
