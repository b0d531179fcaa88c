"""Credit notes: what is taken off a final invoice. A draft stays here until an operator confirms or discards it.

Drafts count like issued ones, so that no two of them can take off more than there is.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Final

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.invoice import Invoice, InvoiceLine, Status
from flusher.invoicing.status import lock_invoice
from flusher.invoicing.store import load_invoices, rows
from flusher.pricing.line import rfc3339
from flusher.pricing.money import EXACT, currency, format_amount, plain, round_amount
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

_FINAL: Final = frozenset({Status.OPEN, Status.PAID, Status.UNCOLLECTIBLE})


class NoteStatus(StrEnum):
    """How far a credit note has come."""

    DRAFT = "draft"
    CONFIRMING = "confirming"
    """It may exist at Stripe: confirm it again."""
    ISSUED = "issued"
    DISCARDED = "discarded"


class PaidAs(StrEnum):
    """What becomes of the part that the customer has paid already."""

    BALANCE = "balance"
    """Stripe takes it off the customer's next invoices."""
    REFUND = "refund"
    """Stripe sends it back."""
    OUTSIDE = "outside"
    """It is given back some other way."""


@dataclass(frozen=True, slots=True)
class CreditNote:
    """A credit note. `amount` is in major units of the invoice's currency, tax included where the invoice has any.

    `line` and `quantity` say what it is for, None for the invoice as a whole. `problem` is why Stripe refused it last.
    """

    id: str
    invoice: str
    customer: str
    currency: str
    line: str | None
    quantity: Decimal | None
    amount: Decimal
    reason: str
    paid_as: PaidAs
    status: NoteStatus
    problem: str | None
    stripe_credit_note: str | None
    made_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator wants to take off: an amount of the invoice, or a line, or so much of a line's quantity."""

    amount: Decimal | None = None
    line: str | None = None
    quantity: Decimal | None = None
    paid_as: PaidAs = PaidAs.BALANCE


def draft_note(connection: Connection, invoice_id: str, wanted: Wanted, reason: str) -> CreditNote:
    """Make a draft. `connection` is in autocommit mode.

    Raises TaximeterError: invoice_unknown, invoice_not_final, line_unknown, credit_too_large.
    """
    with connection.transaction():
        lock_invoice(connection, invoice_id)
        (invoice,) = load_invoices(connection, [invoice_id])
        check_final(invoice)
        line = None if wanted.line is None else _line(invoice, wanted.line)
        amount = _amount(invoice, line, wanted)
        (taken,) = rows(connection, "sum_credit_notes", {"invoice": invoice_id, "line": wanted.line})
        _check_left("the invoice", invoice, invoice.total, taken["of_invoice"], amount)
        if line is not None:
            _check_left(f"line {line.id}", invoice, line.amount, taken["of_line"], amount)
        note = f"note_{secrets.token_hex(12)}"
        values = {
            "id": note,
            "invoice": invoice_id,
            "line": wanted.line,
            "quantity": wanted.quantity,
            "amount": amount,
            "reason": reason,
            "paid_as": wanted.paid_as.value,
        }
        connection.execute(query("add_credit_note"), values)
    return load_note(connection, note)


def check_final(invoice: Invoice) -> None:
    """Raise TaximeterError `invoice_not_final` for an invoice from which nothing can be taken off."""
    if invoice.status not in _FINAL:
        raise TaximeterError(
            "invoice_not_final",
            f"invoice {invoice.id} is {invoice.status}: expected one that is open, paid or uncollectible",
        )


def load_note(connection: Connection, note: str) -> CreditNote:
    """Return a credit note. Raises TaximeterError `credit_note_unknown`."""
    for row in rows(connection, "find_credit_note", {"note": note}):
        return _note(row)
    raise TaximeterError("credit_note_unknown", f"no credit note {note!r}; `taximeter credit` lists them")


def page_notes(
    connection: Connection,
    *,
    limit: int,
    invoice: str | None = None,
    status: NoteStatus | None = None,
    after: str | None = None,
) -> list[CreditNote]:
    """Return the newest credit notes, those after the note `after` where it is given."""
    values = {"limit": limit, "invoice": invoice, "status": status and status.value, "after": after}
    return [_note(row) for row in rows(connection, "page_credit_notes", values)]


