"""What a plan that does not exist yet would make of real usage, beside what it was worth by the plans of that time.

Both sides are cut at the start and the end that are asked for, as if everything began and ended there, and both are
what periods cost: before credits, and whatever was invoiced. The new plan takes the place of a customer's
subscriptions that price one of its meters (all of them, where it prices none), for as long as these ran.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer, PlanVersion, Subscription
from flusher.catalog.timeline import Terms, Versions, billing_start, terms_at
from flusher.catalog_store import load_customers_of, load_plan_versions, load_subscriptions_of_customers
from flusher.invoicing.quantities import SummedWindow, read_usage
from flusher.pricing.money import EXACT
from flusher.pricing.period import BillingPeriod, Period, billing_period
from flusher.pricing.plan import Overrides, Plan
from flusher.pricing.rate import ChargeKind, Need, Reading, Usage, commitment_period, needs, rate_advance, rate_arrears
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]

PAGE: Final = 500
"""Customers that are read at once."""
NEEDS_MAX: Final = 5_000
"""Readings that are asked for at once; a customer of many short periods may want more alone."""
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTED: Final = (ChargeKind.PRICE, ChargeKind.MINIMUM, ChargeKind.MAXIMUM)

Part = tuple[Terms, BillingPeriod]


@dataclass(frozen=True, slots=True)
class Compared:
    """A customer: the `subscriptions` that the plan would replace, and what each side comes to, in major units.

    Both are None, and `problem` says why, where they can't be compared: in another currency, or when usage can't be
    told apart at a boundary.
    """

    customer: str
    subscriptions: tuple[str, ...]
    old: Decimal | None = None
    new: Decimal | None = None
    problem: str = ""


@dataclass(slots=True)
class _Job:
    """What is rated for a customer: periods under the old terms, each subscription's by itself, and under the new."""

    customer: Customer
    replaced: tuple[Subscription, ...]
    old: list[list[Part]]
    new: list[Part]
    needs: list[Need] = field(default_factory=list)


def count_customers(connection: Connection, within: Period) -> int:
    """Return how many customers have subscriptions that run at some time of a period."""
    row = connection.execute(query("count_subscribers"), {"start": within.start, "end": within.end}).fetchone()
    return int(row[0]) if row is not None else 0


