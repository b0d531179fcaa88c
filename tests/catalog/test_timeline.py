"""What a subscription pays by, and when its periods begin: versions, plan changes, trials, ends."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.catalog.model import PlanChange, PlanVersion, Subscription
from flusher.catalog.timeline import Terms, billing_start, next_period, terms_at
from flusher.catalog.zones import zone_named, zone_names
from flusher.pricing.period import Anchor, BillingPeriod, Cycle, Interval, Span
from flusher.pricing.plan import Overrides, Plan


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def version(number: int, effective: str, *, at_once: bool = False, cycle: Cycle | None = None) -> PlanVersion:
    return PlanVersion(Plan("pro", "usd", (), cycle or Cycle()), number, at(effective), at_once)


TEAM = PlanVersion(Plan("team", "usd", ()), 1, at("2025-01-01"))
PRO = {"pro": (version(1, "2025-01-01"),), "team": (TEAM,)}
JULY = Subscription("s", "c", "pro", at("2025-07-01"))


def periods(
    subscription: Subscription, versions: Mapping[str, tuple[PlanVersion, ...]], count: int = 4
) -> list[tuple[str, str, str]]:
    """The first periods: plan and version, start, end."""
    found = list(walk(subscription, versions, count))
    return [
        (f"{terms.plan.name} {terms.version}", f"{p.period.start:%m-%dT%H}", f"{p.period.end:%m-%dT%H}")
        for terms, p in found
    ]


def walk(
    subscription: Subscription, versions: Mapping[str, tuple[PlanVersion, ...]], count: int, zone: str = "UTC"
) -> Iterator[tuple[Terms, BillingPeriod]]:
    start = subscription.start
    for _ in range(count):
        found = next_period(subscription, versions, zone_named(zone), start)
        if found is None:
            return
        yield found
        start = found[1].period.end


def test_a_version_is_taken_by_the_periods_that_begin_once_it_is_in_effect() -> None:
    versions = {"pro": (version(1, "2025-01-01"), version(2, "2025-07-10"), version(3, "2025-09-01"))}
    assert periods(JULY, versions) == [
        ("pro 1", "07-01T00", "08-01T00"),
        ("pro 2", "08-01T00", "09-01T00"),
        ("pro 3", "09-01T00", "10-01T00"),
        ("pro 3", "10-01T00", "11-01T00"),
    ]


def test_a_version_that_is_effective_at_once_cuts_the_period() -> None:
    versions = {"pro": (version(1, "2025-01-01"), version(2, "2025-07-10T15:00", at_once=True))}
    assert periods(JULY, versions, 3) == [
        ("pro 1", "07-01T00", "07-10T15"),
        ("pro 2", "07-10T15", "08-01T00"),
        ("pro 2", "08-01T00", "09-01T00"),
    ]


def test_the_newest_version_takes_the_place_of_older_ones_that_come_into_effect_later() -> None:
    # Given a version for August, and a newer one that was made effective in July
    versions = {
        "pro": (
            version(1, "2025-01-01"),
            version(2, "2025-07-20", at_once=True),
            version(3, "2025-07-10", at_once=True),
        )
    }
    # Then the older one is never used
    assert periods(JULY, versions, 3) == [
        ("pro 1", "07-01T00", "07-10T00"),
        ("pro 3", "07-10T00", "08-01T00"),
        ("pro 3", "08-01T00", "09-01T00"),
    ]


def test_the_first_version_is_used_also_before_it_was_applied_and_cuts_nothing() -> None:
    assert periods(JULY, {"pro": (version(1, "2025-07-15", at_once=True),)}, 1) == [("pro 1", "07-01T00", "08-01T00")]


def test_a_plan_change_cuts_the_period_and_an_end_does() -> None:
    changed = Subscription(
        "s", "c", "pro", at("2025-07-01"), at("2025-09-10"), changes=(PlanChange(at("2025-07-15T12:00"), "team"),)
    )
    assert periods(changed, PRO, 9) == [
        ("pro 1", "07-01T00", "07-15T12"),
        ("team 1", "07-15T12", "08-01T00"),
        ("team 1", "08-01T00", "09-01T00"),
        ("team 1", "09-01T00", "09-10T00"),
    ]


def test_a_change_takes_the_version_of_that_moment() -> None:
    versions = {"pro": (version(1, "2025-01-01"), version(2, "2025-07-10")), "team": (TEAM,)}
    # Given a change of overrides alone, after a new version was applied
    changed = Subscription(
        "s", "c", "pro", at("2025-07-01"), changes=(PlanChange(at("2025-07-20"), "pro", Overrides(trial_days=3)),)
    )
    # Then the period that begins with the change has the new version
    assert [name for name, _, _ in periods(changed, versions, 2)] == ["pro 1", "pro 2"]


def test_terms_are_the_plan_under_the_overrides_of_the_moment() -> None:
    first, later = Overrides(minimum=Decimal(5)), Overrides(minimum=Decimal(7))
    changed = Subscription(
        "s", "c", "pro", at("2025-07-01"), None, first, (PlanChange(at("2025-08-01"), "pro", later),)
    )
    minima = [terms.plan.minimum for terms, _ in walk(changed, PRO, 3)]
    assert minima == [Decimal(5), Decimal(7), Decimal(7)]


def test_anniversaries_and_discounts_go_on_counting_across_a_change() -> None:
    monthly = Cycle(Interval.MONTH, Anchor.ANNIVERSARY)
    versions = {"pro": (version(1, "2025-01-01", cycle=monthly), version(2, "2025-08-01", at_once=True, cycle=monthly))}
    started = Subscription("s", "c", "pro", at("2025-07-15"))
    assert periods(started, versions, 3) == [
        ("pro 1", "07-15T00", "08-01T00"),
        ("pro 2", "08-01T00", "08-15T00"),
        ("pro 2", "08-15T00", "09-15T00"),
    ]
    assert {terms.span.anchor for terms, _ in walk(started, versions, 3)} == {at("2025-07-15")}


def test_nothing_is_billed_before_the_trial_is_over() -> None:
    trial = PlanVersion(Plan("pro", "usd", (), trial_days=14), 1, at("2025-01-01"))
    assert billing_start(JULY, {"pro": (trial,)}) == at("2025-07-15")
    assert periods(JULY, {"pro": (trial,)}, 1) == [("pro 1", "07-15T00", "08-01T00")]
    assert terms_at(JULY, {"pro": (trial,)}, at("2025-07-14T23:59")) is None
    found = terms_at(JULY, {"pro": (trial,)}, at("2025-07-15"))
    assert found is not None
    assert found.span == Span(at("2025-07-15"), None, at("2025-07-15"))


def test_a_subscription_has_the_trial_of_its_own_terms_at_its_start() -> None:
    # Given a plan without a trial, a subscription with one, and a change that has another
    own = Subscription(
        "s",
        "c",
        "pro",
        at("2025-07-01"),
        overrides=Overrides(trial_days=7),
        changes=(PlanChange(at("2025-07-03"), "pro", Overrides(trial_days=90)),),
    )
    assert billing_start(own, PRO) == at("2025-07-08")


def test_a_subscription_that_ends_within_its_trial_is_never_billed() -> None:
    short = Subscription("s", "c", "pro", at("2025-07-01"), at("2025-07-05"), Overrides(trial_days=7))
    assert next_period(short, PRO, UTC, at("2025-07-01")) is None
    assert terms_at(short, PRO, at("2025-07-04")) is None


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2025-06-30T23:59", None),
        ("2025-07-01", 1),
        ("2025-07-31T23:59", 1),  # version 2 came in the middle of July
        ("2025-08-01", 2),
        ("2025-08-20", 3),
        ("2025-09-30T23:59", 3),
        ("2025-10-01", None),
    ],
)
def test_an_instant_has_the_version_of_its_period(instant: str, expected: int | None) -> None:
    versions = {
        "pro": (version(1, "2025-01-01"), version(2, "2025-07-10"), version(3, "2025-08-20", at_once=True)),
    }
    ended = Subscription("s", "c", "pro", at("2025-07-01"), at("2025-10-01"))
    found = terms_at(ended, versions, at(instant))
    assert (found.version if found else None) == expected


def test_a_version_that_is_effective_with_a_period_is_its_version() -> None:
    versions = {"pro": (version(1, "2025-01-01"), version(2, "2025-10-01"))}
    found = [terms_at(JULY, versions, at(text)) for text in ("2025-09-30T23:59", "2025-10-01")]
    assert [terms and terms.version for terms in found] == [1, 2]


def test_a_version_is_not_taken_inside_hours_that_belong_to_the_period_after() -> None:
    # Given months from the 30th at noon, calendar months from July on, and a third version within the hours between
    anniversary = Cycle(anchor=Anchor.ANNIVERSARY)
    versions = {
        "pro": (
            version(1, "2025-01-01", cycle=anniversary),
            version(2, "2025-06-15"),
            version(3, "2025-06-30T18:00"),
        )
    }
    started = Subscription("s", "c", "pro", at("2025-05-30T12:00"))
    assert periods(started, versions, 3) == [
        ("pro 1", "05-30T12", "06-30T12"),
        ("pro 2", "06-30T12", "08-01T00"),
        ("pro 3", "08-01T00", "09-01T00"),
    ]
    found = [terms_at(started, versions, at(text)) for text in ("2025-07-15", "2025-08-01")]
    assert [terms and terms.version for terms in found] == [2, 3]


def test_a_period_follows_the_clock_of_the_zone() -> None:
    found = next_period(JULY, PRO, zone_named("Asia/Kolkata"), at("2025-07-01"))
    assert found is not None
    assert found[1].period.end == at("2025-07-31T18:30")


def test_every_zone_that_has_a_name_can_be_read() -> None:
    assert {"UTC", "Europe/Berlin", "America/Argentina/Ushuaia"} <= zone_names()
    for name in zone_names():
        assert at("2025-07-01").astimezone(zone_named(name)) == at("2025-07-01")
    with pytest.raises(ValueError, match="Mars"):
        zone_named("Mars/Olympus")


moments = st.integers(0, 400 * 24).map(lambda hours: at("2025-01-01") + timedelta(hours=hours))
cycles = st.builds(Cycle, st.sampled_from(list(Interval)), st.sampled_from(list(Anchor)))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Subscription, Mapping[str, tuple[PlanVersion, ...]]]:
    """Any subscription, with any versions of its plans."""
    versions = {
        name: tuple(
            PlanVersion(Plan(name, "usd", (), draw(cycles)), number, draw(moments), number > 1 and draw(st.booleans()))
            for number in range(1, draw(st.integers(1, 4)) + 1)
        )
        for name in ("pro", "team")
    }
    start = draw(moments)
    later = sorted(draw(st.sets(st.integers(1, 5_000), max_size=4)))
    end = draw(st.none() | st.integers(1, 6_000).map(lambda hours: start + timedelta(hours=hours)))
    changes = tuple(
        PlanChange(start + timedelta(hours=hours), draw(st.sampled_from(["pro", "team"]))) for hours in later
    )
    trial = Overrides(trial_days=draw(st.sampled_from([0, 0, 10])))
    return Subscription("s", "c", "pro", start, end, trial, changes), versions


@given(histories(), st.sampled_from(["UTC", "Europe/Berlin", "Asia/Beirut"]))
def test_periods_tile_the_subscription_whatever_changes_there_are(
    history: tuple[Subscription, Mapping[str, tuple[PlanVersion, ...]]], zone: str
) -> None:
    subscription, versions = history
    first = billing_start(subscription, versions)
    # When all its periods are made, or the first of an open one
    found = list(walk(subscription, versions, 40, zone))
    # Then each begins where the last ended, from the start of billing to the end
    if subscription.end is not None and subscription.end <= first:
        assert not found
        return
    assert found[0][1].period.start == first
    for (_, one), (_, other) in pairwise(found):
        assert one.period.start < one.period.end == other.period.start
    if subscription.end is not None and len(found) < 40:
        assert found[-1][1].period.end == subscription.end
    # And the terms at any instant of a period are the period's
    for terms, billing in found:
        middle = billing.period.start + (billing.period.end - billing.period.start) / 2
        for instant in (billing.period.start, middle, billing.period.end - timedelta(microseconds=1)):
            assert terms_at(subscription, versions, instant, zone_named(zone)) == terms
