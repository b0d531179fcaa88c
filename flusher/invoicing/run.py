"""The invoice run: which periods are due, whether they are settled, and what they cost.

Subscriptions are taken in chunks, each in one transaction: lock them, read the usage, rate it, store the invoices,
their lines and what is billed so far (rule 16). Two runs at once make one invoice: the lock orders them, the unique key
holds it. A dry run is the same with every transaction rolled back, and doesn't wait for what is not settled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.accounts import Accounts
from flusher.invoicing.bill import Note, Seller
from flusher.invoicing.costs import Cost, Role, needs_of
from flusher.invoicing.due import LATE_LIMIT_DEFAULT, Account, Moment, Step, next_step
from flusher.invoicing.invoice import Invoice, Kind
from flusher.invoicing.late import tardy
from flusher.invoicing.make import Maker, Work
from flusher.invoicing.quantities import SummedWindow
from flusher.invoicing.settle import WINDOW_DEFAULT, NotYet, settlement
from flusher.invoicing.sound import Doubts
from flusher.invoicing.store import ledger_of, read_clock, rows
from flusher.pricing.period import Period

Connection = psycopg.Connection[TupleRow]

CHUNK: Final = 500
"""Subscriptions in a transaction: few statements for all of them, and a kill loses no more than their rating."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `at`: make what is due then (None: now). `stripe`: whether invoices go to Stripe.

    `preview` counts running periods as due, as they are so far: for dry runs alone. What came for a
    closed period later than `late_limit` after its end is billed only when an operator released it.
    """

    at: datetime | None = None
    customer: str | None = None
    stripe: bool = False
    dry_run: bool = False
    window: timedelta = WINDOW_DEFAULT
    preview: bool = False
    late_limit: timedelta = LATE_LIMIT_DEFAULT


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
    """Make every invoice that is due and return them with what waits."""
    made = Made()
    for outcome in each_outcome(connection, options, progress):
        if isinstance(outcome, Waiting):
            made.waiting.append(outcome)
        else:
            made.invoices.append(outcome)
    return made


def each_outcome(
    connection: Connection, options: Options, progress: Progress = lambda _done, _of: None
) -> Iterator[Invoice | Waiting]:
    """Make every invoice that is due and yield each, with what waits, once it is committed.

    `connection` is in autocommit mode, or in a transaction of the caller's. Safe to repeat, to kill anywhere and to
    run several times at once. Memory is bounded by a chunk.
    """
    if options.preview and not options.dry_run:
        raise ValueError("a preview is a dry run")
    run = _Run(connection, options)
    done, last = 0, ""
    (counted,) = rows(connection, "count_subscriptions", {"customer": options.customer})
    while True:
        progress(done, max(done, counted["count"]))
        with connection.transaction(force_rollback=options.dry_run):
            accounts, outcomes = run.take(last)
        yield from outcomes
        if not accounts:
            return
        done, last = done + len(accounts), accounts[-1].subscription.id


class _Run:
    """One run: what was read at its start, and the connection that it works on."""

    def __init__(self, connection: Connection, options: Options) -> None:
        self._connection = connection
        self._options = options
        # Read before any usage: watermarks only grow, so a period that is settled by them stays settled.
        self._clock = read_clock(connection)
        now = self._clock.now
        self._moment = Moment(options.at or now, now, options.late_limit, options.preview)
        self._accounts = Accounts(connection)
        self._seller = Seller(ledger_of(connection)[0], options.stripe)

    def take(self, after: str) -> tuple[list[Account], list[Invoice | Waiting]]:
        """Make the invoices of the next subscriptions after an id, until none is due or one has to wait.

        All in the transaction that the caller opened. Returns them, none when there are no more, and what became of
        them.
        """
        options = self._options
        accounts = self._accounts.lock(options.customer, after, CHUNK, options.late_limit)
        doubts = Doubts(self._connection, [user for account in accounts for user in account.customer.user_ids])
        maker = Maker(self._connection, self._seller)
        maker.lock_credit(accounts, self._accounts.versions)
        outcomes: list[Invoice | Waiting] = []
        while active := [account for account in accounts if not account.done]:
            work: list[Work] = []
            for account in active:
                step = next_step(account, self._accounts.versions, self._moment)
                found = None if step is None else self._examine(account, step, doubts)
                if isinstance(found, Work):
                    work.append(found)
                elif found is not None:
                    outcomes.append(found)
            maker.grant_credit(active)
            for account, made in maker.make(self._in_time(work)):
                outcomes.append(_waiting(account, made.period, made) if isinstance(made, SummedWindow) else made)
        return accounts, outcomes

    def _in_time(self, work: list[Work]) -> list[Work]:
        """Return the work without the closed periods for which something came too late to be billed by itself."""
        wanted = [(one.account, one.step.costs) for one in work if not one.account.released]
        late = tardy(self._connection, wanted, self._options.late_limit)
        if not late:
            return work
        return [
            replace(
                one,
                step=replace(one.step, costs=tuple(cost for cost in one.step.costs if not _is_late(one, cost, late))),
            )
            for one in work
        ]

    def _examine(self, account: Account, step: Step, doubts: Doubts) -> "Work | Waiting | None":
        """Return what has to be known for a step, or what it waits for: a dry run waits for nothing, and says so."""
        note = Note()
        if step.kind is Kind.PERIOD:
            settled = settlement(step.period.end, self._clock, self._options.window)
            note = Note(preview=settled) if isinstance(settled, NotYet) else Note(closed_without=settled.without)
        costs = []
        for cost in step.costs:
            broken = next(filter(None, (doubts.about(account.customer, need) for need in needs_of(cost))), None)
            if broken is None or cost.role is not Role.CLOSED:
                costs.append(cost)  # what a closed period comes to now is left for the next invoice
                note = replace(note, preview=note.preview or broken)
        if note.preview is not None and not self._options.dry_run:
            account.done = True
            return None if step.kind is Kind.THRESHOLD else _waiting(account, step.period, note.preview)
        return Work(account, replace(step, costs=tuple(costs)), note)


def _is_late(one: Work, cost: Cost, late: set[tuple[str, datetime]]) -> bool:
    return cost.role is Role.CLOSED and (one.account.subscription.id, cost.start) in late


def _waiting(account: Account, period: Period, why: NotYet | SummedWindow) -> Waiting:
    subscription = account.subscription
    reason, detail = (why.code, why.message) if isinstance(why, SummedWindow) else (why.reason, why.detail)
    plan = subscription.plan if account.current is None else account.current[0].plan.name
    return Waiting(subscription.customer, subscription.id, plan, period, reason, detail)
