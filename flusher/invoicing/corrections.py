"""What is done about a mistake in a final invoice: credit notes are issued, invoices are voided, here and at Stripe.

At Stripe as in a delivery: the key and the parameters of a call are committed before it (`once`), so a command that is
killed anywhere, or that two people give at once, does it once. What is not at Stripe is corrected here alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import psycopg
from psycopg.rows import DictRow, TupleRow

from flusher.invoicing.credit_notes import CreditNote, NoteStatus, PaidAs, check_final, load_note, move_note
from flusher.invoicing.finals import CREDIT_NOTE, Finals, RemoteFinal
from flusher.invoicing.gateway import RefusedError, Remote
from flusher.invoicing.intents import Intent, Step
from flusher.invoicing.invoice import Delivery, Invoice, Status
from flusher.invoicing.once import Call, perform
from flusher.invoicing.payload import INVOICE, LEDGER, Params
from flusher.invoicing.status import bring, lock_invoice, move
from flusher.invoicing.store import ledger_of, load_invoices, rows
from flusher.pricing.money import currency, to_stripe
from flusher.sql import query
from sidecar.contract.codes import TaximeterError, TryAgainError

Connection = psycopg.Connection[TupleRow]

_MEMO_MAX: Final = 500
_VOIDABLE: Final = frozenset({Status.OPEN, Status.UNCOLLECTIBLE})
_PAID_AS: Final = {
    PaidAs.BALANCE: "credit_amount",
    PaidAs.REFUND: "refund_amount",
    PaidAs.OUTSIDE: "out_of_band_amount",
}


@dataclass(frozen=True, slots=True)
class Corrector:
    """Corrects invoices. `connection` is in autocommit mode; without a `gateway` only what is not at Stripe."""

    connection: Connection
    gateway: Finals | None

    def confirm(self, note_id: str) -> CreditNote:
        """Issue a credit note and return it; one that is issued stays as it is.

        Raises TaximeterError: credit_note_unknown, already_decided, invoice_not_final, stripe_key_missing, and what the
        gateway raises. One that Stripe refuses is a draft again, with the reason.
        """
        with self._held(load_note(self.connection, note_id).invoice):
            note = load_note(self.connection, note_id)
            invoice = self._load(note.invoice)
            if note.status is NoteStatus.DISCARDED:
                raise TaximeterError("already_decided", f"credit note {note.id} is discarded; nothing was changed")
            if note.status is NoteStatus.ISSUED:
                return note
            if invoice.delivery is Delivery.SENT:
                self._issue(note, invoice)
            else:
                self._issue_here(note)
        return load_note(self.connection, note_id)

    def void(self, invoice_id: str, reason: str, *, rebill: bool = False) -> Invoice:
        """Void an open invoice and return it. With `rebill` the next run bills what it billed again.

        One that is void already may still be billed again. Raises TaximeterError: invoice_unknown, invoice_not_open,
        delivery_in_progress, stripe_key_missing, and what the gateway raises.
        """
        with self._held(invoice_id):
            with self.connection.transaction():
                found = lock_invoice(self.connection, invoice_id)
                (notes,) = rows(self.connection, "sum_credit_notes", {"invoice": invoice_id, "line": None})
                if notes["confirming"]:
                    text = f"a credit note of {invoice_id} may exist at Stripe: confirm it first"
                    raise TaximeterError("delivery_in_progress", text)
                status = Status(found["status"])
                if status not in _VOIDABLE and status is not Status.VOID:
                    text = (
                        f"invoice {invoice_id} is {status}: expected one that is open or uncollectible; what was paid"
                    )
                    raise TaximeterError("invoice_not_open", f"{text} is given back by `taximeter credit note`")
                self.connection.execute(query("add_invoice_void"), {"invoice": invoice_id, "reason": reason})
                if found["delivery"] != Delivery.SENT or status is Status.VOID:
                    self._end_void(found, rebill=rebill)
            if found["delivery"] == Delivery.SENT and status is not Status.VOID:
                self._void_there(found)
                with self.connection.transaction():
                    self._end_void(lock_invoice(self.connection, invoice_id), rebill=rebill)
        return self._load(invoice_id)

    def _issue_here(self, note: CreditNote) -> None:
        """Issue what is for an invoice that is not at Stripe: when nothing is left of it, it is paid."""
        with self.connection.transaction():
            found = lock_invoice(self.connection, note.invoice)
            check_final(self._load(note.invoice))
            move_note(self.connection, note.id, note.status, NoteStatus.ISSUED)
            (taken,) = rows(self.connection, "sum_credit_notes", {"invoice": note.invoice, "line": None})
            if taken["issued"] >= found["total"]:
                move(self.connection, found, Status.PAID)

    def _issue(self, note: CreditNote, invoice: Invoice) -> None:
        gateway, stripe_invoice = self._there(invoice.id, invoice.stripe_invoice)
        if note.status is NoteStatus.DRAFT:
            with self.connection.transaction():
                lock_invoice(self.connection, invoice.id)
                check_final(self._load(invoice.id))
                move_note(self.connection, note.id, NoteStatus.DRAFT, NoteStatus.CONFIRMING)
        ledger, _ = ledger_of(self.connection)
        call = Call(
            Step(invoice.id, "create_credit_note", note.id),
            params=partial(_note_params, gateway, note, stripe_invoice, ledger),
            send=gateway.create_credit_note,
            find=lambda _tried: gateway.find_credit_note(stripe_invoice, note.id),
        )
        try:
            made = perform(self.connection, ledger, call)
        except RefusedError as error:
            move_note(self.connection, note.id, NoteStatus.CONFIRMING, NoteStatus.DRAFT, problem=error.message)
            raise
        move_note(self.connection, note.id, NoteStatus.CONFIRMING, NoteStatus.ISSUED, made=made.id)
        self._refresh(gateway, invoice.id, stripe_invoice)  # one that is credited whole is paid

    def _void_there(self, found: DictRow) -> None:
        gateway, stripe_invoice = self._there(found["id"], found["stripe_invoice"])
        ledger, _ = ledger_of(self.connection)

        def find(_tried: Intent) -> Remote | None:
            theirs = gateway.read_final(stripe_invoice)
            return Remote(theirs.id) if theirs is not None and theirs.status is Status.VOID else None

        call = Call(
            Step(found["id"], "void_invoice"),
            params=lambda: {"invoice": stripe_invoice},
            send=gateway.void_invoice,
            find=find,
        )
        try:
            perform(self.connection, ledger, call)
        except RefusedError:
            self._refresh(gateway, found["id"], stripe_invoice)  # somebody paid it, or voided it there
            if self._load(found["id"]).status is not Status.VOID:
                raise

    def _end_void(self, found: DictRow, *, rebill: bool) -> None:
        """Store that an invoice that is held is void, and take what it billed out of `billed` if that is wanted."""
        invoice = found["id"]
        move(self.connection, found, Status.VOID)
        if not rebill:
            return
        subscription = found["subscription"]
        self.connection.execute(query("lock_subscription"), {"subscription": subscription})
        if not rows(self.connection, "note_rebilled", {"invoice": invoice}):
            return
        self.connection.execute(query("unbill"), {"invoice": invoice, "subscription": subscription})
        self.connection.execute(query("unbill_small_amounts"), {"invoice": invoice})
        why = f"invoice {invoice} was voided to be billed again"
        self.connection.execute(query("release_late"), {"subscription": subscription, "reason": why})

    def _refresh(self, gateway: Finals, invoice: str, stripe_invoice: str) -> None:
        theirs = gateway.read_final(stripe_invoice)
        if theirs is not None:
            bring(self.connection, invoice, theirs.status)

    def _there(self, invoice: str, stripe_invoice: str | None) -> tuple[Finals, str]:
        if self.gateway is None:
            text = f"invoice {invoice} is at Stripe: set STRIPE_API_KEY to correct it there as well"
            raise TaximeterError("stripe_key_missing", text)
        if stripe_invoice is None:
            raise TaximeterError("invariant_broken", f"invoice {invoice} was sent and has no id of Stripe's")
        return self.gateway, stripe_invoice

    @contextmanager
    def _held(self, invoice: str) -> Iterator[None]:
        """Hold an invoice's correction; it ends with the connection, so a killed one holds nothing."""
        try:
            self.connection.execute(query("lock_correction"), {"invoice": invoice})
        except psycopg.errors.LockNotAvailable as error:
            raise TryAgainError("delivery_in_progress", f"another command corrects invoice {invoice}") from error
        try:
            yield
        finally:
            if not self.connection.closed:
                self.connection.execute(query("unlock_correction"), {"invoice": invoice})

    def _load(self, invoice: str) -> Invoice:
        (found,) = load_invoices(self.connection, [invoice])
        return found


