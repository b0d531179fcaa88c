"""Two subscriptions of a customer that price one meter at one time are found, over all versions and changes."""

from dataclasses import replace
from datetime import UTC, timedelta, tzinfo
from decimal import Decimal

import pytest

from flusher.catalog.model import PlanChange, PlanVersion, Subscription
from flusher.catalog.overlap import priced_twice
from flusher.catalog.timeline import Versions
from flusher.catalog.zones import zone_named
from flusher.pricing.per_unit import PerUnit
from flusher.pricing.plan import Overrides, Plan, UsagePrice
from tests.catalog.support import instant


def version(
    name: str, *meters: str, number: int = 1, effective: str = "2025-01-01", at_once: bool = False
) -> PlanVersion:
    prices = tuple(UsagePrice(meter, meter, PerUnit(Decimal(1))) for meter in meters)
    return PlanVersion(Plan(name, "usd", prices), number, instant(effective), at_once)


VERSIONS = {"calls": (version("calls", "calls"),), "disk": (version("disk", "disk"),), "flat": (version("flat"),)}
FIRST = Subscription("first", "c", "calls", instant("2025-07-01"))
SECOND = Subscription("second", "c", "calls", instant("2025-08-01"))


def found(
    *subscriptions: Subscription, versions: Versions | None = None, zone: tzinfo = UTC
) -> list[tuple[str, str, str, str]]:
    return [
        (twice.one.id, twice.other.id, twice.meter, f"{twice.since:%m-%dT%H}")
        for twice in priced_twice(subscriptions, versions or VERSIONS, lambda _: zone)
    ]


def test_subscriptions_that_only_touch_or_are_of_others_or_price_others_are_fine() -> None:
    ended = replace(FIRST, end=SECOND.start)
    assert not found(ended, SECOND)
    assert not found(FIRST, replace(SECOND, customer="d"))
    assert not found(FIRST, replace(SECOND, plan="disk"))
    # But a moment more is not
    longer = replace(FIRST, end=instant("2025-08-01T00:00:01"))
    assert found(longer, SECOND) == [("first", "second", "calls", "08-01T00")]


def test_each_pair_is_named_once_with_the_earlier_first() -> None:
    twice = {"calls": (version("calls", "calls", "more"),)}
    assert found(SECOND, FIRST, versions=twice) == [("first", "second", "calls", "08-01T00")]


def test_the_longest_counts_and_not_the_last() -> None:
    # Given an open one, one inside of it, and one after that
    inside = replace(SECOND, id="inside", end=instant("2025-08-02"))
    after = replace(SECOND, id="after", start=instant("2025-09-01"))
    assert [one[:2] for one in found(FIRST, inside, after)] == [("first", "inside"), ("first", "after")]


def test_a_change_of_plan_ends_what_the_old_one_prices() -> None:
    away = PlanChange(instant("2025-08-01"), "flat")
    assert not found(replace(FIRST, changes=(away,)), SECOND)
    assert found(replace(FIRST, changes=(away,)), replace(SECOND, start=instant("2025-07-31T23:59:59")))
    # And a change back prices it again
    back = PlanChange(instant("2025-10-01"), "calls")
    assert found(replace(FIRST, changes=(away, back)), SECOND) == [("second", "first", "calls", "10-01T00")]


def test_a_price_of_the_subscription_itself_counts() -> None:
    own = Overrides(prices=(UsagePrice("own", "calls", PerUnit(Decimal(1))),))
    assert found(FIRST, replace(SECOND, plan="flat", overrides=own)) == [("first", "second", "calls", "08-01T00")]


@pytest.mark.parametrize(("at_once", "since"), [(False, "2025-09-01"), (True, "2025-08-10")])
def test_a_version_counts_for_as_long_as_it_is_used(at_once: bool, since: str) -> None:
    other = replace(SECOND, plan="flat", start=instant("2025-07-01"))
    # Given a plan that prices the meter by its second version, from the middle of August
    first, later = version("flat"), version("flat", "calls", number=2, effective="2025-08-10", at_once=at_once)
    (twice,) = found(FIRST, other, versions={**VERSIONS, "flat": (first, later)})
    assert twice == ("first", "second", "calls", f"{instant(since):%m-%dT%H}")
    # And one that no longer prices it then: another subscription may do so once the running period is over
    versions = {**VERSIONS, "flat": (replace(first, plan=later.plan), replace(later, plan=first.plan))}
    begun = replace(FIRST, start=instant(since))
    assert not found(begun, other, versions=versions)
    assert found(replace(begun, start=begun.start - timedelta(seconds=1)), other, versions=versions)


def test_periods_end_by_the_customers_clock() -> None:
    later = version("flat", "calls", number=2, effective="2025-08-10")
    versions = {**VERSIONS, "flat": (version("flat"), later)}
    other = replace(SECOND, plan="flat", start=instant("2025-07-01"))
    ended = replace(FIRST, end=instant("2025-08-31T22:00:01"))
    assert not found(ended, other, versions=versions)
    assert found(ended, other, versions=versions, zone=zone_named("Europe/Berlin"))


def test_a_trial_prices_nothing_yet() -> None:
    ended = replace(FIRST, end=instant("2025-08-10"))
    assert found(ended, SECOND)
    assert not found(ended, replace(SECOND, overrides=Overrides(trial_days=9)))
