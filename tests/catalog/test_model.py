"""Which version a period uses, and when two meters count the same."""

from datetime import UTC, datetime

import pytest

from flusher.catalog.model import PlanVersion, Subscription, counts_the_same, version_at
from flusher.pricing.plan import Plan
from sidecar.contract.meters import Meter


def day(number: int) -> datetime:
    return datetime(2025, 7, number, tzinfo=UTC)


VERSIONS = [PlanVersion(Plan("pro", "usd", ()), number, day(number * 10)) for number in (1, 2)]


@pytest.mark.parametrize(("start", "version"), [(1, 1), (10, 1), (19, 1), (20, 2), (30, 2)])
def test_a_period_uses_the_last_version_applied_by_its_start_or_the_first(start: int, version: int) -> None:
    assert version_at(VERSIONS, day(start)).version == version


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [((1, 5), (5, 9), False), ((1, 6), (5, 9), True), ((1, None), (5, 9), True), ((5, None), (1, 5), False)],
)
def test_subscriptions_that_only_touch_do_not_overlap(
    one: tuple[int, int | None], other: tuple[int, int | None], overlap: bool
) -> None:
    first, second = (
        Subscription("s", "c", "p", day(start), None if end is None else day(end)) for start, end in (one, other)
    )
    assert first.overlaps(second) is overlap
    assert second.overlaps(first) is overlap


def test_the_order_of_lists_and_the_field_of_a_count_mean_nothing() -> None:
    one = Meter("m", "e", "count", "units", ("a", "b"), {"r": ("x", "y")})
    other = Meter("m", "e", "count", "properties.z", ("b", "a"), {"r": ("y", "x")})
    assert counts_the_same(one, other)
    assert not counts_the_same(Meter("m", "e"), Meter("m", "e", field="properties.z"))
