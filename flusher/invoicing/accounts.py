"""How far subscriptions are billed, read from Postgres for many at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer, Subscription
from flusher.catalog.plan_reader import read_plan
from flusher.catalog.reader import Report, Table
from flusher.catalog.timeline import Terms, Versions
from flusher.catalog.zones import zone_named
from flusher.catalog_store import load_customers_of, load_plan_versions, load_subscriptions
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
    """Reads accounts on a connection; terms and plans are read once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.versions: Versions = {}
        self._versions_read = 0
        self._plans: dict[str, Plan] = {}

    def lock(self, customer: str | None, after: str, limit: int, late_limit: timedelta | None) -> list[Account]:
        """Lock the next subscriptions after an id until the transaction ends, and return how far each is billed.

        `versions` are those of the plans by then: nobody changes them until the transaction ends either.

        At most `limit` of them, by id (of one customer where it is given); none when there are no more. Of closed
        periods those are read that ended within `late_limit` of the last one; with None, and where late usage was
        released, all.
        """
        self._connection.execute(query("wait_for_subscriptions"))
        self._connection.execute(query("hold_catalog"))
        (count,) = rows(self._connection, "count_plan_versions")
        if count["count"] != self._versions_read:
            self.versions = load_plan_versions(self._connection)
            self._versions_read = count["count"]
        values = {"customer": customer, "after": after, "limit": limit}
        ids = [row["id"] for row in rows(self._connection, "lock_subscriptions", values)]
        if not ids:
            return []
        # Read once nobody changes any more what they pay by.
        page = load_subscriptions(self._connection, customer, after=after, upto=ids[-1])
        return self._load([found for found in page if found.id in set(ids)], late_limit)

    def _load(self, subscriptions: Sequence[Subscription], late_limit: timedelta | None) -> list[Account]:
        customers = load_customers_of(self._connection, [found.customer for found in subscriptions])
        ids = [found.id for found in subscriptions]
        states = {row["subscription"]: row for row in rows(self._connection, "list_accounts", {"ids": ids})}
        since = [
            found.start
            if late_limit is None or (row := states[found.id])["released"] or row["period_end"] is None
            else row["period_end"] - late_limit
            for found in subscriptions
        ]
        closed = rows(self._connection, "list_closed", {"ids": ids, "since": since})
        self._load_terms((*states.values(), *closed))
        accounts = {found.id: _account(found, customers[found.customer], states[found.id]) for found in subscriptions}
        for row in closed:
            accounts[row["subscription"]].closed.append(self._closed(row))
        for name, row in states.items():
            if row["period_start"] is not None:
                accounts[name].last = self._closed(row)
        self._load_billed(accounts)
        return list(accounts.values())

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
        return any(own) or any(version.plan.commitment for plan in plans for version in self.versions[plan])

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


def _account(subscription: Subscription, customer: Customer, row: Mapping[str, Any]) -> Account:
    return Account(
        subscription,
        customer,
        opened=row["opened"],
        adjustments=row["adjustments"],
        thresholds=row["thresholds"],
        released=row["released"],
        rerated_since=row["rerated_since"] and row["rerated_since"].astimezone(UTC),
    )


def _billed(row: Mapping[str, Any]) -> Billed:
    start, end = row["period_start"].astimezone(UTC), row["period_end"].astimezone(UTC)
    cost_of = row["cost_of"].astimezone(UTC)
    key = Key(cost_of, Part(row["part"]), ChargeKind(row["kind"]), row["price"], start)
    return Billed(key, end, row["amount"], row["meter"], row["quantity"], row["events"])