def _note_params(gateway: Finals, note: CreditNote, stripe_invoice: str, ledger: str) -> Params:
    """Return what is asked of Stripe: so much of the invoice, or of its line, and what becomes of what is paid already.

    What is due yet is reduced first; the rest has to be given back (Stripe wants their sum to be exact).
    """
    theirs = gateway.read_final(stripe_invoice)
    if theirs is None:
        raise RefusedError("stripe_refused", f"Stripe has no invoice {stripe_invoice}")
    amount = to_stripe(note.amount, currency(note.currency))
    params: Params = {
        "invoice": stripe_invoice,
        "memo": note.reason[:_MEMO_MAX],
        "metadata": {LEDGER: ledger, INVOICE: note.invoice, CREDIT_NOTE: note.id},
        **_what(gateway, note, theirs, amount),
    }
    if amount > theirs.remaining:
        params[_PAID_AS[note.paid_as]] = amount - theirs.remaining
    return params


def _what(gateway: Finals, note: CreditNote, theirs: RemoteFinal, amount: int) -> Params:
    """Return the line that is credited, where Stripe has it as a line of its own and adds no tax; else the amount."""
    line = None if note.line is None or theirs.total != theirs.sum else gateway.find_line(theirs.id, note.line)
    if line is None:
        return {"amount": amount}
    return {"lines": [{"type": "invoice_line_item", "invoice_line_item": line, "amount": amount}]}
