"""Billing periods: calendar and anniversary, month ends, leap years, time zones, first and last periods."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.pricing.period import (
    Anchor,
    BillingPeriod,
    Cycle,
    Interval,
    Period,
    Span,
    add_months,
    billing_period,
    billing_periods,
    period_containing,
    period_number,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


instants = st.integers(0, 7_200_000_000_000_000).map(lambda us: at("1970-01-01") + timedelta(microseconds=us))
zones = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Beirut"),
        *("Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Apia", "Etc/GMT+12"),
    ]
).map(ZoneInfo)
cycles = st.builds(Cycle, st.sampled_from(list(Interval)), st.sampled_from(list(Anchor)))


def open_from(start: datetime) -> Span:
    return Span(start, None, start)


def starts(cycle: Cycle, start: str, count: int) -> list[str]:
    found = billing_periods(cycle, open_from(at(start)), at("2199-01-01"))
    return [f"{next(found).period.start:%Y-%m-%d}" for _ in range(count)]


@pytest.mark.parametrize(
    ("interval", "instant", "start", "end"),
    [
        ("day", "2024-02-29T23:59:59", "2024-02-29", "2024-03-01"),
        ("week", "2025-07-06T23:59:59", "2025-06-30", "2025-07-07"),
        ("week", "2025-07-07T00:00:00", "2025-07-07", "2025-07-14"),
        ("month", "2025-02-28T12:00:00", "2025-02-01", "2025-03-01"),
        ("month", "2025-12-31T23:59:59", "2025-12-01", "2026-01-01"),
        ("quarter", "2025-06-30T23:59:59", "2025-04-01", "2025-07-01"),
        ("year", "2024-12-31T00:00:00", "2024-01-01", "2025-01-01"),
    ],
)
def test_a_calendar_period_holds_the_instant(interval: str, instant: str, start: str, end: str) -> None:
    found = period_containing(Cycle(Interval(interval)), at("1999-09-09T09:09:09"), at(instant))
    assert found == Period(at(start), at(end))


@pytest.mark.parametrize(
    ("interval", "start", "expected"),
    [
        ("month", "2025-01-31", ["2025-01-31", "2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31"]),
        ("month", "2023-12-31", ["2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31"]),
        ("month", "2025-01-29", ["2025-01-29", "2025-02-28", "2025-03-29"]),
        ("quarter", "2024-11-30", ["2024-11-30", "2025-02-28", "2025-05-30", "2025-08-30"]),
        ("year", "2024-02-29", ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("week", "2025-07-02", ["2025-07-02", "2025-07-09", "2025-07-16"]),
        ("day", "2024-02-28", ["2024-02-28", "2024-02-29", "2024-03-01"]),
    ],
)
def test_an_anniversary_is_counted_from_the_original_day(interval: str, start: str, expected: list[str]) -> None:
    assert starts(Cycle(Interval(interval), Anchor.ANNIVERSARY), start, len(expected)) == expected


def test_an_anniversary_keeps_the_time_of_day() -> None:
    found = period_containing(Cycle(anchor=Anchor.ANNIVERSARY), at("2025-01-31T10:30:00"), at("2025-02-28T10:29:59"))
    assert found == Period(at("2025-01-31T10:30:00"), at("2025-02-28T10:30:00"))


def test_the_first_and_the_last_calendar_period_are_partial() -> None:
    # Given a subscription from the middle of July to the middle of September
    found = list(billing_periods(Cycle(), Span(at("2025-07-15"), at("2025-09-10"), at("2025-07-15")), at("2026-01-01")))
    # Then its first and last periods are cut, and know what they are cut from
    assert [(f"{b.period.start:%m-%d}", f"{b.period.end:%m-%d}", b.is_partial) for b in found] == [
        ("07-15", "08-01", True),
        ("08-01", "09-01", False),
        ("09-01", "09-10", True),
    ]
    assert found[0].full == Period(at("2025-07-01"), at("2025-08-01"))


def test_an_anniversary_subscription_begins_with_a_whole_period() -> None:
    cycle = Cycle(anchor=Anchor.ANNIVERSARY)
    first = billing_period(cycle, open_from(at("2025-07-15")), at("2025-07-15"))
    assert first == BillingPeriod(*[Period(at("2025-07-15"), at("2025-08-15"))] * 2)


def test_periods_that_begin_at_or_after_the_limit_are_not_yielded() -> None:
    found = list(billing_periods(Cycle(), open_from(at("2025-07-01")), at("2025-08-01")))
    assert [b.period.start for b in found] == [at("2025-07-01")]


def test_a_subscription_that_ended_has_no_further_period() -> None:
    assert billing_period(Cycle(), Span(at("2025-07-01"), at("2025-08-01"), at("2025-07-01")), at("2025-08-01")) is None


def test_a_changed_cycle_leaves_neither_gap_nor_overlap() -> None:
    # Given months until August, when the plan turns to years, then the year's rest follows
    found = billing_period(Cycle(Interval.YEAR), open_from(at("2025-07-01")), at("2025-08-01"))
    assert found == BillingPeriod(
        Period(at("2025-08-01"), at("2026-01-01")), Period(at("2025-01-01"), at("2026-01-01"))
    )


def test_a_period_before_the_subscription_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="before the start of these terms"):
        billing_period(Cycle(), open_from(at("2025-07-01")), at("2025-06-01"))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (at("2025-07-01").replace(tzinfo=None), datetime(2025, 8, 1, tzinfo=UTC)),
        (datetime(2025, 7, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2025, 8, 1, tzinfo=UTC)),
        (datetime(2025, 8, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)),
    ],
)
def test_a_period_is_in_utc_and_in_order(start: datetime, end: datetime) -> None:
    with pytest.raises(ValueError, match="start"):
        Period(start, end)


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [("2025-01-31", 1, "2025-02-28"), ("2025-01-31", 13, "2026-02-28"), ("2025-03-31", -1, "2025-02-28")],
)
def test_months_are_added_to_the_original_day(start: str, months: int, expected: str) -> None:
    assert add_months(at(start), months) == at(expected)


@pytest.mark.parametrize(
    ("zone", "interval", "instant", "start", "end"),
    [
        # Clocks go forward and back: 23 and 25 hours, 23.5 and 24.5 on Lord Howe
        ("Europe/Berlin", "day", "2025-03-30T12:00", "2025-03-29T23:00", "2025-03-30T22:00"),
        ("Europe/Berlin", "day", "2025-10-26T12:00", "2025-10-25T22:00", "2025-10-26T23:00"),
        ("Australia/Lord_Howe", "day", "2025-10-04T20:00", "2025-10-04T13:30", "2025-10-05T13:00"),
        ("Australia/Lord_Howe", "day", "2025-04-05T20:00", "2025-04-05T13:00", "2025-04-06T13:30"),
        ("Europe/Berlin", "week", "2025-03-26T12:00", "2025-03-23T23:00", "2025-03-30T22:00"),
        ("Europe/Berlin", "month", "2025-03-15T12:00", "2025-02-28T23:00", "2025-03-31T22:00"),
        ("Europe/Berlin", "month", "2025-10-31T22:59", "2025-09-30T22:00", "2025-10-31T23:00"),
        ("America/New_York", "quarter", "2025-01-01T04:59", "2024-10-01T04:00", "2025-01-01T05:00"),
        ("America/New_York", "year", "2024-06-01T00:00", "2024-01-01T05:00", "2025-01-01T05:00"),
        # Offsets of half an hour and of three quarters
        ("Asia/Kolkata", "month", "2024-02-29T18:29", "2024-01-31T18:30", "2024-02-29T18:30"),
        ("Asia/Kathmandu", "month", "2025-01-31T18:15", "2025-01-31T18:15", "2025-02-28T18:15"),
        ("Pacific/Chatham", "day", "2025-07-01T11:14", "2025-06-30T11:15", "2025-07-01T11:15"),
        # Midnight is skipped: the day begins at one o'clock
        ("America/Sao_Paulo", "day", "2018-11-04T12:00", "2018-11-04T03:00", "2018-11-05T02:00"),
        ("Asia/Beirut", "day", "2025-03-29T21:59", "2025-03-28T22:00", "2025-03-29T22:00"),
        # Midnight comes twice: the day begins at the first
        ("America/Havana", "day", "2025-11-02T04:30", "2025-11-02T04:00", "2025-11-03T05:00"),
        # A whole day is skipped: December 30, 2011
        ("Pacific/Apia", "day", "2011-12-30T10:00", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("Pacific/Apia", "day", "2011-12-30T09:59", "2011-12-29T10:00", "2011-12-30T10:00"),
    ],
)
def test_a_time_zone_chooses_the_instants(zone: str, interval: str, instant: str, start: str, end: str) -> None:
    found = period_containing(Cycle(Interval(interval)), at("1999-09-09"), at(instant), ZoneInfo(zone))
    assert found == Period(at(start), at(end))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        # 09:00 in Berlin is 08:00 UTC in winter and 07:00 in summer
        ("2025-02-10T08:00", ["2025-02-10T08:00", "2025-03-10T08:00", "2025-04-10T07:00"]),
        # 02:30 does not come on March 30
        ("2025-01-30T01:30", ["2025-01-30T01:30", "2025-02-28T01:30", "2025-03-30T01:30", "2025-04-30T00:30"]),
        # The second 02:30 of October 26
        ("2025-10-26T01:30", ["2025-10-26T01:30", "2025-11-26T01:30"]),
        # January 31 in Berlin, January 30 in UTC
        ("2025-01-30T23:30", ["2025-01-30T23:30", "2025-02-27T23:30", "2025-03-30T22:30", "2025-04-29T22:30"]),
    ],
)
def test_an_anniversary_keeps_its_local_day_and_time(start: str, expected: list[str]) -> None:
    span = Span(at(start), None, at(start), ZoneInfo("Europe/Berlin"))
    found = billing_periods(Cycle(anchor=Anchor.ANNIVERSARY), span, at("2030-01-01"))
    assert [f"{next(found).period.start:%Y-%m-%dT%H:%M}" for _ in expected] == expected


def test_an_anniversary_inside_an_hour_that_comes_twice_is_at_the_first() -> None:
    # Given days from 02:30 in Berlin, where 02:30 comes twice on October 26: at 00:30 and at 01:30 UTC
    cycle, zone = Cycle(Interval.DAY, Anchor.ANNIVERSARY), ZoneInfo("Europe/Berlin")
    # Then the second 02:15, which follows the first 02:30, is in the new day
    found = period_containing(cycle, at("2025-10-20T00:30"), at("2025-10-26T01:15"), zone)
    assert found == Period(at("2025-10-26T00:30"), at("2025-10-27T01:30"))


def test_a_start_at_the_second_of_two_equal_times_is_the_start_of_a_period() -> None:
    start, zone = at("2025-10-26T01:30"), ZoneInfo("Europe/Berlin")
    found = period_containing(Cycle(anchor=Anchor.ANNIVERSARY), start, start, zone)
    assert found == Period(start, at("2025-11-26T01:30"))


@pytest.mark.parametrize(
    ("zone", "end", "is_partial"),
    [
        ("Europe/Berlin", "2025-08-31T22:00", True),  # two hours less
        ("America/New_York", "2025-09-01T04:00", True),  # four hours more: they are no period of their own
        ("UTC", "2025-09-01T00:00", False),
    ],
)
def test_a_changed_zone_leaves_what_was_billed_and_makes_no_period_of_hours(
    zone: str, end: str, is_partial: bool
) -> None:
    # Given a July that was billed in UTC
    span = Span(at("2025-05-01"), None, at("2025-05-01"), ZoneInfo(zone))
    # When the customer has another zone
    found = billing_period(Cycle(), span, at("2025-08-01"))
    # Then August begins where July ended
    assert found is not None
    assert found.period == Period(at("2025-08-01"), at(end))
    assert found.is_partial is is_partial
    assert period_number(Cycle(), span, found.full.start) == period_number(Cycle(), span, at("2025-07-15")) + 1


def test_hours_at_the_start_of_a_subscription_are_a_period_of_their_own() -> None:
    span = open_from(at("2025-07-31T20:00"))
    found = billing_period(Cycle(), span, span.start)
    assert found is not None
    assert found.period == Period(at("2025-07-31T20:00"), at("2025-08-01"))


@pytest.mark.parametrize(
    ("cycle", "anchor", "instant", "number"),
    [
        (Cycle(), "2025-07-31", "2025-07-31", 0),
        (Cycle(), "2025-07-31", "2025-08-01", 1),
        (Cycle(), "2025-07-31", "2026-08-31", 13),
        (Cycle(anchor=Anchor.ANNIVERSARY), "2025-01-31", "2025-02-27", 0),
        (Cycle(anchor=Anchor.ANNIVERSARY), "2025-01-31", "2025-02-28", 1),
        (Cycle(Interval.WEEK), "2025-07-06", "2025-07-07", 1),
    ],
)
def test_periods_are_numbered_from_the_one_that_holds_the_anchor(
    cycle: Cycle, anchor: str, instant: str, number: int
) -> None:
    # Given a stretch that began later than the subscription's billing
    span = Span(at("2025-07-31"), None, at(anchor))
    assert period_number(cycle, span, at(instant)) == number


@given(cycles, instants, instants, zones)
def test_every_instant_lies_in_its_period(cycle: Cycle, anchor: datetime, instant: datetime, zone: ZoneInfo) -> None:
    assert instant in period_containing(cycle, anchor, instant, zone)


@given(cycles, instants, st.integers(1, 40), zones)
def test_periods_follow_each_other_without_gap_or_overlap(
    cycle: Cycle, start: datetime, count: int, zone: ZoneInfo
) -> None:
    # Given any subscription
    found = billing_periods(cycle, Span(start, None, start, zone), at("2600-01-01"))
    periods = [next(found) for _ in range(count)]
    # Then each period begins where the one before ends, none is empty, and all but the first are whole
    assert periods[0].period.start == start
    for number, (one, other) in enumerate(pairwise(periods), start=1):
        assert one.period.end == other.period.start
        assert one.period.start < one.period.end
        assert not other.is_partial
        assert period_number(cycle, Span(start, None, start, zone), other.full.start) == number


@given(cycles, instants, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_an_ended_subscription_is_covered_exactly(cycle: Cycle, start: datetime, length: timedelta) -> None:
    end = start + length
    periods = list(billing_periods(cycle, Span(start, end, start), at("2600-01-01")))
    assert sum(b.period.length_us for b in periods) == length // timedelta(microseconds=1)
    assert periods[-1].period.end == end
