"""Prepaid credits in Postgres: grants, and what invoices drew from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.credits import Draw, Grant, GrantKind
from flusher.invoicing.store import rows
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

Key = tuple[str, str]
"""A customer and a currency: what credit can pay is theirs alone."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an invoice drew from a grant."""

    invoice: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Standing:
    """A grant, what was drawn from it, oldest first, and what was taken back of it (`voided`), when and why."""

    grant: Grant
    draws: tuple[Drawn, ...]
    voided: Decimal
    voided_at: datetime | None
    void_reason: str | None


def grant(connection: Connection, grants: Sequence[Grant]) -> frozenset[str]:
    """Store grants and return the ids of those that are new: what is there under its id stays as it is."""
    if not grants:
        return frozenset()
    values = {
        "ids": [found.id for found in grants],
        "customers": [found.customer for found in grants],
        "currencies": [found.currency for found in grants],
        "names": [found.name for found in grants],
        "kinds": [found.kind.value for found in grants],
        "amounts": [found.amount for found in grants],
        "priorities": [found.priority for found in grants],
        "cost_bases": [found.cost_basis for found in grants],
        "effective": [found.effective_at for found in grants],
        "expires": [found.expires_at for found in grants],
        "granted": [found.granted_at for found in grants],
    }
    return frozenset(row["id"] for row in rows(connection, "add_grants", values))


def lock_grants(connection: Connection, keys: Iterable[Key]) -> dict[Key, list[Grant]]:
    """Return the grants that have something left, by customer and currency, locked until the transaction ends.

    Two runs never draw one unit twice: the second waits here, and sees what the first has left. Every key has an
    entry. To be called once in a transaction, so that everybody locks in one order.
    """
    found: dict[Key, list[Grant]] = {key: [] for key in keys}
    if not found:
        return found
    values = {"customers": [customer for customer, _ in found], "currencies": [code for _, code in found]}
    for row in rows(connection, "lock_grants", values):
        found[row["customer"], row["currency"]].append(_grant(row))
    return found


def record_draws(connection: Connection, draws: Mapping[str, Sequence[Draw]]) -> None:
    """Store what stored invoices draw, by their ids, and take it off the grants, which the transaction has locked."""
    taken = [(invoice, *found) for invoice, several in draws.items() for found in several]
    if not taken:
        return
    values = {
        "invoices": [invoice for invoice, _, _ in taken],
        "grants": [grant_id for _, grant_id, _ in taken],
        "amounts": [amount for _, _, amount in taken],
    }
    connection.execute(query("record_draws"), values)


def page_customers(connection: Connection, *, limit: int, after: str | None = None) -> list[str]:
    """Return customers with grants in the order of their ids, `limit` at most, those after `after`."""
    return [row["customer"] for row in rows(connection, "page_credit_customers", {"limit": limit, "after": after})]


def list_standings(
    connection: Connection, customers: Iterable[str] = (), grant_ids: Iterable[str] = ()
) -> list[Standing]:
    """Return the grants of customers, and grants by id, with what was drawn from them, in the order of drawing."""
    found = rows(connection, "list_grants", {"customers": list(customers), "grants": list(grant_ids)})
    draws: dict[str, list[Drawn]] = {}
    for row in rows(connection, "list_draws", {"grants": [row["id"] for row in found]}):
        draws.setdefault(row["grant_id"], []).append(Drawn(row["invoice"], row["amount"]))
    return [
        Standing(
            grant=_grant(row),
            draws=tuple(draws.get(row["id"], ())),
            voided=row["voided"],
            voided_at=None if row["voided_at"] is None else row["voided_at"].astimezone(UTC),
            void_reason=row["void_reason"],
        )
        for row in found
    ]


def void_grant(connection: Connection, grant_id: str, reason: str) -> Decimal:
    """Take back what is left of a grant and return how much that was; what was drawn stays drawn.

    Raises TaximeterError: grant_unknown, already_decided.
    """
    done = rows(connection, "void_grant", {"grant": grant_id, "reason": reason})
    if done:
        taken: Decimal = done[0]["voided"]
        return taken
    if not rows(connection, "list_grants", {"customers": [], "grants": [grant_id]}):
        raise TaximeterError("grant_unknown", f"no grant {grant_id!r}; `taximeter credits` lists them")
    raise TaximeterError("already_decided", f"grant {grant_id} is void already; nothing was changed")


def _grant(row: DictRow) -> Grant:
    return Grant(
        id=row["id"],
        customer=row["customer"],
        currency=row["currency"],
        name=row["name"],
        kind=GrantKind(row["kind"]),
        amount=row["amount"],
        remaining=row["remaining"],
        priority=row["priority"],
        effective_at=row["effective_at"].astimezone(UTC),
        granted_at=row["granted_at"].astimezone(UTC),
        expires_at=None if row["expires_at"] is None else row["expires_at"].astimezone(UTC),
        cost_basis=row["cost_basis"],
    )
