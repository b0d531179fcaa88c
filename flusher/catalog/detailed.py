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
    for section, name, key, price in _prices(read):
        if wants_values(price) and isinstance(price, UsagePrice):
            yield f"{paths[section, name]}.{key}.meter", price.meter


def _prices(catalog: Catalog) -> Iterator[tuple[str, str, str, Price]]:
    """Yield section, name of the entry, key and price of everything that is priced."""
    for name, plan in catalog.plans.items():
        for number, price in enumerate(plan.prices):
            yield "plans", name, f"prices[{number}]", price
    for name, subscription in catalog.subscriptions.items():
        for number, price in enumerate(subscription.overrides.prices):
            yield "subscriptions", name, f"overrides.prices[{number}]", price
        for place, change in enumerate(subscription.changes):
            for number, price in enumerate(change.overrides.prices):
                yield "subscriptions", name, f"changes[{place}].overrides.prices[{number}]", price


def meters_to_detail(merged: Catalog) -> dict[str, Meter]:
    """Return the meters that are priced per event, by the file or by what is in force, and don't keep each event:
    as they are when they do."""
    priced = {price.meter for *_, price in _prices(merged) if wants_values(price) and isinstance(price, UsagePrice)}
    return {
        name: msgspec.structs.replace(merged.meters[name], detailed=True)
        for name in sorted(priced & merged.meters.keys())
        if not merged.meters[name].keeps_values
    }


def changes_what_is_kept(read: Catalog, merged: Catalog, current: Catalog) -> bool:
    """Whether meters are to keep values, with a file, that kept none before: events of them may be on their way."""
    after = {**read.meters, **meters_to_detail(merged)}
    return any(
        meter.keeps_values and not (name in current.meters and current.meters[name].keeps_values)
        for name, meter in after.items()
    )


def detail_problems(read: Catalog, merged: Catalog, paths: Paths, used: Collection[str]) -> list[Problem]:
    """Return a problem for each price of `meters_to_detail` whose meter has usage: its single events are not known."""
    wanted = meters_to_detail(merged)
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
