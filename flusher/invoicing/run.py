"""The invoice run: which periods are due, whether they are settled, and what they cost.

Each invoice is one transaction: lock the subscription, read the usage, rate it, store the invoice, its lines and what
is billed so far (rule 16). Two runs at once make one invoice: the lock orders them, the unique key holds it. A dry
run is the same with every transaction rolled back.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import PlanVersion, Subscription, version_at
from flusher.catalog_store import load_customer, load_plan_versions, load_subscriptions
from flusher.invoicing.adjust import usage_of
from flusher.invoicing.bill import Bill, Biller
from flusher.invoicing.invoice import Invoice, InvoiceLine, Kind, from_rated, invoice_id
from flusher.invoicing.quantities import SummedWindow, read_usage
from flusher.invoicing.settle import WINDOW_DEFAULT, NotYet, settlement
from flusher.invoicing.store import read_clock, rows
from flusher.pricing.period import BillingPeriod, Period, Span, billing_period
from flusher.pricing.rate import rate_advance, rate_arrears
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `at`: make what is due then (None: now). `stripe`: whether invoices go to Stripe."""

    at: datetime | None = None
    customer: str | None = None
    stripe: bool = False
    dry_run: bool = False
    window: timedelta = WINDOW_DEFAULT


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that is due and can't be done yet: a period, or an invoice (`invoice`) on its way to Stripe."""

    customer: str
    subscription: str
    plan: str
    period: Period
    reason: str
    detail: str
    invoice: str | None = None


@dataclass(slots=True)
class Made:
    """What a run made, and what waits."""

    invoices: list[Invoice] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


Progress = Callable[[int, int], None]
"""Called with how many of how many subscriptions are done."""


def make_invoices(connection: Connection, options: Options, progress: Progress = lambda _done, _of: None) -> Made:
    """Make every invoice that is due and return them with what waits.

    `connection` is in autocommit mode. Safe to repeat, to kill anywhere and to run several times at once.
    """
    run = _Run(connection, options)
    made = Made()
    subscriptions = load_subscriptions(connection, options.customer)
    for done, subscription in enumerate(subscriptions):
        progress(done, len(subscriptions))
        with connection.transaction(force_rollback=True) if options.dry_run else nullcontext():
            for outcome in run.outcomes(subscription):
                if isinstance(outcome, Waiting):
                    made.waiting.append(outcome)
                else:
                    made.invoices.append(outcome)
    progress(len(subscriptions), len(subscriptions))
    return made


class _Run:
    """One run: what was read at its start, and the connection that it works on."""

    def __init__(self, connection: Connection, options: Options) -> None:
        self._connection = connection
        self._options = options
        # Read before any usage: watermarks only grow, so a period that is settled by them stays settled.
        self._clock = read_clock(connection)
        self._at = options.at or self._clock.now
        self._versions = load_plan_versions(connection)
        self._biller = Biller(connection, self._versions, stripe=options.stripe)

    def outcomes(self, subscription: Subscription) -> Iterator[Invoice | Waiting]:
        """Make a subscription's invoices one after the other, until none is due or one has to wait."""
        while True:
            try:
                with self._connection.transaction():
                    outcome = self._next(subscription)
            except SummedWindow as error:
                outcome = _wait(subscription, error.period, NotYet(error.code, error.message))
            if outcome is None:
                return
            yield outcome
            if isinstance(outcome, Waiting):
                return

    def _next(self, subscription: Subscription) -> Invoice | Waiting | None:
        values = {"subscription": subscription.id}
        self._connection.execute(query("lock_subscription"), values)
        (state,) = rows(self._connection, "find_frontier", values)
        if state["frontier"] is None and not state["opened"]:
            opening = self._opening(subscription)
            if opening is not None:
                return opening
        start = subscription.start if state["frontier"] is None else state["frontier"].astimezone(UTC)
        version = self._version(subscription, start)
        billing = billing_period(version.plan.cycle, _span(subscription), start)
        if billing is None:
            return self._adjustment(subscription)
        if billing.period.end > self._at:
            return None
        return self._period(subscription, version, billing)

    def _opening(self, subscription: Subscription) -> Invoice | None:
        """Make the invoice of what is paid in advance for the first period, when there is such a thing."""
        start = subscription.start
        if start > min(self._at, self._clock.now):
            return None
        scope = self._id(subscription, Kind.OPENING, start)
        lines = self._advance(subscription, start, scope)
        if not lines:
            return None
        version = self._version(subscription, start)
        return self._biller.store(Bill(scope, Kind.OPENING, 0, subscription, version, Period(start, start), lines))

    def _period(self, subscription: Subscription, version: PlanVersion, billing: BillingPeriod) -> Invoice | Waiting:
        """Make the invoice of a closed period: its usage, the next one's advance, and what came late for others."""
        period = billing.period
        settled = settlement(period.end, self._clock, self._options.window)
        if isinstance(settled, NotYet):
            return _wait(subscription, period, settled)
        customer = load_customer(self._connection, subscription.customer)
        broken = self._biller.broken_proof(customer, version.plan.meters, period)
        if broken is not None:
            return _wait(subscription, period, broken)
        scope = self._id(subscription, Kind.PERIOD, period.start)
        (readings,) = read_usage(self._connection, customer.user_ids, version.plan.meters, [period])
        rated = rate_arrears(version.plan, billing, usage_of(readings), scope=scope)
        lines = (*map(from_rated, rated), *self._advance(subscription, period.end, scope))
        adjusted = self._biller.adjust(subscription, customer, scope)
        bill = Bill(scope, Kind.PERIOD, 0, subscription, version, period, lines, adjusted, settled.without)
        return self._biller.store(bill, rated=rated, readings=readings)

    def _adjustment(self, subscription: Subscription) -> Invoice | None:
        """Make an invoice of adjustments alone, for a subscription that has ended and so has no next one."""
        found = rows(self._connection, "last_period", {"subscription": subscription.id})
        if not found or found[0]["period_end"] > self._at:
            return None
        last = found[0]
        period = Period(last["period_start"].astimezone(UTC), last["period_end"].astimezone(UTC))
        sequence = last["adjustments"]
        scope = self._id(subscription, Kind.ADJUSTMENT, period.start, sequence)
        customer = load_customer(self._connection, subscription.customer)
        adjusted = self._biller.adjust(subscription, customer, scope)
        if not adjusted:
            return None
        version = self._biller.version(last["plan"], last["plan_version"])
        return self._biller.store(Bill(scope, Kind.ADJUSTMENT, sequence, subscription, version, period, (), adjusted))

    def _advance(self, subscription: Subscription, start: datetime, scope: str) -> tuple[InvoiceLine, ...]:
        """Return the lines of what is paid in advance for the period that begins at `start`, if one does."""
        plan = self._version(subscription, start).plan
        billing = billing_period(plan.cycle, _span(subscription), start)
        return () if billing is None else tuple(map(from_rated, rate_advance(plan, billing, scope=scope)))

    def _version(self, subscription: Subscription, start: datetime) -> PlanVersion:
        return version_at(self._versions[subscription.plan], start)

    def _id(self, subscription: Subscription, kind: Kind, start: datetime, sequence: int = 0) -> str:
        return invoice_id(self._biller.ledger, subscription.id, kind, start, sequence)


def _wait(subscription: Subscription, period: Period, why: NotYet) -> Waiting:
    return Waiting(subscription.customer, subscription.id, subscription.plan, period, why.reason, why.detail)


def _span(subscription: Subscription) -> Span:
    return Span(subscription.start, subscription.end, subscription.start)
