"""Credit notes: issued at once, as Stripe has no draft ones, and voided."""

from decimal import Decimal
from typing import Any, Final

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.base import Table, change, found, new_id, page, required, settable
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.invoices import Invoices
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

_AFTER_PAYMENT: Final = ("credit_amount", "refund_amount", "out_of_band_amount")


class CreditNotes(Invoices):
    """Credit notes by their invoice.

    A note first takes from what remains to be paid of its invoice; what is over is credited, refunded or paid
    otherwise, and the call must say which (https://docs.stripe.com/api/credit_notes/create).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.credit_notes = Table("invoice")

    def create_credit_note(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/credit_notes."""
        invoice = found(self.invoices, "invoice", required(params, "invoice"), "invoice")
        if invoice["status"] not in ("open", "paid", "uncollectible"):
            text = f"Credit notes can only be created for finalized invoices. This invoice is {invoice['status']}."
            raise ApiError(400, text, param="invoice")
        note = shapes.credit_note(new_id("cn"), invoice, self._now())
        note.update(settable({name: params[name] for name in params if name not in ("lines", "refunds")}, note))
        lines = self._lines_of_note(invoice, params)
        total = sum(line["amount"] for line in lines) if lines else int(params["amount"])
        before_payment = min(total, invoice["amount_remaining"])
        self._check_note(invoice, params, total, before_payment)
        note["lines"] = shapes.list_of(lines, f"/v1/credit_notes/{note['id']}/lines")
        note.update(amount=total, total=total, subtotal=total, total_excluding_tax=total, subtotal_excluding_tax=total)
        note.update(pre_payment_amount=before_payment, post_payment_amount=total - before_payment)
        note["type"] = "pre_payment" if before_payment == total else "mixed" if before_payment else "post_payment"
        note["number"] = f"{invoice['number']}-CN-{len(self.credit_notes.having(invoice['id'])) + 1:02d}"
        self.credit_notes[note["id"]] = note
        self._give_back(note, params)
        self.emit("credit_note.created", note)
        self._reduce(invoice, note)
        return note

    def retrieve_credit_note(self, note_id: str, _params: Params) -> Resource:
        """Answer GET /v1/credit_notes/{id}."""
        return found(self.credit_notes, "credit note", note_id)

    def list_credit_notes(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/credit_notes."""
        return page(self.credit_notes.select(params, ("invoice", "customer")), params, "/v1/credit_notes")

    def list_credit_note_lines(self, note_id: str, params: Params) -> Resource:
        """Answer GET /v1/credit_notes/{id}/lines."""
        note = found(self.credit_notes, "credit note", note_id)
        return page(note["lines"]["data"], params, note["lines"]["url"])

    def update_credit_note(self, note_id: str, params: Params) -> Resource:
        """Answer POST /v1/credit_notes/{id}: memo and metadata."""
        note = found(self.credit_notes, "credit note", note_id)
        self.emit("credit_note.updated", note, change(note, params))
        return note

    def void_credit_note(self, note_id: str, _params: Params) -> Resource:
        """Answer POST /v1/credit_notes/{id}/void: only while its invoice is open; what it took is due again."""
        note = found(self.credit_notes, "credit note", note_id)
        invoice = self.invoices[note["invoice"]]
        if note["status"] != "issued" or invoice["status"] != "open":
            text = (
                f"You can only void an issued credit note of an open invoice. The credit note is {note['status']}, "
                f"its invoice is {invoice['status']}."
            )
            raise ApiError(400, text)
        note.update(status="void", voided_at=self._now())
        invoice["pre_payment_credit_notes_amount"] -= note["pre_payment_amount"]
        invoice["amount_due"] += note["pre_payment_amount"]
        invoice["amount_remaining"] += note["pre_payment_amount"]
        self.emit("credit_note.voided", note)
        return note

    def _lines_of_note(self, invoice: Resource, params: Params) -> list[Resource]:
        """Return the note's lines: none when it has an `amount` of its own."""
        if ("amount" in params) == ("lines" in params):
            raise ApiError(400, "You must provide exactly one of: amount, lines.", param="amount")
        of_invoice = {f"il_{item['id'][3:]}": item for item in self.items.having(invoice["id"])}
        lines = []
        for number, given in enumerate(params.get("lines", ())):
            line = shapes.credit_note_line(new_id("cnli"), livemode=self.livemode)
            line.update(settable(given, line))
            if given["type"] == "invoice_line_item":
                item = found(of_invoice, "invoice line item", given.get("invoice_line_item", ""), f"lines[{number}]")
                line["invoice_line_item"] = given["invoice_line_item"]
                line["description"] = item["description"]
                line["amount"] = given.get("amount", item["amount"])
            else:
                unit = Decimal(given.get("unit_amount_decimal", given.get("unit_amount", 0)))
                line.update(amount=int(unit * line["quantity"]), unit_amount_decimal=str(unit))
            lines.append(line)
        return lines

    def _check_note(self, invoice: Resource, params: Params, total: int, before_payment: int) -> None:
        issued = [note for note in self.credit_notes.having(invoice["id"]) if note["status"] == "issued"]
        left = invoice["total"] - sum(note["amount"] for note in issued)
        if not 0 < total <= left:
            text = f"The credit note's amount must be greater than 0 and at most {left}, what is left of its invoice."
            raise ApiError(400, text, param="amount")
        given = sum(params.get(name, 0) for name in _AFTER_PAYMENT)
        if given != total - before_payment:
            text = (
                "The sum of credit amount, refund amount and out of band amount must equal the post payment amount, "
                f"{total - before_payment}; you passed {given}."
            )
            raise ApiError(400, text)
        if params.get("refund_amount", 0) > invoice["amount_paid"]:
            raise ApiError(400, "The refund is more than was paid.", param="refund_amount")

    def _give_back(self, note: Resource, params: Params) -> None:
        """Credit the customer's balance and refund, as the call says."""
        if params.get("credit_amount"):
            self.customers[note["customer"]]["balance"] -= params["credit_amount"]
            note["customer_balance_transaction"] = new_id("cbtxn")
        if params.get("refund_amount"):
            refund = {"amount_refunded": params["refund_amount"], "refund": new_id("re"), "type": "refund"}
            note["refunds"] = [{**refund, "payment_record_refund": None}]

    def _reduce(self, invoice: Resource, note: Resource) -> None:
        """Take a note from its invoice, which is paid when nothing remains."""
        invoice["pre_payment_credit_notes_amount"] += note["pre_payment_amount"]
        invoice["post_payment_credit_notes_amount"] += note["post_payment_amount"]
        invoice["amount_due"] -= note["pre_payment_amount"]
        invoice["amount_remaining"] -= note["pre_payment_amount"]
        self.emit("invoice.updated", invoice)
        if invoice["status"] != "paid" and invoice["amount_remaining"] == 0:
            self._settle(invoice, "paid")
