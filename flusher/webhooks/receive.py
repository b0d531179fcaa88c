"""What an event of Stripe's does: each once, whatever order they come in.

An event only says that something happened. What it is about is asked of Stripe again, and the invoice's status here is
brought to that; so an event that comes late or twice does no harm. It is remembered in the transaction that it takes
effect in.
"""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.finals import Finals
from flusher.invoicing.status import Brought, bring
from flusher.invoicing.store import ledger_of, rows
from flusher.sql import query
from flusher.webhooks.signature import verify
from sidecar.contract.codes import TaximeterError, TryAgainError

Connection = psycopg.Connection[TupleRow]

KEEP_DAYS: Final = 35
"""How long an event is known. Stripe sends one again for three days by itself, and for a month by hand."""
_FORGET_AT_ONCE: Final = 100
_TEXT_MAX: Final = 255

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    """A status changed."""
    CURRENT = "current"
    """Everything was as it should be."""
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    """It is of another type, or about something that is not this ledger's."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its id, its type, and the id of what it is about. `account` is that of a platform's other account."""

    id: str
    type: str
    object: str
    livemode: bool
    account: str | None = None


def read_event(body: bytes) -> Event:
    """Return the event that a body is. Raises TaximeterError `stripe_event_invalid`."""
    try:
        found: Any = json.loads(body)
        account = found.get("account")
        event = Event(found["id"], found["type"], found["data"]["object"].get("id", ""), found["livemode"], account)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable() from error
    texts = (event.id, event.type, event.object, event.account or "")
    if not all(isinstance(text, str) and len(text) <= _TEXT_MAX and text.isprintable() for text in texts):
        raise _unreadable()
    if not event.id or not event.type or not isinstance(event.livemode, bool):
        raise _unreadable()
    return event


@dataclass(frozen=True, slots=True)
class Door:
    """Who may send: the secrets that sign, and the account and mode that our key is of."""

    secrets: tuple[str, ...]
    account: str
    livemode: bool

    def open(self, body: bytes, header: str) -> Event:
        """Return the event of a request. Raises TaximeterError: signature_invalid, stripe_event_invalid."""
        verify(body, header, self.secrets, datetime.now(UTC))
        return read_event(body)

    def check(self, connection: Connection, event: Event) -> None:
        """Raise TaximeterError `stripe_account_changed` for an event of another account or mode."""
        mine = (event.account or self.account, event.livemode)
        bound = [(row["account"], row["livemode"]) for row in rows(connection, "find_binding")]
        if any(one != mine for one in [*bound, (self.account, self.livemode)]):
            raise TaximeterError(
                "stripe_account_changed",
                f"event {event.id} is of another account or mode than this ledger's; point that endpoint elsewhere",
            )


def receive(connection: Connection, gateway: Finals, event: Event) -> Outcome:
    """Let an event take effect once and return what it did. It is committed by then.

    `connection` is in autocommit mode. Raises TryAgainError when Stripe should send it again: stripe_unavailable,
    delivery_in_progress; and whatever the gateway raises.
    """
    if rows(connection, "find_stripe_event", {"event": event.id}):
        return Outcome.DUPLICATE
    if event.type.startswith("invoice.") and event.object:
        return _invoice(connection, gateway, event)
    if event.type == "customer.deleted":
        _warn_of_customer(connection, event)
        return _once(connection, event, Outcome.CURRENT)
    return Outcome.IGNORED  # not remembered: whatever sends many of them costs no room


def _invoice(connection: Connection, gateway: Finals, event: Event) -> Outcome:
    theirs = gateway.read_final(event.object)
    if theirs is None or theirs.ledger != ledger_of(connection)[0]:
        return Outcome.IGNORED
    ours = rows(connection, "find_here", {"invoices": [theirs.invoice]})
    if not ours or ours[0]["stripe_invoice"] not in (None, theirs.id):
        _log.warning("Stripe's %s says that it is our invoice %s, and is not", theirs.id, theirs.invoice)
        return Outcome.IGNORED
    with connection.transaction():
        if _once(connection, event, Outcome.APPLIED) is Outcome.DUPLICATE:
            return Outcome.DUPLICATE
        brought = bring(connection, theirs.invoice, theirs.status)
        if brought is Brought.EARLY:
            raise TryAgainError(
                "delivery_in_progress", f"invoice {theirs.invoice} is {theirs.status} there, and delivery goes on"
            )
    return Outcome.APPLIED if brought is Brought.CHANGED else Outcome.CURRENT


def _once(connection: Connection, event: Event, outcome: Outcome) -> Outcome:
    """Remember an event and forget old ones; it is a duplicate when another delivery of it was first."""
    if not rows(connection, "add_stripe_event", {"event": event.id, "type": event.type}):
        return Outcome.DUPLICATE
    connection.execute(query("forget_stripe_events"), {"days": KEEP_DAYS, "limit": _FORGET_AT_ONCE})
    return outcome


def _warn_of_customer(connection: Connection, event: Event) -> None:
    for row in rows(connection, "customers_at_stripe", {"customer": event.object}):
        _log.warning(
            "customer %s was deleted at Stripe (%s): its invoices can't be sent; name another one in the catalog",
            row["id"],
            event.object,
        )


def _unreadable() -> TaximeterError:
    return TaximeterError("stripe_event_invalid", "expected an event of Stripe's as a JSON object with id, type, data")
