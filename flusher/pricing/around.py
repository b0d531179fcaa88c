"""What goes around the prices of a period: the invoice's minimum and maximum, the commitment, discounts, in this order.

What each counts is a decision of this folder's README; that a minimum and a commitment are reached before discounts is
also how https://getlago.com/docs/guide/lago-cloud/contract-billing has it.
"""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.limits import excess, missing
from flusher.pricing.line import LineKind, Part
from flusher.pricing.money import grouped, plain
from flusher.pricing.period import BillingPeriod, Period, Span, period_number
from flusher.pricing.plan import Commitment, Discount, Plan
from flusher.pricing.tiers import ZERO
from flusher.pricing.writing import Writer

ONE = Decimal(1)
MINIMUM, MAXIMUM, COMMITMENT = "minimum", "maximum", "commitment"
RESERVED = (MINIMUM, MAXIMUM, COMMITMENT)
"""The names under which an invoice's own lines stand; no price may have one of them."""


def limit_charges(plan: Plan, period: Period, base: Decimal, write: Writer) -> list[Charge]:
    """Return what brings a period's price charges, `base` in all, to the invoice's minimum and maximum."""
    charges = []
    if plan.minimum is not None:
        limit = write.rounded(plan.minimum)
        part = missing(base, limit, f"of {grouped(limit)}")
        charges.append(_charge(ChargeKind.MINIMUM, LineKind.MINIMUM, MINIMUM, period, part, write))
    if plan.maximum is not None:
        limit = write.rounded(plan.maximum)
        part = excess(base, limit, f"of {grouped(limit)}")
        charges.append(_charge(ChargeKind.MAXIMUM, LineKind.MAXIMUM, MAXIMUM, period, part, write))
    return charges


def true_up(commitment: Commitment, period: Period, reached: Decimal, write: Writer) -> Charge:
    """Return what is missing from a commitment at the end of its `period`, of which `reached` was charged."""
    limit = write.rounded(commitment.amount)
    part = missing(reached, limit, f"of {grouped(limit)} a {commitment.interval}")
    return _charge(ChargeKind.COMMITMENT, LineKind.MINIMUM, COMMITMENT, period, part, write)


def active_discounts(plan: Plan, span: Span, billing: BillingPeriod) -> list[Discount]:
    """Return the discounts that apply to a period, in their order."""
    if not plan.discounts:
        return []
    number = period_number(plan.cycle, span, billing.full.start)
    return [found for found in plan.discounts if found.duration is None or number < found.duration]


def discounts_in_advance(discounts: Iterable[Discount], period: Period, base: Decimal, write: Writer) -> list[Charge]:
    """Return what is off the advance part of a period, `base` in all; each discount takes from what others left.

    The ids of the lines differ from those in arrears, whose price and period are the same.
    """
    write = replace(write, scope=f"{write.scope}/advance")
    charges = []
    for discount in discounts:
        off, working = _off(discount, base, write)
        base -= off
        charges.append(_discount(discount, period, off, working, write))
    return charges


def discounts_in_arrears(
    discounts: Iterable[Discount], period: Period, advance: Decimal, arrears: Decimal, write: Writer
) -> list[Charge]:
    """Return what is off the arrears part of a period, `arrears` in all, after what was off `advance`.

    A percentage is of each part. An amount is used up by the advance part first; both parts together never have more
    off than they cost. Where a maximum made the arrears part negative, that gives back what was taken off in advance.
    """
    charges = []
    for discount in discounts:
        before, _ = _off(discount, advance, write)
        if discount.amount is None:
            off, working = _off(discount, arrears, write)
        else:
            whole, working = _off(discount, advance + arrears, write)
            off = whole - before
            working += f", of which {grouped(before)} in advance" if before else ""
        advance -= before
        arrears -= off
        charges.append(_discount(discount, period, off, working, write))
    return charges


def _off(discount: Discount, base: Decimal, write: Writer) -> tuple[Decimal, str]:
    """Return what a discount takes off `base`, rounded, and the working."""
    if discount.amount is not None:
        amount = write.rounded(discount.amount)
        off = min(amount, max(ZERO, base))
        return off, f"{grouped(amount)}, at most {grouped(base)}"
    percent = discount.percent or ZERO
    working = f"{plain(percent)} % of {grouped(base)} = {grouped((base * percent).scaleb(-2))}"
    return write.rounded(base * percent, 100), working


def _discount(discount: Discount, period: Period, off: Decimal, working: str, write: Writer) -> Charge:
    """Return a discount's charge; one that takes nothing off has no line."""
    how = grouped(discount.amount) if discount.amount is not None else f"{plain(discount.percent or ZERO)} %"
    part = Part(ONE, -off, -off, f"{how} off", working=working) if off else None
    return _charge(ChargeKind.DISCOUNT, LineKind.DISCOUNT, discount.name, period, part, write)


def _charge(kind: ChargeKind, line: LineKind, name: str, period: Period, part: Part | None, write: Writer) -> Charge:
    lines = () if part is None else (write.line(line, name, period, part),)
    return Charge(kind, name, period, lines)
