"""Invoices, lines and what is billed so far, in Postgres."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.types.json import Jsonb

from flusher.catalog.model import PlanVersion
from flusher.invoicing.adjust import Billed
from flusher.invoicing.invoice import Delivery, Invoice, InvoiceLine, Kind, Point, Status
from flusher.invoicing.settle import Clock, Producer
from flusher.pricing.line import dimensions_of
from flusher.pricing.period import Period
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]


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


def insert_invoice(connection: Connection, invoice: Invoice) -> bool:
    """Store an invoice with its lines; False, and nothing stored, when the same one is stored already."""
    values = {
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
        "closed_without": list(invoice.closed_without),
    }
    if not rows(connection, "insert_invoice", values):
        return False
    with connection.cursor() as cursor:
        lines = [_line_values(invoice.id, place, line) for place, line in enumerate(invoice.lines)]
        cursor.executemany(query("insert_invoice_line"), lines)
    return True


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


def list_billed(connection: Connection, subscription: str) -> list[tuple[Billed, str, int]]:
    """Return what was billed so far, each with the plan and the version that it was billed under."""
    found = []
    for row in rows(connection, "list_billed", {"subscription": subscription}):
        period = Period(_utc(row["period_start"]), _utc(row["period_end"]))
        billed = Billed(period, row["price"], row["meter"], row["quantity"], row["events"], row["amount"])
        found.append((billed, row["plan"], row["plan_version"]))
    return found


def record_billed(connection: Connection, invoice: Invoice, version: PlanVersion, entries: Iterable[Billed]) -> None:
    """Store what is billed so far, in the transaction that read the usage (rule 16)."""
    values = [
        {
            "subscription": invoice.subscription,
            "period_start": entry.period.start,
            "period_end": entry.period.end,
            "price": entry.price,
            "meter": entry.meter,
            "plan": version.plan.name,
            "plan_version": version.version,
            "quantity": entry.quantity,
            "events": entry.events,
            "amount": entry.amount,
            "invoice": invoice.id,
        }
        for entry in entries
    ]
    with connection.cursor() as cursor:
        cursor.executemany(query("upsert_billed"), values)


def hold(connection: Connection, invoice: str, delivery: Delivery, reason: str, detail: str) -> None:
    """Park an invoice (`delivery` parked) or say why it waits (pending)."""
    values = {"invoice": invoice, "delivery": delivery.value, "reason": reason[:64], "detail": detail[:2000]}
    connection.execute(query("hold_invoice"), values)


def _line_values(invoice: str, place: int, line: InvoiceLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "invoice": invoice,
        "place": place,
        "kind": line.kind,
        "price": line.price,
        "meter": line.meter,
        "dimensions": None if line.dimensions is None else Jsonb(dict(line.dimensions)),
        "tier": line.tier,
        "period_start": line.period.start,
        "period_end": line.period.end,
        "description": line.description,
        "quantity": line.quantity,
        "unit_price": line.unit_price,
        "amount": line.amount,
    }


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