def discard_note(connection: Connection, note: str) -> CreditNote:
    """Discard a draft. Raises TaximeterError: credit_note_unknown, already_decided, delivery_in_progress."""
    if not move_note(connection, note, NoteStatus.DRAFT, NoteStatus.DISCARDED):
        found = load_note(connection, note)
        if found.status is NoteStatus.CONFIRMING:
            text = f"credit note {note} may exist at Stripe: confirm it again, which finds it or makes it"
            raise TaximeterError("delivery_in_progress", text)
        raise TaximeterError("already_decided", f"credit note {note} is {found.status}; nothing was changed")
    return load_note(connection, note)


def move_note(
    connection: Connection,
    note: str,
    now: NoteStatus,
    to: NoteStatus,
    *,
    problem: str | None = None,
    made: str | None = None,
) -> bool:
    """Move a credit note on; return whether it was where it was said to be."""
    told = problem and problem[:2000]
    values = {"note": note, "from": now.value, "to": to.value, "problem": told, "made": made}
    return bool(rows(connection, "move_credit_note", values))


def note_json(note: CreditNote) -> dict[str, object]:
    """Return a credit note as JSON."""
    return {
        "id": note.id,
        "invoice": note.invoice,
        "customer": note.customer,
        "currency": note.currency,
        "amount": format_amount(note.amount, currency(note.currency)),
        "line": note.line,
        "quantity": None if note.quantity is None else plain(note.quantity),
        "reason": note.reason,
        "paid_as": note.paid_as.value,
        "status": note.status.value,
        "problem": note.problem,
        "made_at": rfc3339(note.made_at),
        "decided_at": None if note.decided_at is None else rfc3339(note.decided_at),
        "stripe": None if note.stripe_credit_note is None else {"credit_note": note.stripe_credit_note},
    }


def _line(invoice: Invoice, line_id: str) -> InvoiceLine:
    for line in invoice.lines:
        if line.id == line_id:
            return line
    text = f"invoice {invoice.id} has no line {line_id!r}; `taximeter invoices {invoice.id} --json` lists them"
    raise TaximeterError("line_unknown", text)


def _amount(invoice: Invoice, line: InvoiceLine | None, wanted: Wanted) -> Decimal:
    """Return what is taken off: a part of a line by its share of the quantity, rounded like a line."""
    money = currency(invoice.currency)
    with localcontext(EXACT):
        if line is None:
            amount = wanted.amount or Decimal(0)
        elif wanted.quantity is None:
            amount = line.amount
        elif 0 < wanted.quantity <= line.quantity:
            numerator, denominator = line.quantity.as_integer_ratio()
            amount = round_amount(line.amount * wanted.quantity * denominator, money, divisor=numerator)
        else:
            text = f"--quantity: line {line.id} is of {plain(line.quantity)}, got {plain(wanted.quantity)}"
            raise TaximeterError("credit_too_large", text)
        if amount <= 0 or amount % money.step:
            shown = plain(amount)
            text = f"expected an amount above 0 in steps of {money.step} {invoice.currency.upper()}, got {shown}"
            raise TaximeterError("usage_invalid", text)
    return amount


def _check_left(of: str, invoice: Invoice, whole: Decimal, taken: Decimal, amount: Decimal) -> None:
    with localcontext(EXACT):
        left = whole - taken
    if amount > left:
        money = currency(invoice.currency)
        raise TaximeterError(
            "credit_too_large",
            f"{format_amount(max(left, Decimal(0)), money)} {invoice.currency.upper()} are left of {of}, "
            f"{format_amount(amount, money)} are more; see `taximeter credit --invoice {invoice.id}`",
        )


def _note(row: DictRow) -> CreditNote:
    return CreditNote(
        id=row["id"],
        invoice=row["invoice"],
        customer=row["customer"],
        currency=row["currency"],
        line=row["line"],
        quantity=row["quantity"],
        amount=row["amount"],
        reason=row["reason"],
        paid_as=PaidAs(row["paid_as"]),
        status=NoteStatus(row["status"]),
        problem=row["problem"],
        stripe_credit_note=row["stripe_credit_note"],
        made_at=row["made_at"].astimezone(UTC),
        decided_at=None if row["decided_at"] is None else row["decided_at"].astimezone(UTC),
    )
