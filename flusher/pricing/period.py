"""Billing periods: half-open UTC intervals [start, end), one after the other, without gap or overlap.

A calendar period starts on the first of the month (quarter, year), on Monday, or at midnight. An anniversary
period starts at the subscription's start plus n intervals, always counted from the original day: a start on
January 31 gives February 28 (29 in a leap year), then March 31.

Days and times of day are those of a time zone, UTC unless the customer has another; instants are in UTC always. A
local time that a clock change skips is as much later as the clock was put forward, so that a skipped midnight is the
moment after the gap; of one that comes twice the first counts.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache


class Interval(StrEnum):
    """How long a billing period is."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Anchor(StrEnum):
    """What billing periods are counted from."""

    CALENDAR = "calendar"
    ANNIVERSARY = "anniversary"


@dataclass(frozen=True, slots=True)
class Cycle:
    """How a plan's periods follow each other."""

    interval: Interval = Interval.MONTH
    anchor: Anchor = Anchor.CALENDAR


MONTHLY = Cycle()
"""Calendar months, the default."""


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open interval of time: `start` is in it, `end` is not. Both are in UTC.

    Raises `ValueError` for a naive time, another zone, or an end before the start. Start and end may be
    equal: that is the instant at which an opening invoice bills what is paid in advance.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, instant in (("start", self.start), ("end", self.end)):
            if instant.tzinfo is not UTC:
                raise ValueError(f"{name}: expected a time in UTC, got {instant.isoformat()}")
        if self.end < self.start:
            raise ValueError(f"end {self.end.isoformat()} is before start {self.start.isoformat()}")

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def length_us(self) -> int:
        """The length in microseconds, exact."""
        return (self.end - self.start) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """One period of one subscription.

    `period` is what the subscription covers of it; `full` is the whole of it by the plan's cycle. They differ
    when the subscription starts or ends inside, or a change of the plan's cycle cut it short.
    """

    period: Period
    full: Period

    @property
    def is_partial(self) -> bool:
        """Whether the subscription covers only a part of the period."""
        return self.period != self.full


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a subscription under one set of terms, half-open; `end` is None where it is open.

    `anchor` is what anniversaries are counted from, and the periods that a discount lasts: when the billing of the
    subscription begins, however many stretches there were before this one. `zone` is whose calendar cycles follow.
    """

    start: datetime
    end: datetime | None
    anchor: datetime
    zone: tzinfo = UTC


_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_DAYS_OF_EVERY_MONTH = 28
_FIRST_DAY = datetime(1, 1, 1, tzinfo=UTC).replace(tzinfo=None)
"""Where calendar cycles are counted from, on any clock: a year's, a quarter's and a month's first day, and a Monday."""
ZONES_APART = timedelta(hours=26)
"""How far the clocks of two time zones are apart at most: UTC-12 and UTC+14."""


def add_months(start: datetime, months: int) -> datetime:
    """Return the same day and time `months` later, or the month's last day where there is no such day."""
    count = start.year * 12 + start.month - 1 + months
    year, month = divmod(count, 12)
    if start.day <= _DAYS_OF_EVERY_MONTH:
        return start.replace(year=year, month=month + 1)
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))


def period_containing(cycle: Cycle, anchor: datetime, instant: datetime, zone: tzinfo = UTC) -> Period:
    """Return the whole period of `cycle` that holds `instant`.

    `anchor` is when the subscription's billing begins; a calendar cycle doesn't look at it. Times are in UTC.
    """
    return _numbered(cycle, None if cycle.anchor is Anchor.CALENDAR else anchor, instant, zone)[1]


def period_number(cycle: Cycle, span: Span, instant: datetime) -> int:
    """Return how many periods of `cycle` come between the one that holds the span's anchor and that of `instant`.

    0 is the first one, whole or not; for a billing period ask with the start of its `full`.
    """
    if cycle.anchor is Anchor.ANNIVERSARY:
        return _numbered(cycle, span.anchor, instant, span.zone)[0]
    first = _numbered(cycle, None, span.anchor, span.zone)[0]
    return _numbered(cycle, None, instant, span.zone)[0] - first


def billing_period(cycle: Cycle, span: Span, at: datetime) -> BillingPeriod | None:
    """Return the period that begins at `at`, or None when the span has ended by then.

    `at` is the span's start or the end of the period before. A period that the cycle would have begun before `at` is
    cut to begin there, so that neither a change of the cycle nor one of the zone leaves a gap or an overlap. Where
    only hours are left until the cycle's next boundary, as a change of the zone leaves them, they belong to the
    period after it: nobody pays a month's minimum for them. Its `full` then begins after `period` does.
    """
    if at < span.start:
        raise ValueError(f"{at.isoformat()} is before the start of these terms, {span.start.isoformat()}")
    if span.end is not None and at >= span.end:
        return None
    full = period_containing(cycle, span.anchor, at, span.zone)
    if at > span.start and full.end - at < ZONES_APART and cycle.interval is not Interval.DAY:
        full = period_containing(cycle, span.anchor, full.end, span.zone)
    until = full.end if span.end is None else min(full.end, span.end)
    return BillingPeriod(Period(at, until), full)


def billing_periods(cycle: Cycle, span: Span, until: datetime) -> Iterator[BillingPeriod]:
    """Yield the periods of a span that begin before `until`, oldest first.

    The first and the last may be partial. The last one yielded may end after `until`: whether a period is
    over is for the caller to compare.
    """
    at = span.start
    while at < until:
        found = billing_period(cycle, span, at)
        if found is None:
            return
        yield found
        at = found.period.end


@lru_cache(4_096)
def _numbered(cycle: Cycle, anchor: datetime | None, instant: datetime, zone: tzinfo) -> tuple[int, Period]:
    """Return the period that holds `instant` and its number from the anchor, or from year 1 for a calendar cycle.

    Remembered, because a run asks for the same calendar month a hundred thousand times.
    """
    origin = _FIRST_DAY if anchor is None else _local(anchor, zone)
    local = _local(instant, zone)

    def boundary(number: int) -> datetime:
        if number == 0 and anchor is not None:
            return anchor
        if cycle.interval in _DAYS:
            day = origin + number * timedelta(days=_DAYS[cycle.interval])
        else:
            day = add_months(origin, number * _MONTHS[cycle.interval])
        return day.replace(tzinfo=zone).astimezone(UTC)

    if cycle.interval in _DAYS:
        number = (local - origin) // timedelta(days=_DAYS[cycle.interval])
    else:
        number = ((local.year - origin.year) * 12 + local.month - origin.month) // _MONTHS[cycle.interval]
    # A month's day may not have come yet, and a clock change may lie between the local time and the boundary.
    start = boundary(number)
    while start > instant:
        number -= 1
        start = boundary(number)
    end = boundary(number + 1)
    while end <= instant:
        number += 1
        start, end = end, boundary(number + 1)
    return number, Period(start, end)


def _local(instant: datetime, zone: tzinfo) -> datetime:
    """Return what clocks in a zone show at an instant, as a time without a zone; of the first of two."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
