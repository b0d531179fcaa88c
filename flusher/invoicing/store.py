"""Invoices, lines and what is billed so far, in Postgres."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.types.json import Jsonb

from flusher.catalog.plan_reader import plan_table
from flusher.invoicing.bill import Draft
from flusher.invoicing.costs import Billed
from flusher.invoicing.invoice import Delivery, Invoice, InvoiceLine, Kind, Point, Status
from flusher.invoicing.settle import Clock, Producer
from flusher.invoicing.smallest import Small
from flusher.pricing.line import dimensions_of
from flusher.pricing.period import Period
from flusher.pricing.plan import Plan
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

_TERMS_CACHED: Final = 10_000


def rows(connection: Connection, name: str, values: Mapping[str, object] | None = None) -> list[DictRow]:
    """Return the rows of a named query, each by column name."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), values or {}).fetchall()


def ledger_of(connection: Connection) -> tuple[str, int]:
    """Return the ledger's id and its number of shards."""
    (row,) = rows(connection, "read_clock")
    return row["ledger"], row["shards"]


def read_clock(connection: Connection) -> Clock:
    """Return Postgres's clock and how far every unretired producer has come.

    To be read before the usage of the periods that it settles: watermarks only grow.
    """
    (row,) = rows(connection, "read_clock")
    producers = tuple(
        Producer(found["producer"], found["host"], None if found["watermark"] is None else _utc(found["watermark"]))
        for found in rows(connection, "list_live_producers")
    )
    return Clock(_utc(row["now"]), producers)


def insert_invoices(connection: Connection, drafts: Sequence[Draft]) -> None:
    """Store invoices with their lines, and what is then billed, in the transaction that read the usage (rule 16).

    Raises TaximeterError `invariant_broken` when one of them is there already: the subscription's lock is held.
    """
    if not drafts:
        return
    with connection.cursor() as cursor:
        cursor.executemany(query("insert_terms"), _terms_values(drafts))
        try:
            cursor.execute(query("insert_invoices"), _columns([_invoice_values(draft) for draft in drafts]))
        except psycopg.errors.UniqueViolation as error:
            why = f"an invoice exists already, although its subscription is locked: {error.diag.message_detail}"
            raise TaximeterError("invariant_broken", why) from error
        with cursor.copy(query("copy_invoice_lines")) as copy:
            for draft in drafts:
                for place, line in enumerate(draft.invoice.lines):
                    copy.write_row(_line_values(draft.invoice.id, place, line))
        billed = [_billed_values(draft.invoice, entry) for draft in drafts for entry in draft.billed]
        if billed:
            cursor.execute(query("upsert_billed"), _columns(billed))


def lock_small_amounts(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Small]]:
    """Return what is carried to customers' next invoices, by customer and currency, held until the transaction ends."""
    found: dict[tuple[str, str], list[Small]] = {}
    values = {"customers": [customer for customer, _ in keys], "currencies": [code for _, code in keys]}
    for row in rows(connection, "lock_small_amounts", values):
        small = Small(row["invoice"], row["customer"], row["currency"], row["amount"])
        found.setdefault((small.customer, small.currency), []).append(small)
    return found


def store_small_amounts(connection: Connection, drafts: Sequence[Draft]) -> None:
    """Store what new invoices carry to the next ones, and what they bill of what was carried."""
    carried = [draft.too_small for draft in drafts if draft.too_small is not None]
    if carried:
        values = {
            "invoices": [small.invoice for small in carried],
            "customers": [small.customer for small in carried],
            "currencies": [small.currency for small in carried],
            "amounts": [small.amount for small in carried],
        }
        connection.execute(query("add_small_amounts"), values)
    billed = [(small.invoice, draft.invoice.id) for draft in drafts for small in draft.small_billed]
    if billed:
        by = {"invoices": [invoice for invoice, _ in billed], "billed_by": [later for _, later in billed]}
        connection.execute(query("bill_small_amounts"), by)


def load_invoices(connection: Connection, ids: Sequence[str]) -> list[Invoice]:
    """Return invoices with their lines, in the order of the ids; unknown ids are left out."""
    lines: dict[str, list[InvoiceLine]] = {}
    for row in rows(connection, "find_invoice_lines", {"ids": list(ids)}):
        lines.setdefault(row["invoice"], []).append(_line(row))
    return [
        _invoice(row, tuple(lines.get(row["id"], ()))) for row in rows(connection, "find_invoices", {"ids": list(ids)})
    ]


