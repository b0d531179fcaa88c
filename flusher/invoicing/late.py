"""Usage that came too late to be billed by itself: what it comes to, and letting it be billed.

A run adjusts the closed periods that ended within the late limit. What changed in older ones is held for an operator:
a customer is not billed for a year ago because a forgotten journal turned up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog_store import load_plan_versions
from flusher.invoicing.accounts import Accounts
from flusher.invoicing.costs import differences
from flusher.invoicing.due import Account, closed_costs
from flusher.invoicing.invoice import total
from flusher.invoicing.make import read_usages
from flusher.invoicing.quantities import SummedWindow
from flusher.invoicing.store import read_clock
from flusher.pricing.period import Period
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

_CHUNK: Final = 500
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """What a closed period costs now beyond what was billed for it, in major units of `currency`.

    `released`: an operator has accepted it, and the next run bills it.
    """

    subscription: str
    customer: str
    period: Period
    currency: str
    amount: Decimal
    released: bool


def list_held(connection: Connection, late_limit: timedelta, customer: str | None = None) -> Iterator[Held]:
    """Yield what is held for an operator, by subscription, oldest period first. `connection` is in autocommit mode."""
    versions = load_plan_versions(connection)
    accounts = Accounts(connection, versions)
    limit = read_clock(connection).now - late_limit
    last = ""
    while True:
        with connection.transaction(force_rollback=True):
            found = accounts.lock(customer, last, _CHUNK, _EVER)
            for account in found:
                account.closed = [closed for closed in account.closed if closed.period.end <= limit]
            costs = [(account, tuple(closed_costs(account, versions))) for account in found]
            usages = read_usages(connection, costs)
        if not found:
            return
        for (account, periods), usage in zip(costs, usages, strict=True):
            if isinstance(usage, SummedWindow):
                continue
            for cost in periods:
                amount = total(differences(cost, usage, account.billed, scope="").lines)
                if amount:
                    yield _held(account, cost.billing.period, cost.terms.plan.currency, amount)
        last = found[-1].subscription.id


def release(connection: Connection, subscription: str, reason: str) -> None:
    """Let the next run bill whatever changed in the closed periods of a subscription, whatever their age.

    Raises TaximeterError `subscription_unknown`.
    """
    try:
        connection.execute(query("release_late"), {"subscription": subscription, "reason": reason})
    except psycopg.errors.ForeignKeyViolation as error:
        raise TaximeterError("subscription_unknown", f"no subscription {subscription!r}") from error


def _held(account: Account, period: Period, currency: str, amount: Decimal) -> Held:
    subscription = account.subscription
    return Held(subscription.id, subscription.customer, period, currency, amount, account.released)
