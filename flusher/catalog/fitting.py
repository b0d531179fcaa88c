"""Whether a price can be asked of its meter, and a subscription's own terms of its plan: problems by key."""

from collections.abc import Iterable, Iterator

from flusher.catalog.reader import shown
from flusher.pricing.due import fits
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    Credit,
    Discount,
    GraduatedPercentage,
    Matrix,
    Overrides,
    Percentage,
    Plan,
    Price,
    UsagePrice,
)
from sidecar.contract.meters import Meter


def wants_values(price: Price) -> bool:
    """Whether the price is per event, so that its meter has to be `detailed`."""
    return isinstance(price, UsagePrice) and isinstance(price.model, Percentage) and price.model.is_per_event


def meter_problems(price: Price, meter: Meter) -> Iterator[tuple[str, str]]:
    """Yield what the meter can't give to the price, as (key of the price, what is wrong)."""
    if not isinstance(price, UsagePrice):
        return
    if isinstance(price.model, Percentage | GraduatedPercentage) and meter.aggregation != "sum":
        message = "a percentage is of a sum of money; price this meter with another model"
        yield "model", f'expected a meter with aggregation "sum", got "{meter.aggregation}"; {message}'
    if price.per_group and not meter.group_by:
        message = f"expected a meter with group_by, got {shown(meter.name)} without"
        yield "per_group", f"{message}; leave per_group out"
    if isinstance(price.model, Matrix):
        known = ", ".join(map(shown, meter.group_by)) or "none"
        for number, entry in enumerate(price.model.entries):
            for name, _ in entry.match:
                if name not in meter.group_by:
                    message = f"expected a key of the meter's group_by ({known}), got {shown(name)}"
                    yield f"prices[{number}].match", f"{message}; add it to group_by"


def interval_problems(of: Plan | Overrides, interval: Interval) -> Iterator[tuple[str, str]]:
    """Yield each interval that doesn't go with a plan's `interval`, as (path, what is wrong): `prices[0].interval`."""
    for number, price in enumerate(of.prices):
        if price.interval is not None and not fits(price.interval, interval):
            message = f'expected an interval that divides the plan\'s, "{interval}", or is a multiple of it'
            yield f"prices[{number}].interval", f'{message}, got "{price.interval}"'
    if of.commitment is not None and not _is_multiple(of.commitment.interval, interval):
        message = f'expected the plan\'s interval, "{interval}", or a multiple of it, got "{of.commitment.interval}"'
        yield "commitment.interval", message


def override_problems(plan: Plan, overrides: Overrides) -> Iterator[tuple[str, str]]:
    """Yield what a subscription can't have beside its plan, as (path in its overrides, what is wrong).

    A path begins with a key of `overrides_table`: `prices[0].interval`, `discounts[1].name`, `minimum`.
    """
    yield from interval_problems(overrides, plan.cycle.interval)
    both = plan.under(overrides)
    if both.minimum is not None and both.maximum is not None and both.minimum > both.maximum:
        key = "maximum" if overrides.minimum is None else "minimum"
        yield key, f"the minimum would be {both.minimum}, above the maximum, {both.maximum}, together with the plan's"
    yield from _taken("discounts", plan.discounts, overrides.discounts)
    yield from _taken("credits", plan.credits, overrides.credits)


def _taken(
    key: str, theirs: Iterable[Discount | Credit], ours: Iterable[Discount | Credit]
) -> Iterator[tuple[str, str]]:
    """Yield the names of a subscription that its plan has."""
    names = {one.name for one in theirs}
    for number, one in enumerate(ours):
        if one.name in names:
            yield f"{key}[{number}].name", f"{shown(one.name)} is one of the plan's; give it another name"


def _is_multiple(interval: Interval, of: Interval) -> bool:
    order = list(Interval)
    return fits(interval, of) and order.index(interval) >= order.index(of)
