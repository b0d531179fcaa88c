"""Makes invoices of many subscriptions at once: reads what was used, rates it, draws credits, stores the result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.timeline import Versions
from flusher.invoicing import credit_store
from flusher.invoicing.bill import Draft, Note, Seller, draft, paid
from flusher.invoicing.costs import Cost, needs_of
from flusher.invoicing.credits import Grant, after, grants_due
from flusher.invoicing.due import Account, Step, close
from flusher.invoicing.invoice import Invoice
from flusher.invoicing.quantities import SummedWindow, read_usage
from flusher.invoicing.smallest import Small
from flusher.invoicing.store import insert_invoices, lock_small_amounts, store_small_amounts
from flusher.pricing.measure import Need, Reading
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class Work:
    """An invoice to be made: the step of an account that makes it, and what it says beside its lines."""

    account: Account
    step: Step
    note: Note


def read_usages(
    connection: Connection, wanted: Sequence[tuple[Account, Sequence[Cost]]]
) -> list[dict[Need, Reading] | SummedWindow]:
    """Return what accounts used that the costs ask for, in a few statements for all; a SummedWindow where it can't be
    told."""
    asked = [
        (number, need)
        for number, (_, costs) in enumerate(wanted)
        for need in dict.fromkeys(need for cost in costs for need in needs_of(cost))
    ]
    users = [account.customer.user_ids for account, _ in wanted]
    readings = read_usage(connection, [(users[number], need) for number, need in asked])
    usages: list[dict[Need, Reading]] = [{} for _ in wanted]
    barred: dict[int, SummedWindow] = {}
    for (number, need), reading in zip(asked, readings, strict=True):
        if isinstance(reading, SummedWindow):
            barred.setdefault(number, reading)
        else:
            usages[number][need] = reading
    return [barred.get(number, usage) for number, usage in enumerate(usages)]


class Maker:
    """Works in the caller's transaction, which holds the locks of the subscriptions."""

    def __init__(self, connection: Connection, seller: Seller) -> None:
        self._connection = connection
        self._seller = seller
        self._grants: dict[credit_store.Key, list[Grant]] = {}
        self._small: dict[credit_store.Key, list[Small]] = {}

    def lock_credit(self, accounts: Sequence[Account], versions: Versions) -> None:
        """Read what credit the accounts have and what is carried to them, and hold it: nothing is used twice."""
        keys = {
            (account.subscription.customer, version.plan.currency)
            for account in accounts
            for step, _ in account.subscription.stretches
            for version in versions[step.plan][-1:]
        }
        self._grants = credit_store.lock_grants(self._connection, sorted(keys))
        self._small = lock_small_amounts(self._connection, sorted(keys))

    def grant_credit(self, accounts: Sequence[Account]) -> None:
        """Grant what the plans bring for the periods that the accounts are at, once."""
        wanted: list[Grant] = []
        for account in accounts:
            if account.current is not None and account.current[0].plan.credits:
                terms, billing = account.current
                first = billing.period.start == terms.span.anchor
                subscription = account.subscription
                start = billing.period.start
                wanted += grants_due(
                    terms.plan.credits, subscription.id, subscription.customer, terms.plan.currency, start, first=first
                )
        self._keep(wanted)

    def make(self, work: Sequence[Work]) -> Iterator[tuple[Account, Invoice | SummedWindow]]:
        """Make the invoices, store them all, and yield each by its account; a SummedWindow for one that can't be."""
        usages = read_usages(self._connection, [(one.account, one.step.costs) for one in work])
        drafts: list[tuple[Work, Draft]] = []
        for one, usage in zip(work, usages, strict=True):
            if isinstance(usage, SummedWindow):
                one.account.done = True
                yield one.account, usage
                continue
            made = draft(one.account, one.step, usage, self._seller, one.note)
            if made is not None:
                drafts.append((one, self._pay(made)))
        insert_invoices(self._connection, [made for _, made in drafts])
        credit_store.record_draws(self._connection, {made.invoice.id: made.draws for _, made in drafts if made.draws})
        self._keep([made.carried for _, made in drafts if made.carried is not None])
        store_small_amounts(self._connection, [made for _, made in drafts])
        released = [one.account.subscription.id for one, made in drafts if one.account.released and _adjusts(made)]
        if released:
            self._connection.execute(query("use_releases"), {"ids": released})
        for one, made in drafts:
            close(one.account, one.step, made.billed)
            yield one.account, made.invoice

    def _pay(self, made: Draft) -> Draft:
        key = (made.invoice.customer, made.invoice.currency)
        grants = self._grants.get(key, [])
        whole = paid(made, grants, self._small.pop(key, ()), self._seller)
        self._grants[key] = after(grants, whole.draws)
        if whole.too_small is not None:
            self._small[key] = [whole.too_small]
        return whole

    def _keep(self, grants: Sequence[Grant]) -> None:
        """Store new grants, to be drawn from by the next invoices too."""
        new = credit_store.grant(self._connection, grants)
        for one in grants:
            if one.id in new:
                self._grants.setdefault((one.customer, one.currency), []).append(one)


def _adjusts(made: Draft) -> bool:
    return any(line.kind == "adjustment" for line in made.invoice.lines)
