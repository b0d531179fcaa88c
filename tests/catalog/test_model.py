"""Which version a period uses, and when two meters count the same."""

from datetime import UTC, datetime

import pytest

from flusher.catalog.model import PlanChange, PlanVersion, Subscription, counts_the_same, version_at
from flusher.pricing.plan import Plan
from sidecar.contract.meters import Meter


def day(number: int) -> datetime:
    return datetime(2025, 7, number, tzinfo=UTC)


VERSIONS = [PlanVersion(Plan("pro", "usd", ()), number, day(number * 10)) for number in (1, 2)]


@pytest.mark.parametrize(("start", "version"), [(1, 1), (10, 1), (19, 1), (20, 2), (30, 2)])
def test_a_period_uses_the_last_version_applied_by_its_start_or_the_first(start: int, version: int) -> None:
    assert version_at(VERSIONS, day(start)).version == version


def test_a_subscription_has_each_plan_until_the_next_and_the_last_until_its_end() -> None:
    # Given a change on day 10, and one on day 20 that comes after the end
    changes = (PlanChange(day(10), "team"), PlanChange(day(20), "pro"))
    found = Subscription("s", "c", "pro", day(1), day(15), changes=changes)
    # Then only what begins before the end counts
    assert [(step.plan, step.at, end) for step, end in found.stretches] == [
        ("pro", day(1), day(10)),
        ("team", day(10), day(15)),
    ]


def test_the_order_of_lists_and_the_field_of_a_count_mean_nothing() -> None:
    one = Meter("m", "e", "count", "units", ("a", "b"), {"r": ("x", "y")})
    other = Meter("m", "e", "count", "properties.z", ("b", "a"), {"r": ("y", "x")})
    assert counts_the_same(one, other)
    assert not counts_the_same(Meter("m", "e"), Meter("m", "e", field="properties.z"))
