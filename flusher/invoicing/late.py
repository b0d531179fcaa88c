"""Usage that came too late to be billed by itself: what it comes to, and letting it be billed.

What is counted for a closed period within the late limit of its end is billed with the next invoice. What comes later
is held for an operator: a customer is not billed for a year ago because a forgotten journal turned up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.accounts import Accounts
from flusher.invoicing.costs import Cost, Role, differences, needs_of
from flusher.invoicing.due import Account, closed_costs
from flusher.invoicing.invoice import total
from flusher.invoicing.make import read_usages
from flusher.invoicing.quantities import SummedWindow
from flusher.invoicing.store import rows
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
    accounts = Accounts(connection)
    last = ""
    while True:
        with connection.transaction(force_rollback=True):
            found = accounts.lock(customer, last, _CHUNK, None)
            costs = [(account, tuple(closed_costs(account, accounts.versions, _EVER))) for account in found]
            usages = read_usages(connection, costs)
            late = tardy(connection, costs, late_limit)
        if not found:
            return
        for (account, periods), usage in zip(costs, usages, strict=True):
            if isinstance(usage, SummedWindow) or account.last is None:
                continue
            since = account.last.period.end - late_limit
            for cost in periods:
                amount = total(differences(cost, usage, account.billed, scope="").lines)
                if amount and (cost.billing.period.end <= since or (account.subscription.id, cost.start) in late):
                    yield _held(account, cost.billing.period, cost.terms.plan.currency, amount)
        last = found[-1].subscription.id


def tardy(
    connection: Connection, wanted: Iterable[tuple[Account, Sequence[Cost]]], late_limit: timedelta
) -> set[tuple[str, datetime]]:
    """Return the closed periods of which something was counted later than the limit after their end: by subscription
    and start."""
    periods: list[tuple[str, datetime]] = []
    columns: dict[str, list[object]] = {name: [] for name in ("numbers", "users", "meters", "starts", "ends", "limits")}
    for account, costs in wanted:
        for cost in costs:
            if cost.role is not Role.CLOSED:
                continue
            periods.append((account.subscription.id, cost.start))
            for need in needs_of(cost):
                period, limit = need.period, cost.billing.period.end + late_limit
                for user in account.customer.user_ids:
                    row = (len(periods) - 1, user, need.meter, period.start, period.end, limit)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
    return {periods[row["number"]] for row in rows(connection, "find_tardy", columns)} if periods else set()


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
