"""Finds subscriptions of one customer that would price one meter at one time: it would be billed twice. Pure."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from typing import NamedTuple

from flusher.catalog.model import Subscription
from flusher.catalog.timeline import Versions, timeline


class Twice(NamedTuple):
    """Two subscriptions price a meter, from `since` on. `one` is the one that did so first."""

    one: Subscription
    other: Subscription
    meter: str
    since: datetime


class _Run(NamedTuple):
    """A subscription prices a meter, from `start` until `end` (None: open)."""

    start: datetime
    end: datetime | None
    subscription: Subscription


def priced_twice(
    subscriptions: Iterable[Subscription], versions: Versions, zone_of: Callable[[str], tzinfo]
) -> Iterator[Twice]:
    """Yield each pair of subscriptions that price a meter twice, once; `zone_of` gives a customer's time zone.

    Every version of their plans counts for as long as it is used, and every change. A subscription to a plan that
    `versions` doesn't have is passed over.
    """
    by_customer: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        if all(step.plan in versions for step, _ in subscription.stretches):
            by_customer.setdefault(subscription.customer, []).append(subscription)
    for customer, own in sorted(by_customer.items()):
        if len(own) > 1:
            yield from _of_customer(own, versions, zone_of(customer))


def _of_customer(own: list[Subscription], versions: Versions, zone: tzinfo) -> Iterator[Twice]:
    runs: dict[str, list[_Run]] = {}
    for subscription in own:
        for found in timeline(subscription, versions, zone):
            for meter in found.terms.plan.meters:
                runs.setdefault(meter, []).append(_Run(found.start, found.end, subscription))
    noted: set[frozenset[str]] = set()
    for meter, found_runs in sorted(runs.items()):
        found_runs.sort(key=lambda run: (run.start, run.subscription.id))
        longest = found_runs[0]
        for run in found_runs[1:]:
            pair = frozenset((longest.subscription.id, run.subscription.id))
            if len(pair) == 2 and (longest.end is None or run.start < longest.end) and pair not in noted:
                noted.add(pair)
                yield Twice(longest.subscription, run.subscription, meter, run.start)
            if longest.end is not None and (run.end is None or run.end > longest.end):
                longest = run
