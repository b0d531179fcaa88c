"""Brings an invoice's status to what Stripe says of it, whoever asked Stripe: a webhook, a command, a comparison.

What was read at Stripe may be older than what we know, since reads and events overtake each other. Statuses only go
forward (`may_become`), so an older one never wins. The caller's transaction holds the invoice meanwhile.
"""

from enum import StrEnum

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.invoice import Delivery, Status, may_become
from flusher.invoicing.store import rows
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]


class Brought(StrEnum):
    """What became of a status that was read at Stripe."""

    CHANGED = "changed"
    CURRENT = "current"
    """It is ours already, or an older one."""
    EARLY = "early"
    """Delivery has not ended here, and would not learn of it."""


def bring(connection: Connection, invoice: str, theirs: Status) -> Brought:
    """Bring an invoice to a status of Stripe's. Raises TaximeterError `invoice_unknown`."""
    with connection.transaction():
        found = lock_invoice(connection, invoice)
        if found["delivery"] != Delivery.SENT:
            # Delivery ends with `open`, or what it finds when it asks; what followed is not to be lost before that.
            return Brought.CURRENT if theirs in (Status.DRAFT, Status.OPEN) else Brought.EARLY
        return Brought.CHANGED if move(connection, found, theirs) else Brought.CURRENT


def move(connection: Connection, found: DictRow, to: Status) -> bool:
    """Move an invoice that is held to a status, unless it is there or further; return whether it moved.

    One that becomes void gives back the credit that it drew.
    """
    now = Status(found["status"])
    if to is now or not may_become(now, to):
        return False
    connection.execute(query("bring_status"), {"invoice": found["id"], "status": to.value})
    if to is Status.VOID:
        connection.execute(query("give_back_credit"), {"invoice": found["id"]})
    return True


def lock_invoice(connection: Connection, invoice: str) -> DictRow:
    """Return how an invoice stands, held until the transaction ends. Raises TaximeterError `invoice_unknown`."""
    for found in rows(connection, "lock_invoice", {"invoice": invoice}):
        return found
    raise TaximeterError("invoice_unknown", f"no invoice {invoice!r}; `taximeter invoices` lists them")
