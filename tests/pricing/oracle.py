"""What a period costs, in exact fractions: written from interface.md's table and apart from the code.

It counts single events into periods by the calendar itself and walks tiers by their boundaries. Of the product it
knows plans alone: no parts, no lines, no charges, and none of its arithmetic.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from flusher.pricing.money import Rounding
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    ChargeTime,
    Discount,
    FixedPrice,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Plan,
    Stairstep,
    UsagePrice,
)

STEPS = {"usd": Fraction(1, 100), "jpy": Fraction(1), "kwd": Fraction(1, 100), "isk": Fraction(1)}
NANO = Fraction(1, 10**9)
Group = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Event:
    """An event of a meter."""

    meter: str
    at: datetime
    group: Group
    units: Fraction


@dataclass
class Cost:
    """What a period costs: the amounts of the lines of each price in its order, and of everything around."""

    arrears: dict[tuple[str, datetime], list[Fraction]] = field(default_factory=dict)
    advance: dict[tuple[str, datetime], list[Fraction]] = field(default_factory=dict)
    minimum: Fraction = Fraction(0)
    maximum: Fraction = Fraction(0)
    commitment: Fraction = Fraction(0)
    off_advance: list[Fraction] = field(default_factory=list)
    off_arrears: list[Fraction] = field(default_factory=list)


def bounds(interval: Interval, instant: datetime) -> tuple[datetime, datetime]:
    """The calendar's period that holds an instant, in UTC."""
    day = datetime(instant.year, instant.month, instant.day, tzinfo=UTC)
    if interval is Interval.DAY:
        return day, day + timedelta(days=1)
    if interval is Interval.WEEK:
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    length = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}[interval]
    first = (day.month - 1) // length * length + 1
    after = first + length
    end = datetime(day.year + 1, 1, 1, tzinfo=UTC) if after > 12 else datetime(day.year, after, 1, tzinfo=UTC)
    return datetime(day.year, first, 1, tzinfo=UTC), end


def rounded(amount: Fraction, plan: Plan) -> Fraction:
    """To the nearest step of the currency; a tie away from zero, or to the even step."""
    return to_step(amount, STEPS[plan.currency], even=plan.rounding is Rounding.HALF_EVEN)


def to_step(amount: Fraction, step: Fraction, *, even: bool = False) -> Fraction:
    """To the nearest multiple of a step."""
    if amount < 0:
        return -to_step(-amount, step, even=even)
    steps = amount / step
    lower = floor(steps)
    if steps - lower == Fraction(1, 2):
        return (lower if even and lower % 2 == 0 else lower + 1) * step
    return floor(steps + Fraction(1, 2)) * step


def cost(
    plan: Plan,
    subscription: tuple[datetime, datetime],
    period: tuple[datetime, datetime],
    number: int,
    events: Sequence[Event],
    committed: Fraction,
) -> Cost:
    """What `period`, the subscription's `number`th from 0, costs under a plan with a calendar cycle."""
    found = Cost()
    for price in plan.prices:
        in_advance = isinstance(price, FixedPrice) and price.model.charge is ChargeTime.IN_ADVANCE
        for start, end, share in own_periods(price.interval or plan.cycle.interval, subscription, period):
            if in_advance and start >= period[0]:
                found.advance[price.name, start] = price_lines(plan, price, start, end, share, events)
            if not in_advance and end <= period[1]:
                found.arrears[price.name, start] = price_lines(plan, price, start, end, share, events)
    advance = sum((sum(lines, Fraction(0)) for lines in found.advance.values()), Fraction(0))
    arrears = sum((sum(lines, Fraction(0)) for lines in found.arrears.values()), Fraction(0))
    if plan.minimum is not None:
        found.minimum = max(Fraction(0), rounded(Fraction(plan.minimum), plan) - advance - arrears)
    if plan.maximum is not None:
        found.maximum = min(Fraction(0), rounded(Fraction(plan.maximum), plan) - advance - arrears)
    arrears += found.minimum + found.maximum
    if plan.commitment is not None and commitment_ends(plan.commitment.interval, subscription, period[1]):
        target = rounded(Fraction(plan.commitment.amount), plan)
        found.commitment = max(Fraction(0), target - committed - advance - arrears)
        arrears += found.commitment
    discounts = [one for one in plan.discounts if one.duration is None or number < one.duration]
    for discount in discounts:
        first, rest = off(plan, discount, advance, arrears)
        found.off_advance.append(first)
        found.off_arrears.append(rest)
        advance -= first
        arrears -= rest
    return found


def off(plan: Plan, discount: Discount, advance: Fraction, arrears: Fraction) -> tuple[Fraction, Fraction]:
    """What a discount takes off the two parts."""
    if discount.percent is not None:
        share = Fraction(discount.percent) / 100
        return rounded(advance * share, plan), rounded(arrears * share, plan)
    amount = rounded(Fraction(discount.amount or 0), plan)
    first = min(amount, advance)
    return first, min(amount, advance + arrears) - first