def simulate(
    connection: Connection,
    plan: Plan,
    within: Period,
    customer: str | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> Iterator[Compared]:
    """Yield every customer whose subscriptions the plan would replace, by id; `progress` is told how many are done.

    A named customer comes also without any. Reads only; what it holds in memory does not grow with the customers.
    """
    versions = load_plan_versions(connection)
    done = 0
    for page in _pages(connection, within) if customer is None else [[customer]]:
        customers = load_customers_of(connection, page)
        own: dict[str, list[Subscription]] = {}
        for subscription in load_subscriptions_of_customers(connection, page):
            own.setdefault(subscription.customer, []).append(subscription)
        jobs = (_job(plan, customers[name], own.get(name, ()), versions, within) for name in page)
        wanted = [job for job in jobs if job.replaced or customer is not None]
        for some in _bounded(wanted):
            yield from _compare(connection, plan, some)
        done += len(page)
        progress(done)


def _pages(connection: Connection, within: Period) -> Iterator[list[str]]:
    after = ""
    while True:
        values = {"after": after, "start": within.start, "end": within.end, "limit": PAGE}
        page = [row[0] for row in connection.execute(query("page_subscribers"), values).fetchall()]
        if not page:
            return
        yield page
        after = page[-1]


def _job(plan: Plan, customer: Customer, own: Sequence[Subscription], versions: Versions, within: Period) -> _Job:
    """Return what is to be rated for a customer."""
    old: list[list[Part]] = []
    replaced: list[Subscription] = []
    for subscription in own:
        parts = list(_parts(subscription, versions, customer, within))
        meters = {meter for terms, _ in parts for meter in terms.plan.meters}
        if parts and (meters & plan.meters or not plan.meters):
            old.append(parts)
            replaced.append(subscription)
    starts = [parts[0][1].period.start for parts in old] or [within.start]
    ends = [parts[-1][1].period.end for parts in old] or [within.end]
    begun = Subscription("", customer.id, plan.name, min(starts), max(ends), Overrides(trial_days=0))
    new = _parts(begun, {plan.name: (PlanVersion(plan, 1, _LONG_AGO),)}, customer, within)
    job = _Job(customer, tuple(replaced), old, list(new))
    job.needs = list(dict.fromkeys(need for parts in (*old, job.new) for part in parts for need in _needs(part)))
    return job


def _parts(subscription: Subscription, versions: Versions, customer: Customer, within: Period) -> Iterator[Part]:
    """Yield the periods of a subscription, cut where `within` begins and ends, with their terms."""
    at = max(within.start, billing_start(subscription, versions))
    while at < within.end and (terms := terms_at(subscription, versions, at, customer.zone)):
        span = terms.span
        end = within.end if span.end is None else min(span.end, within.end)
        cut = replace(span, start=max(span.start, within.start), end=end)
        billing = billing_period(terms.plan.cycle, cut, at)
        if billing is None:
            return
        yield replace(terms, span=cut), billing
        at = billing.period.end


def _needs(part: Part) -> tuple[Need, ...]:
    terms, billing = part
    return needs(terms.plan, terms.span, billing)


def _bounded(jobs: Iterable[_Job]) -> Iterator[list[_Job]]:
    """Yield the jobs in lists that ask for a bounded number of readings."""
    some: list[_Job] = []
    asked = 0
    for job in jobs:
        if some and asked + len(job.needs) > NEEDS_MAX:
            yield some
            some, asked = [], 0
        some.append(job)
        asked += len(job.needs)
    if some:
        yield some


def _compare(connection: Connection, plan: Plan, jobs: Sequence[_Job]) -> Iterator[Compared]:
    """Read what the jobs want in a few statements, and rate both sides of each."""
    readings = iter(read_usage(connection, [(job.customer.user_ids, need) for job in jobs for need in job.needs]))
    for job in jobs:
        found = {need: next(readings) for need in job.needs}
        usage = {need: reading for need, reading in found.items() if isinstance(reading, Reading)}
        names = tuple(subscription.id for subscription in job.replaced)
        barred = [reading for reading in found.values() if isinstance(reading, SummedWindow)]
        foreign = {terms.plan.currency for parts in job.old for terms, _ in parts} - {plan.currency}
        if foreign:
            yield Compared(job.customer.id, names, problem=f"billed in {', '.join(sorted(foreign))} until now")
        elif barred:
            yield Compared(job.customer.id, names, problem=barred[0].message)
        else:
            with localcontext(EXACT):
                old = sum((_cost(parts, usage) for parts in job.old), Decimal(0))
            yield Compared(job.customer.id, names, old, _cost(job.new, usage))


def _cost(parts: Sequence[Part], usage: Usage) -> Decimal:
    """Return what periods that follow each other cost, each with what is due before and after it."""
    total = Decimal(0)
    counted: list[tuple[datetime, Decimal]] = []
    with localcontext(EXACT):
        for terms, billing in parts:
            ending = commitment_period(terms.plan, terms.span, billing)
            committed = Decimal(0)
            if ending is not None:
                committed = sum((amount for at, amount in counted if at >= ending.start), committed)
            advance = rate_advance(terms.plan, terms.span, billing)
            arrears = rate_arrears(terms.plan, terms.span, billing, usage, committed=committed)
            charges = (*advance, *arrears)
            amount = sum((charge.amount for charge in charges if charge.kind in _COUNTED), Decimal(0))
            counted.append((billing.period.start, amount))
            total += sum((charge.amount for charge in charges), Decimal(0))
    return total
