"""How far subscriptions are billed, read from Postgres for many at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer, Subscription
from flusher.catalog.plan_reader import read_plan
from flusher.catalog.reader import Report, Table
from flusher.catalog.timeline import Terms, Versions
from flusher.catalog.zones import zone_named
from flusher.invoicing.costs import Billed, Key, Part
from flusher.invoicing.due import Account, Closed
from flusher.invoicing.store import rows
from flusher.pricing.charge import ChargeKind
from flusher.pricing.period import Period, Span
from flusher.pricing.plan import Plan
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]


class Accounts:
    """Reads accounts on a connection; terms are read once."""

    def __init__(self, connection: Connection, versions: Versions) -> None:
        self._connection = connection
        self._versions = versions
        self._plans: dict[str, Plan] = {}

    def lock(
        self,
        subscriptions: Sequence[Subscription],
        customers: Mapping[str, Customer],
        since: datetime,
        *,
        everything: bool = False,
    ) -> list[Account]:
        """Lock subscriptions until the end of the transaction, and return how far each is billed.

        Periods that ended after `since` are adjusted, those of released subscriptions all, with `everything` all of
        all.
        """
        ids = [subscription.id for subscription in subscriptions]
        self._connection.execute(query("lock_subscriptions"), {"ids": ids})
        found = {row["subscription"]: row for row in rows(self._connection, "list_accounts", {"ids": ids})}
        released = [row["subscription"] for row in found.values() if row["released"] or everything]
        accounts = {
            subscription.id: self._account(subscription, customers[subscription.customer], found[subscription.id])
            for subscription in subscriptions
        }
        closed = rows(self._connection, "list_closed", {"ids": ids, "since": since, "all_of": released})
        self._load_terms((*found.values(), *closed))
        for row in closed:
            accounts[row["subscription"]].closed.append(self._closed(row))
        for row in found.values():
            if row["period_start"] is not None:
                accounts[row["subscription"]].last = self._closed(row)
        self._load_billed(accounts)
        return list(accounts.values())

    def _account(self, subscription: Subscription, customer: Customer, row: Mapping[str, Any]) -> Account:
        return Account(
            subscription,
            customer,
            opened=row["opened"],
            adjustments=row["adjustments"],
            thresholds=row["thresholds"],
            released=row["released"],
        )

    def _load_billed(self, accounts: Mapping[str, Account]) -> None:
        """Read what was billed of the periods that are adjusted and of the running one; of all with a commitment."""
        values = {
            "ids": list(accounts),
            "since": [
                account.subscription.start if self._is_committed(account) else account.billed_since
                for account in accounts.values()
            ],
        }
        for row in rows(self._connection, "list_billed", values):
            billed = _billed(row)
            accounts[row["subscription"]].billed[billed.key] = billed

    def _is_committed(self, account: Account) -> bool:
        subscription = account.subscription
        plans = {step.plan for step, _ in subscription.stretches}
        own = [step.overrides.commitment for step, _ in subscription.stretches]
        return any(own) or any(version.plan.commitment for plan in plans for version in self._versions[plan])

    def _load_terms(self, found: Iterable[Mapping[str, Any]]) -> None:
        wanted = {row["terms"] for row in found if row["terms"] is not None} - self._plans.keys()
        for row in rows(self._connection, "list_terms", {"terms": sorted(wanted)}) if wanted else ():
            plan = read_plan(Table(report := Report(), "terms", row["definition"]))
            if plan is None:
                raise TaximeterError("invariant_broken", f"terms {row['terms']} can't be read: {report.problems[0]}")
            self._plans[row["terms"]] = plan

    def _closed(self, row: Mapping[str, Any]) -> Closed:
        period = Period(row["period_start"].astimezone(UTC), row["period_end"].astimezone(UTC))
        span = Span(period.start, None, row["anchor"].astimezone(UTC), zone_named(row["zone"]))
        return Closed(period, Terms(self._plans[row["terms"]], row["plan_version"], span))


def _billed(row: Mapping[str, Any]) -> Billed:
    start, end = row["period_start"].astimezone(UTC), row["period_end"].astimezone(UTC)
    cost_of = row["cost_of"].astimezone(UTC)
    key = Key(cost_of, Part(row["part"]), ChargeKind(row["kind"]), row["price"], start)
    return Billed(key, end, row["amount"], row["meter"], row["quantity"], row["events"])