def own_periods(
    interval: Interval, subscription: tuple[datetime, datetime], period: tuple[datetime, datetime]
) -> list[tuple[datetime, datetime, Fraction]]:
    """The periods of an interval that touch a period, as far as the subscription runs, with their share of a whole."""
    found = []
    at = period[0]
    while at < period[1]:
        begin, end = bounds(interval, at)
        start, stop = max(begin, subscription[0]), min(end, subscription[1])
        found.append(
            (start, stop, Fraction((stop - start) / timedelta.resolution) / int((end - begin) / timedelta.resolution))
        )
        at = stop
    return found


def commitment_ends(interval: Interval, subscription: tuple[datetime, datetime], end: datetime) -> bool:
    """Whether a commitment's period ends at an instant."""
    return end in (subscription[1], bounds(interval, end)[0])


def price_lines(
    plan: Plan,
    price: FixedPrice | UsagePrice,
    start: datetime,
    end: datetime,
    share: Fraction,
    events: Iterable[Event],
) -> list[Fraction]:
    """The amounts of a price's lines over one of its own periods, its minimum or maximum last."""
    if isinstance(price, FixedPrice):
        return [rounded(Fraction(price.model.amount) * share, plan)]
    used = [event for event in events if event.meter == price.meter and start <= event.at < end]
    share = share if price.prorate else Fraction(1)
    free = to_step(Fraction(price.free_units) * share, NANO)
    groups = sorted({event.group for event in used})
    exact: list[Fraction] = []
    for together in [[event for event in used if event.group == one] for one in groups] if price.per_group else [used]:
        exact += model_lines(price, together, free, share)
    lines = [rounded(amount, plan) for amount in exact]
    if price.minimum is not None and sum(lines) < (low := rounded(Fraction(price.minimum) * share, plan)):
        lines.append(low - sum(lines))
    elif price.maximum is not None and sum(lines) > (high := rounded(Fraction(price.maximum) * share, plan)):
        lines.append(high - sum(lines))
    return lines


def model_lines(price: UsagePrice, used: Sequence[Event], free: Fraction, share: Fraction) -> list[Fraction]:
    """The exact amounts of what is priced together."""
    model = price.model
    if isinstance(model, Matrix):
        return matrix_lines(model, used, free)
    quantity = sum((event.units for event in used), Fraction(0)) - free
    if quantity <= 0:
        return []
    if isinstance(model, PerUnit):
        return [quantity * Fraction(model.unit_price)]
    if isinstance(model, Package):
        return [ceil(quantity / Fraction(model.package_size)) * Fraction(model.package_price)]
    if isinstance(model, Percentage):
        return percentage_lines(model, used, quantity)
    ends = [to_step(Fraction(tier.up_to) * share, NANO) for tier in model.tiers if tier.up_to is not None]
    if isinstance(model, GraduatedPercentage):
        return graduated_lines(ends, quantity, [(Fraction(tier.rate) / 100, tier.flat_fee) for tier in model.tiers])
    if isinstance(model, Graduated):
        return graduated_lines(ends, quantity, [(Fraction(tier.unit_price), tier.flat_fee) for tier in model.tiers])
    tier = model.tiers[sum(end < quantity for end in ends)]
    return [(0 if isinstance(model, Stairstep) else quantity * Fraction(tier.unit_price)) + Fraction(tier.flat_fee)]


def graduated_lines(
    ends: Sequence[Fraction], quantity: Fraction, tiers: Sequence[tuple[Fraction, Decimal]]
) -> list[Fraction]:
    """Each tier's part of the quantity at its own price, and its fee."""
    found = []
    for (price, fee), low, high in zip(tiers, [Fraction(0), *ends], [*ends, quantity], strict=True):
        inside = min(high, quantity) - low
        if inside > 0:
            found.append(inside * price + Fraction(fee))
    return found


def percentage_lines(model: Percentage, used: Sequence[Event], quantity: Fraction) -> list[Fraction]:
    """The sum of what events pay, each by itself where something asks for single events."""
    rate, fee = Fraction(model.rate) / 100, Fraction(model.fee_per_event)
    low, high = model.minimum_per_event, model.maximum_per_event
    if not model.free_events and low is None and high is None:
        return [quantity * rate + fee * len(used)]
    paid = []
    for event in sorted(used, key=lambda one: one.at)[model.free_events :]:
        each = event.units * rate + fee
        each = each if low is None else max(each, Fraction(low))
        paid.append(each if high is None else min(each, Fraction(high)))
    return [max(Fraction(0), sum(paid, Fraction(0)))] if paid else []


def matrix_lines(model: Matrix, used: Sequence[Event], free: Fraction) -> list[Fraction]:
    """Each entry's units at its price; an event belongs to the first entry all of whose pairs it has."""
    units = [Fraction(0) for _ in model.entries]
    for event in used:
        for number, entry in enumerate(model.entries):
            if all(pair in event.group for pair in entry.match):
                units[number] += event.units
                break
    found = []
    for entry, quantity in zip(model.entries, units, strict=True):
        taken = min(free, max(quantity, Fraction(0)))
        free -= taken
        if quantity - taken > 0:
            found.append((quantity - taken) * Fraction(entry.unit_price))
    return found
