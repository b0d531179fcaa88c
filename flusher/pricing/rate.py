"""Rating: a plan, a period and what was used in it give charges, and these the lines of an invoice.

The invoice of a period P, made when P is over, has `rate_arrears` of P (usage, and fixed fees in arrears), then
`rate_advance` of the period after P (fixed fees in advance). A subscription whose plan has fees in advance gets an
opening invoice at its start with `rate_advance` of its first period alone; its own period is empty (start to start).
After the last period nothing is in advance.

What P costs is its arrears part and its advance part together: prices first, each with its own minimum and maximum,
then the invoice's minimum and maximum, the commitment, and the discounts. A price with an interval of its own is due
with the P in which its own period ends, or begins where it is in advance.

At a quantity of 0 a usage price costs 0 and makes no line, unless it has a minimum; a negative net quantity is priced
as 0.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal, localcontext

from flusher.pricing.around import (
    active_discounts,
    discounts_in_advance,
    discounts_in_arrears,
    limit_charges,
    true_up,
)
from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.due import commitment_period, in_advance, in_arrears
from flusher.pricing.fixed import ChargeTime
from flusher.pricing.measure import NOTHING, QUANTITY_LIMIT, Measure, Need, Reading, Run, Usage
from flusher.pricing.money import EXACT
from flusher.pricing.period import BillingPeriod, Span
from flusher.pricing.plan import FixedPrice, Plan, UsagePrice
from flusher.pricing.priced import fixed_charge, need_of, usage_charge
from flusher.pricing.tiers import ZERO
from flusher.pricing.writing import Writer

__all__ = [
    "QUANTITY_LIMIT",
    "Charge",
    "ChargeKind",
    "Measure",
    "Need",
    "Reading",
    "Run",
    "Usage",
    "commitment_period",
    "needs",
    "rate_advance",
    "rate_arrears",
]


def needs(plan: Plan, span: Span, billing: BillingPeriod) -> tuple[Need, ...]:
    """Return what `rate_arrears` of this period reads, each once, in the order of the prices."""
    return tuple(dict.fromkeys(need_of(price, own) for price, own in _usage_due(plan, span, billing)))


def rate_arrears(
    plan: Plan, span: Span, billing: BillingPeriod, usage: Usage, *, committed: Decimal = ZERO, scope: str = ""
) -> tuple[Charge, ...]:
    """Return what is due when a period is over: usage, fixed fees in arrears, and what goes around all prices.

    `committed` is what earlier periods of the commitment's period were charged for prices, minimum and maximum.
    `scope` makes line ids unique beyond one call: pass the invoice's id. A charge of 0 is returned too, without lines.
    Raises `ValueError` for a quantity that is not finite or too large, and for readings without the events they need.
    """
    write = Writer.of(plan, scope)
    with localcontext(EXACT):
        charges = [*_arrears_prices(plan, span, billing, usage, write)]
        ending = commitment_period(plan, span, billing)
        discounts = active_discounts(plan, span, billing)
        if plan.minimum is None and plan.maximum is None and ending is None and not discounts:
            return tuple(charges)
        advance = _sum(_advance_prices(plan, span, billing, write))
        charges += limit_charges(plan, billing.period, advance + _sum(charges), write)
        if plan.commitment is not None and ending is not None:
            charges.append(true_up(plan.commitment, ending, committed + advance + _sum(charges), write))
        charges += discounts_in_arrears(discounts, billing.period, advance, _sum(charges), write)
        return tuple(charges)


def rate_advance(plan: Plan, span: Span, billing: BillingPeriod, *, scope: str = "") -> tuple[Charge, ...]:
    """Return what is due when a period begins: its fixed fees in advance, less the discounts on them."""
    write = Writer.of(plan, scope)
    with localcontext(EXACT):
        charges = [*_advance_prices(plan, span, billing, write)]
        if charges:
            discounts = active_discounts(plan, span, billing)
            charges += discounts_in_advance(discounts, billing.period, _sum(charges), write)
    return tuple(charges)


def _arrears_prices(plan: Plan, span: Span, billing: BillingPeriod, usage: Usage, write: Writer) -> Iterator[Charge]:
    """Yield the charges of usage prices and of fees in arrears, in the order of the prices."""
    for price in plan.prices:
        if isinstance(price, FixedPrice) and price.model.charge is ChargeTime.IN_ADVANCE:
            continue
        for own in in_arrears(plan, price.interval, span, billing):
            if isinstance(price, FixedPrice):
                yield fixed_charge(price, own, write)
            else:
                yield usage_charge(price, own, usage.get(need_of(price, own), NOTHING), write)


def _advance_prices(plan: Plan, span: Span, billing: BillingPeriod, write: Writer) -> Iterator[Charge]:
    """Yield the charges of fees in advance, in the order of the prices."""
    for price in plan.prices:
        if isinstance(price, FixedPrice) and price.model.charge is ChargeTime.IN_ADVANCE:
            for own in in_advance(plan, price.interval, span, billing):
                yield fixed_charge(price, own, write)


def _usage_due(plan: Plan, span: Span, billing: BillingPeriod) -> Iterator[tuple[UsagePrice, BillingPeriod]]:
    """Yield the usage prices whose own periods end with this one, with these periods."""
    for price in plan.prices:
        if isinstance(price, UsagePrice):
            for own in in_arrears(plan, price.interval, span, billing):
                yield price, own


def _sum(charges: Iterable[Charge]) -> Decimal:
    return sum((charge.amount for charge in charges), ZERO)