def page_invoices(
    connection: Connection, *, limit: int, after: str | None = None, customer: str | None = None
) -> list[Invoice]:
    """Return the newest invoices, `limit` at most, those after the invoice `after` where it is given."""
    values = {"limit": limit, "after": after, "customer": customer}
    return load_invoices(connection, [row["id"] for row in rows(connection, "page_invoices", values)])


def undelivered(connection: Connection, *, at: datetime | None, customer: str | None) -> list[str]:
    """Return the ids of invoices on their way to Stripe or parked, of periods that end by `at` (None: now), oldest
    first."""
    return [row["id"] for row in rows(connection, "list_undelivered", {"at": at, "customer": customer})]


def hold(connection: Connection, invoice: str, delivery: Delivery, reason: str, detail: str) -> None:
    """Park an invoice (`delivery` parked) or say why it waits (pending)."""
    values = {"invoice": invoice, "delivery": delivery.value, "reason": reason[:64], "detail": detail[:2000]}
    connection.execute(query("hold_invoice"), values)


def _terms_values(drafts: Iterable[Draft]) -> list[dict[str, Any]]:
    found = {terms_id(draft.terms.plan): draft.terms.plan for draft in drafts}
    return [{"terms": name, "definition": Jsonb(plan_table(plan))} for name, plan in sorted(found.items())]


@lru_cache(_TERMS_CACHED)
def terms_id(plan: Plan) -> str:
    """Return the id of terms: a hash of what they say."""
    text = json.dumps(plan_table(plan), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _invoice_values(draft: Draft) -> dict[str, Any]:
    invoice = draft.invoice
    return {
        "id": invoice.id,
        "subscription": invoice.subscription,
        "kind": invoice.kind.value,
        "sequence": invoice.sequence,
        "customer": invoice.customer,
        "plan": invoice.plan,
        "plan_version": invoice.plan_version,
        "currency": invoice.currency,
        "period_start": invoice.period.start,
        "period_end": invoice.period.end,
        "total": invoice.total,
        "status": invoice.status.value,
        "delivery": invoice.delivery.value,
        "closed_without": Jsonb(list(invoice.closed_without)),
        "terms": terms_id(draft.terms.plan),
        "zone": draft.zone,
        "anchor": draft.terms.span.anchor,
    }


def _billed_values(invoice: Invoice, entry: Billed) -> dict[str, Any]:
    return {
        "subscription": invoice.subscription,
        "cost_of": entry.key.cost_of,
        "part": entry.key.part.value,
        "kind": entry.key.kind.value,
        "price": entry.key.name,
        "period_start": entry.key.start,
        "period_end": entry.end,
        "meter": entry.meter,
        "quantity": entry.quantity,
        "events": entry.events,
        "amount": entry.amount,
        "invoice": invoice.id,
    }


def _columns(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns."""
    return {name: [row[name] for row in values] for name in values[0]}


def _line_values(invoice: str, place: int, line: InvoiceLine) -> tuple[object, ...]:
    return (
        line.id,
        invoice,
        place,
        line.kind,
        line.price,
        line.meter,
        None if line.dimensions is None else Jsonb(dict(line.dimensions)),
        line.tier,
        line.period.start,
        line.period.end,
        line.description,
        line.quantity,
        line.unit_price,
        line.amount,
        line.working,
    )


def _line(row: DictRow) -> InvoiceLine:
    return InvoiceLine(
        id=row["id"],
        kind=row["kind"],
        price=row["price"],
        meter=row["meter"],
        dimensions=None if row["dimensions"] is None else dimensions_of(row["dimensions"]),
        tier=row["tier"],
        period=Period(_utc(row["period_start"]), _utc(row["period_end"])),
        description=row["description"],
        quantity=row["quantity"],
        unit_price=row["unit_price"],
        amount=row["amount"],
        working=row["working"],
    )


def _invoice(row: DictRow, lines: tuple[InvoiceLine, ...]) -> Invoice:
    return Invoice(
        id=row["id"],
        kind=Kind(row["kind"]),
        sequence=row["sequence"],
        customer=row["customer"],
        subscription=row["subscription"],
        plan=row["plan"],
        plan_version=row["plan_version"],
        currency=row["currency"],
        period=Period(_utc(row["period_start"]), _utc(row["period_end"])),
        status=Status(row["status"]),
        delivery=Delivery(row["delivery"]),
        point=Point(row["point"]),
        lines=lines,
        reason=row["reason"],
        detail=row["detail"],
        stripe_invoice=row["stripe_invoice"],
        closed_without=tuple(row["closed_without"]),
    )


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)
