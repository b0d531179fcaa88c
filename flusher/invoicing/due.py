"""Which invoice of a subscription comes next, and which periods it takes into account. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from flusher.catalog.model import Customer, Subscription
from flusher.catalog.timeline import Terms, Versions, next_period, terms_at
from flusher.invoicing.costs import Billed, Cost, Key, Role
from flusher.invoicing.invoice import Kind
from flusher.pricing.period import BillingPeriod, Period, billing_period

LATE_LIMIT_DEFAULT: Final = timedelta(days=35)
GRACE: Final = timedelta(days=31)
"""For how much longer a subscription that has ended is adjusted: until the next monthly run sees what came in time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When invoices are made: what is due at `at`, while the clock says `now`.

    What came for a closed period within `late_limit` of its end is billed by itself. With `preview` running periods
    count as due, once, as they are so far.
    """

    at: datetime
    now: datetime
    late_limit: timedelta = LATE_LIMIT_DEFAULT
    preview: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """A period that an invoice closed, and the terms that it used: it is adjusted by the same for ever."""

    period: Period
    terms: Terms


@dataclass(slots=True)
class Account:
    """A subscription and how far it is billed; moves on while a run makes its invoices.

    `closed` are the periods that are still adjusted, oldest first, `last` the last one of all. `billed` is what was
    billed for those, for the running period, and for the earlier ones of a commitment. `adjustments` and `thresholds`
    count the invoices of these kinds since the last closed period began, and ended. `released`: late usage is billed
    whatever its age. Closed periods that begin at or after `rerated_since` are rated by the terms in force now.
    `current` is the period that was looked at last.
    """

    subscription: Subscription
    customer: Customer
    last: Closed | None = None
    closed: list[Closed] = field(default_factory=list)
    billed: dict[Key, Billed] = field(default_factory=dict)
    opened: bool = False
    adjustments: int = 0
    thresholds: int = 0
    released: bool = False
    rerated_since: datetime | None = None
    current: tuple[Terms, BillingPeriod] | None = None
    done: bool = False

    @property
    def billed_since(self) -> datetime:
        """The start of the oldest period that is adjusted, or of the running one where none is."""
        if self.closed:
            return self.closed[0].period.start
        return self.subscription.start if self.last is None else self.last.period.end


@dataclass(frozen=True, slots=True)
class Step:
    """An invoice to be made, if it comes to any lines. `costs` are the periods that it bills, in the lines' order.

    `ended` is the end of the subscription when nothing follows this invoice's period.
    """

    kind: Kind
    sequence: int
    terms: Terms
    period: Period
    costs: tuple[Cost, ...]
    ended: datetime | None = None


def next_step(account: Account, versions: Versions, moment: Moment) -> Step | None:
    """Return the next invoice of a subscription that is due, or None."""
    at = moment.at
    if account.done:
        return None
    subscription = account.subscription
    start = subscription.start if account.last is None else account.last.period.end
    found = next_period(subscription, versions, account.customer.zone, start)
    account.current = found
    if found is None:
        account.done = True
        return _after_the_end(account, versions, moment)
    terms, billing = found
    if account.last is None and not account.opened:
        account.opened = True
        begins = billing.period.start
        if begins <= min(at, moment.now):
            return Step(Kind.OPENING, 0, terms, Period(begins, begins), (Cost(terms, billing, Role.NEXT),))
    if billing.period.start > at:
        account.done = True
        return None
    if billing.period.end <= at or moment.preview:
        account.done = billing.period.end > at
        since = billing.period.start - moment.late_limit
        return _closing(account, versions, terms, billing, since)
    account.done = True
    if terms.plan.threshold is None:
        return None
    running = (Cost(terms, billing, Role.RUNNING),)
    return Step(Kind.THRESHOLD, account.thresholds, terms, billing.period, running)


def _closing(account: Account, versions: Versions, terms: Terms, billing: BillingPeriod, since: datetime) -> Step:
    """Return the invoice of a period: its cost, the next one's advance, and what changed in those before."""
    after = next_period(account.subscription, versions, account.customer.zone, billing.period.end)
    costs = [*closed_costs(account, versions, since), Cost(terms, billing, Role.OWN)]
    if after is not None:
        costs.append(Cost(*after, Role.NEXT))
    ended = billing.period.end if after is None else None
    return Step(Kind.PERIOD, 0, terms, billing.period, tuple(costs), ended)


def _after_the_end(account: Account, versions: Versions, moment: Moment) -> Step | None:
    """Return an invoice of adjustments alone, for a subscription that has ended and so has no next one."""
    last = account.last
    if last is None or last.period.end > moment.at:
        return None
    since = moment.at - moment.late_limit - GRACE
    costs = tuple(closed_costs(account, versions, since))
    return Step(Kind.ADJUSTMENT, account.adjustments, last.terms, last.period, costs, last.period.end)


def closed_costs(account: Account, versions: Versions, since: datetime) -> Iterator[Cost]:
    """Yield the closed periods that ended after `since`, each with the terms that it was billed by; all where late
    usage was released."""
    for closed in account.closed:
        if closed.period.end <= since and not account.released:
            continue
        own = closed.terms.span
        # Where the terms end, or begin, may have become known since.
        now = terms_at(account.subscription, versions, closed.period.start, own.zone)
        start = closed.period.start if now is None else min(now.span.start, closed.period.start)
        end = closed.period.end if now is None else now.span.end and max(now.span.end, closed.period.end)
        anew = account.rerated_since is not None and account.rerated_since <= closed.period.start
        terms = now if anew and now is not None else closed.terms
        terms = replace(terms, span=replace(own, start=start, end=end))
        billing = billing_period(terms.plan.cycle, terms.span, closed.period.start)
        if billing is not None:
            yield Cost(terms, BillingPeriod(closed.period, billing.full), Role.CLOSED)


def close(account: Account, step: Step, billed: Iterable[Billed]) -> None:
    """Note that an invoice was made, and what it billed: the next one follows it."""
    for entry in billed:
        account.billed[entry.key] = entry
    if step.kind is Kind.PERIOD:
        account.last = Closed(step.period, step.terms)
        account.closed.append(account.last)
        account.adjustments = account.thresholds = 0
