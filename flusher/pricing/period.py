"""Billing periods: half-open UTC intervals [start, end), one after the other, without gap or overlap.

A calendar period starts on the first of the month (quarter, year), on Monday, or at midnight. An anniversary
period starts at the subscription's start plus n intervals, always counted from the original day: a start on
January 31 gives February 28 (29 in a leap year), then March 31.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


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


_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_FIRST_MONDAY = datetime(1, 1, 1, tzinfo=UTC)
"""January 1 of year 1 is a Monday in the proleptic Gregorian calendar that `datetime` uses."""
_FIRST_YEAR = datetime(1, 1, 1, tzinfo=UTC)


def add_months(start: datetime, months: int) -> datetime:
    """Return the same day and time `months` later, or the month's last day where there is no such day."""
    count = start.year * 12 + start.month - 1 + months
    year, month = divmod(count, 12)
    first = start.replace(year=year, month=month + 1, day=1)
    return first.replace(day=min(start.day, _days_in_month(first)))


def period_containing(cycle: Cycle, anchor: datetime, instant: datetime) -> Period:
    """Return the whole period of `cycle` that holds `instant`.

    `anchor` is the subscription's start; a calendar cycle doesn't look at it. Times are in UTC.
    """
    if cycle.anchor is Anchor.CALENDAR:
        anchor = _FIRST_MONDAY if cycle.interval in _DAYS else _FIRST_YEAR
    if cycle.interval in _DAYS:
        step = timedelta(days=_DAYS[cycle.interval])
        start = anchor + (instant - anchor) // step * step
        return Period(start, start + step)
    months = _MONTHS[cycle.interval]
    apart = (instant.year - anchor.year) * 12 + instant.month - anchor.month
    number = apart // months
    if add_months(anchor, number * months) > instant:
        number -= 1
    return Period(add_months(anchor, number * months), add_months(anchor, (number + 1) * months))


def billing_period(cycle: Cycle, start: datetime, end: datetime | None, at: datetime) -> BillingPeriod | None:
    """Return the period that begins at `at`, of a subscription that runs from `start` to `end` (None: open).

    `at` is the subscription's start or the end of its previous period; None when it has ended by then. A
    period that a cycle would have begun before `at` is cut to begin there, so that a change of the cycle
    leaves neither gap nor overlap.
    """
    if at < start:
        raise ValueError(f"{at.isoformat()} is before the subscription's start {start.isoformat()}")
    if end is not None and at >= end:
        return None
    full = period_containing(cycle, start, at)
    until = full.end if end is None else min(full.end, end)
    return BillingPeriod(Period(at, until), full)


def billing_periods(cycle: Cycle, start: datetime, end: datetime | None, until: datetime) -> Iterator[BillingPeriod]:
    """Yield the periods of a subscription that begin before `until`, oldest first.

    The first and the last may be partial. The last one yielded may end after `until`: whether a period is
    over is for the caller to compare.
    """
    at = start
    while at < until:
        found = billing_period(cycle, start, end, at)
        if found is None:
            return
        yield found
        at = found.period.end


def _days_in_month(first: datetime) -> int:
    """Return how many days the month that begins at `first` has."""
    return ((first + timedelta(days=31)).replace(day=1) - first).days
