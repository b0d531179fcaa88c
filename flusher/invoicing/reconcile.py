"""Compares every invoice here with what Stripe has. Reads alone, unless statuses are to be brought up to date.

Stripe's invoices are read page by page; what was seen is kept in a temporary table, so memory is that of a page. What
is compared is our lines' sum with Stripe's subtotal: tax is Stripe's, and changes the total.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.finals import Finals, RemoteFinal
from flusher.invoicing.gateway import PAGE
from flusher.invoicing.invoice import Delivery, Status
from flusher.invoicing.status import Brought, bring
from flusher.invoicing.store import ledger_of, rows
from flusher.pricing.money import currency, to_stripe
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]

_BEFORE: Final = timedelta(days=1)  # between Stripe's clock and Postgres's


class Differs(StrEnum):
    """In what an invoice differs."""

    MISSING_THERE = "missing_there"
    """It was sent, and Stripe has none."""
    UNKNOWN_HERE = "unknown_here"
    """Stripe's says that it is of this ledger, and it is not, or not the one that we know."""
    AMOUNT = "amount"
    STATUS = "status"
    NOT_DELIVERED_HERE = "not_delivered_here"
    """Stripe's is final, and our delivery has not ended: `taximeter invoice` ends it."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side says: `sum` in the currency's smallest unit as Stripe counts, before tax."""

    id: str
    status: str
    sum: int
    currency: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `here` or `there` is None where there is no invoice. `fixed`: it is none any more."""

    kind: Differs
    here: Side | None
    there: Side | None
    fixed: bool = False


def reconcile(
    connection: Connection,
    gateway: Finals,
    *,
    fix_status: bool = False,
    progress: Callable[[int], object] = lambda _compared: None,
) -> Iterator[Difference]:
    """Yield every difference as it is found; `progress` is told how many invoices were compared.

    `connection` is in autocommit mode. What changes meanwhile is compared as it was read: run it again. Raises what the
    gateway raises.
    """
    ledger, _ = ledger_of(connection)
    connection.execute(query("begin_reconciliation"))
    (first,) = rows(connection, "first_intent_at")
    since = (first["at"] or datetime.now(UTC)) - _BEFORE
    theirs = (found for found in gateway.each_final(int(since.timestamp())) if found.ledger == ledger)
    compared = 0
    while page := list(islice(theirs, PAGE)):
        connection.execute(query("note_seen"), {"invoices": [found.id for found in page]})
        ours = {row["id"]: row for row in rows(connection, "find_here", {"invoices": [one.invoice for one in page]})}
        for found in page:
            yield from _compare(connection, ours.get(found.invoice), found, fix_status=fix_status)
        compared += len(page)
        progress(compared)
    for row in _unseen(connection):
        found_later = gateway.read_final(row["stripe_invoice"])  # made since, or not there
        if found_later is None:
            yield Difference(Differs.MISSING_THERE, _here(row), None)
        else:
            yield from _compare(connection, row, found_later, fix_status=fix_status)
        compared += 1
        progress(compared)


def difference_json(found: Difference) -> dict[str, object]:
    """Return a difference as JSON."""
    sides = {"here": found.here, "there": found.there}
    return {
        "kind": found.kind.value,
        "fixed": found.fixed,
        **{
            name: None
            if side is None
            else {"id": side.id, "status": side.status, "sum": side.sum, "currency": side.currency}
            for name, side in sides.items()
        },
    }


def _compare(
    connection: Connection, row: DictRow | None, theirs: RemoteFinal, *, fix_status: bool
) -> Iterator[Difference]:
    there = Side(theirs.id, theirs.status.value, theirs.sum, theirs.currency)
    if row is None or row["stripe_invoice"] not in (None, theirs.id):
        # A draft that was never finalized bills nobody; Stripe lists a voided duplicate for ever.
        if theirs.status not in (Status.DRAFT, Status.VOID):
            yield Difference(Differs.UNKNOWN_HERE, None if row is None else _here(row), there)
        return
    here = _here(row)
    if row["delivery"] != Delivery.SENT:
        if theirs.status is not Status.DRAFT:
            yield Difference(Differs.NOT_DELIVERED_HERE, here, there)
        return
    if (here.sum, here.currency) != (there.sum, there.currency):
        yield Difference(Differs.AMOUNT, here, there)
    if here.status != there.status:
        fixed = fix_status and bring(connection, row["id"], theirs.status) is Brought.CHANGED
        yield Difference(Differs.STATUS, here, there, fixed)


def _unseen(connection: Connection) -> Iterator[DictRow]:
    """Yield what was sent and not seen, page by page."""
    after = ""
    while page := _page(connection, after):
        yield from page
        after = page[-1]["id"]


def _page(connection: Connection, after: str) -> Sequence[DictRow]:
    return rows(connection, "page_unseen", {"after": after, "limit": PAGE})


def _here(row: DictRow) -> Side:
    money = currency(row["currency"])
    return Side(row["id"], row["status"], to_stripe(row["total"], money), row["currency"])
