"""Meters that keep each event from now on, because a price of a file looks at single events. Pure."""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from flusher.catalog.fitting import wants_values
from flusher.catalog.model import METER_IN_USE, Catalog
from flusher.catalog.problem import Problem
from flusher.catalog.reader import shown
from flusher.pricing.plan import Price, UsagePrice
from sidecar.contract.meters import Meter

Paths = Mapping[tuple[str, str], str]


def priced_per_event(read: Catalog, paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield path and meter of each price in a file that looks at single events: its plans', and subscriptions' own."""
    for name, plan in read.plans.items():
        yield from _priced(plan.prices, f"{paths['plans', name]}.prices")
    for name, subscription in read.subscriptions.items():
        path = paths["subscriptions", name]
        yield from _priced(subscription.overrides.prices, f"{path}.overrides.prices")
        for number, change in enumerate(subscription.changes):
            yield from _priced(change.overrides.prices, f"{path}.changes[{number}].overrides.prices")


def _priced(prices: tuple[Price, ...], path: str) -> Iterator[tuple[str, str]]:
    for number, price in enumerate(prices):
        if isinstance(price, UsagePrice) and wants_values(price):
            yield f"{path}[{number}].meter", price.meter


def meters_to_detail(read: Catalog, merged: Catalog, paths: Paths) -> dict[str, Meter]:
    """Return the meters that a file prices per event and that don't keep each, as they are when they do."""
    priced = (merged.meters.get(name) for _, name in priced_per_event(read, paths))
    return {
        meter.name: msgspec.structs.replace(meter, detailed=True)
        for meter in priced
        if meter is not None and not meter.keeps_values
    }


def changes_what_is_kept(read: Catalog, merged: Catalog, current: Catalog, paths: Paths) -> bool:
    """Whether meters are to keep values, with a file, that kept none before: events of them may be on their way."""
    after = {**read.meters, **meters_to_detail(read, merged, paths)}
    return any(
        meter.keeps_values and not (name in current.meters and current.meters[name].keeps_values)
        for name, meter in after.items()
    )


def detail_problems(read: Catalog, merged: Catalog, paths: Paths, used: Collection[str]) -> list[Problem]:
    """Return a problem for each price of `meters_to_detail` whose meter has usage: its single events are not known."""
    wanted = meters_to_detail(read, merged, paths)
    return [
        Problem(
            path,
            f"expected a meter that keeps each event, as the price looks at single events, got {shown(name)}, of which "
            "only sums were kept until now; add a meter of another name with detailed = true, and price that one",
            METER_IN_USE,
        )
        for path, name in priced_per_event(read, paths)
        if name in wanted and name in used
    ]
