"""What a ledger sends to Stripe: invoices, or usage to meters there. The first push decides, for ever."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.binding import check_account
from flusher.invoicing.gateway import Gateway
from flusher.invoicing.meter_events import AGE_MAX, ceil_hour
from flusher.invoicing.store import read_clock, rows
from flusher.pricing.line import rfc3339
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

SINCE_VARIABLE: Final = "TAXIMETER_STRIPE_METERS_SINCE"


class Sink(StrEnum):
    """What is sent."""

    INVOICES = "invoices"
    METERS = "meters"


def check_sink(connection: Connection, sink: Sink) -> None:
    """Raise TaximeterError `stripe_sink_differs` where the ledger sends the other: it would be billed twice."""
    bound = _bound(connection)
    if bound is not None and bound["sink"] != sink:
        raise _differs(f"this ledger's usage is sent to Stripe as {bound['sink']}", bound["sink"])
    if bound is None and sink is Sink.METERS:
        (found,) = rows(connection, "count_stripe_invoices")
        if found["count"]:
            raise _differs(f"this ledger's invoices go to Stripe (there are {found['count']})", Sink.INVOICES)


def first_hour(connection: Connection, since: datetime | None) -> datetime:
    """Return the first hour whose usage is sent: the first push's, else `since`, else as far back as Stripe takes it.

    Raises TaximeterError `config_invalid` for a `since` that is not the first push's, or too long ago.
    """
    bound = _bound(connection)
    oldest = ceil_hour(read_clock(connection).now - AGE_MAX)
    if bound is not None and bound["meters_since"] is not None:
        first: datetime = bound["meters_since"]
        if since is not None and since != first:
            raise TaximeterError(
                "config_invalid",
                f"{SINCE_VARIABLE}: the first push sent usage since {rfc3339(first)}, and that stays; unset it",
            )
        return first
    if since is None:
        return oldest
    if since < oldest or since != ceil_hour(since):
        raise TaximeterError(
            "config_invalid",
            f"{SINCE_VARIABLE}: expected a full hour, at or after {rfc3339(oldest)}, as Stripe takes usage of 35 days, "
            f"got {rfc3339(since)}",
        )
    return since


def bind_meters(connection: Connection, gateway: Gateway, since: datetime) -> None:
    """Bind the ledger to the key's account and mode, and to meters, at its first push.

    Raises TaximeterError for another account, mode or sink later: `stripe_account_changed`, `stripe_sink_differs`.
    """
    check_sink(connection, Sink.METERS)
    account = gateway.account()
    values = {"account": account.id, "livemode": account.livemode, "since": since}
    connection.execute(query("bind_meters"), values)
    check_sink(connection, Sink.METERS)
    check_account(connection, account)


def _bound(connection: Connection) -> DictRow | None:
    return next(iter(rows(connection, "find_sink")), None)


def _differs(why: str, sink: str) -> TaximeterError:
    do = "leave out --sink meters" if sink == Sink.INVOICES else "run `taximeter invoice --sink meters`"
    return TaximeterError(
        "stripe_sink_differs",
        f"{why}, and the other way would bill it twice; {do}, or meter what is to be billed the other way in another "
        "ledger",
    )
