"""Which of a price's own periods are due with a billed period, where the price has another interval than its plan."""

from collections.abc import Iterator

from flusher.pricing.period import BillingPeriod, Cycle, Interval, Period, Span, period_containing
from flusher.pricing.plan import Plan

_BY_LENGTH = list(Interval)


def fits(interval: Interval, other: Interval) -> bool:
    """Whether one of the intervals divides the other, so that the longer one ends where a shorter one does.

    A day divides all; a week only itself; months, quarters and years each other.
    """
    return interval is other or Interval.DAY in (interval, other) or Interval.WEEK not in (interval, other)


def in_arrears(plan: Plan, interval: Interval | None, span: Span, billing: BillingPeriod) -> Iterator[BillingPeriod]:
    """Yield the periods of `interval` (None: the plan's) that end within the billed one, oldest first."""
    for own in _overlapping(plan, interval, span, billing):
        if own.period.end <= billing.period.end:
            yield own


def in_advance(plan: Plan, interval: Interval | None, span: Span, billing: BillingPeriod) -> Iterator[BillingPeriod]:
    """Yield the periods of `interval` (None: the plan's) that begin within the billed one, oldest first."""
    for own in _overlapping(plan, interval, span, billing):
        if own.period.start >= billing.period.start:
            yield own


def commitment_period(plan: Plan, span: Span, billing: BillingPeriod) -> Period | None:
    """Return the commitment's period when it ends with the billed one, or None."""
    if plan.commitment is None:
        return None
    ended = [own.period for own in in_arrears(plan, plan.commitment.interval, span, billing)]
    return ended[-1] if ended else None


def _overlapping(plan: Plan, interval: Interval | None, span: Span, billing: BillingPeriod) -> Iterator[BillingPeriod]:
    """Yield the periods of `interval` of which the billed one has a part, each as far as the span covers it.

    A shorter one never begins before the billed one does: where the customer's zone changed, boundaries of the old zone
    need not be boundaries of the new one, and the period before has billed what is before.
    """
    if interval is None or interval is plan.cycle.interval:
        yield billing
        return
    cycle = Cycle(interval, plan.cycle.anchor)
    shorter = _BY_LENGTH.index(interval) < _BY_LENGTH.index(plan.cycle.interval)
    earliest = billing.period.start if shorter else span.start
    at = billing.period.start
    while at < billing.period.end:
        full = period_containing(cycle, span.anchor, at, span.zone)
        end = full.end if span.end is None else min(full.end, span.end)
        yield BillingPeriod(Period(max(full.start, earliest), end), full)
        at = end
