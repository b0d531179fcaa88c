"""Rating: a plan, a period and what was used in it give the lines of an invoice.

The invoice of a period P, made when P is over, has `rate_arrears` of P (usage, and fixed fees in arrears) by
the plan version of P, then `rate_advance` of the period after P (fixed fees in advance) by the version of that
one. A subscription whose plan has fees in advance gets an opening invoice at its start with `rate_advance` of
its first period alone; its own period is empty (start to start). After the last period nothing is in advance.

At a quantity of 0 a usage price costs 0 and makes no line; a negative net quantity is priced as 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from flusher.pricing.fixed import Charge
from flusher.pricing.line import Dimensions, Line, LineKind, Part, line_id
from flusher.pricing.money import EXACT, Currency, currency, round_amount
from flusher.pricing.period import BillingPeriod
from flusher.pricing.plan import FixedPrice, Plan, UsagePrice
from flusher.pricing.tiers import ZERO, units

QUANTITY_LIMIT = Decimal(10) ** 27
"""A quantity stays below this, with at most 9 fractional digits, so that no product needs over 60 digits."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a meter shows over a period for one group; `dimensions` is () where the meter has no groups."""

    quantity: Decimal
    dimensions: Dimensions = ()


Usage = Mapping[str, Sequence[Measure]]
"""What was used in a period, by meter. A meter that is absent shows 0."""


def rate_arrears(plan: Plan, billing: BillingPeriod, usage: Usage, *, scope: str = "") -> tuple[Line, ...]:
    """Return the lines that are due when a period is over: usage, and fixed fees in arrears.

    `scope` makes line ids unique beyond one call: pass the invoice's id. Meters that the plan doesn't price
    are left alone. Raises `ValueError` for a quantity that is not finite or too large.
    """
    lines: list[Line] = []
    with localcontext(EXACT):
        for price in plan.prices:
            if isinstance(price, UsagePrice):
                lines += _usage_lines(plan, price, billing, usage.get(price.meter, ()), scope)
            elif price.model.charge is Charge.IN_ARREARS:
                lines.append(_fixed_line(plan, price, billing, scope))
    return tuple(lines)


def rate_advance(plan: Plan, billing: BillingPeriod, *, scope: str = "") -> tuple[Line, ...]:
    """Return the lines that are due when a period begins: its fixed fees in advance."""
    with localcontext(EXACT):
        return tuple(
            _fixed_line(plan, price, billing, scope)
            for price in plan.prices
            if isinstance(price, FixedPrice) and price.model.charge is Charge.IN_ADVANCE
        )


def _usage_lines(
    plan: Plan, price: UsagePrice, billing: BillingPeriod, measures: Sequence[Measure], scope: str
) -> Iterator[Line]:
    """Yield a line for each part that the price's model makes, rounded once."""
    money = currency(plan.currency)
    for dimensions, quantity in _quantities(price, measures):
        priced = max(ZERO, quantity - price.free_units)
        if not priced:
            continue
        for part in price.model.parts(priced):
            yield Line(
                id=line_id(scope, LineKind.USAGE, price.name, dimensions, part.tier, billing.period),
                kind=LineKind.USAGE,
                price=price.name,
                meter=price.meter,
                dimensions=dimensions,
                tier=part.tier,
                period=billing.period,
                description=_describe(price, dimensions, part),
                quantity=part.quantity,
                unit_price=part.unit_price,
                amount=round_amount(part.amount, money, plan.rounding),
            )


def _quantities(price: UsagePrice, measures: Sequence[Measure]) -> list[tuple[Dimensions | None, Decimal]]:
    """Return what is priced together: the whole quantity, or each group's, in the order of the dimensions."""
    sums: dict[Dimensions | None, Decimal] = {}
    for measure in measures:
        if not measure.quantity.is_finite() or abs(measure.quantity) >= QUANTITY_LIMIT:
            raise ValueError(f"meter {price.meter}: expected a quantity below 10^27, got {measure.quantity}")
        key = measure.dimensions if price.per_group else None
        sums[key] = sums.get(key, ZERO) + measure.quantity
    return sorted(sums.items(), key=lambda item: item[0] or ())


def _describe(price: UsagePrice, dimensions: Dimensions | None, part: Part) -> str:
    """Return the line's text for the customer: "api_call, first 1,000 units"."""
    group = "".join(f" ({name} {value})" for name, value in dimensions or ())
    free = f", after {units(price.free_units)} free" if price.free_units else ""
    return f"{price.name}{group}, {part.label}{free}"


def _fixed_line(plan: Plan, price: FixedPrice, billing: BillingPeriod, scope: str) -> Line:
    """Return the line of a fixed fee, prorated for a partial period and rounded once."""
    money: Currency = currency(plan.currency)
    covered, whole = price.model.share(billing)
    label = price.model.label(billing)
    return Line(
        id=line_id(scope, LineKind.FIXED, price.name, None, None, billing.period),
        kind=LineKind.FIXED,
        price=price.name,
        meter=None,
        dimensions=None,
        tier=None,
        period=billing.period,
        description=f"{price.name}, {label}" if label else price.name,
        quantity=Decimal(1),
        unit_price=price.model.amount,
        amount=round_amount(price.model.amount * covered, money, plan.rounding, divisor=whole),
    )
