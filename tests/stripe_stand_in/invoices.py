"""Invoices: drafts, and the states that follow."""

from typing import Final

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.base import change, found, new_id, page, settable
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.items import Items, require_draft
from tests.stripe_stand_in.money import MINIMUMS, check_amount, too_small
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

DAY_S: Final = 24 * 3600
_FILTERS: Final = ("customer", "status", "collection_method")
_FREE_AFTER_DRAFT: Final = {"metadata", "expand", "auto_advance"}


class Invoices(Items):
    """Invoices with the rules that Stripe holds from draft to paid, void or uncollectible."""

    def create_invoice(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices. A customer's coupon is inherited unless `discounts` is given, as at Stripe."""
        currency = str(params.get("currency", "")).lower()
        customer = self._customer_of(params, currency)
        invoice = shapes.invoice(new_id("in"), customer, self._now())
        tax = {**invoice["automatic_tax"], **params.get("automatic_tax", {})}
        invoice.update(settable(params, invoice), automatic_tax=tax)
        invoice["currency"] = currency or customer["currency"] or "usd"
        check_amount(0, invoice["currency"])
        if "discounts" not in params and customer["discount"] is not None:
            invoice["discounts"] = [customer["discount"]["id"]]
        elif not params.get("discounts"):
            invoice["discounts"] = []
        _check_collection(params)
        pending = [item for item in self.items.having(None) if item["customer"] == customer["id"]]
        if params.get("pending_invoice_items_behavior") == "include":
            self._check_fits(invoice, pending)
        else:
            pending = []
        if "days_until_due" in params:
            invoice["due_date"] = invoice["created"] + params["days_until_due"] * DAY_S
        self.invoices[invoice["id"]] = invoice
        self._attach(invoice, pending)
        self.emit("invoice.created", invoice)
        return invoice

    def retrieve_invoice(self, invoice_id: str, _params: Params) -> Resource:
        """Answer GET /v1/invoices/{id}."""
        return found(self.invoices, "invoice", invoice_id)

    def list_invoices(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/invoices."""
        return page(self.invoices.select(params, _FILTERS), params, "/v1/invoices")

    def update_invoice(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}: little can be changed once it is finalized."""
        invoice = found(self.invoices, "invoice", invoice_id)
        if set(params) - _FREE_AFTER_DRAFT:
            require_draft(invoice)
        before = change(invoice, params)
        if invoice["status"] == "draft":
            self._total(invoice)
        self.emit("invoice.updated", invoice, before)
        return invoice

    def delete_invoice(self, invoice_id: str, _params: Params) -> Resource:
        """Answer DELETE /v1/invoices/{id}: drafts only, with their items."""
        invoice = found(self.invoices, "invoice", invoice_id)
        require_draft(invoice)
        del self.invoices[invoice_id]
        for item in self.items.having(invoice_id):
            del self.items[item["id"]]
        self.emit("invoice.deleted", invoice)
        return shapes.deleted(invoice)

    def finalize(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/finalize: a draft becomes open, or paid when nothing is left to collect.

        The customer's balance is applied. What is due and less than can be charged is put on that balance instead
        when Stripe collects by itself.
        """
        invoice = found(self.invoices, "invoice", invoice_id)
        if invoice["status"] != "draft":
            text = "This invoice is already finalized, you can't re-finalize a non-draft invoice."
            raise ApiError(400, text, code="invoice_not_editable")
        customer = self._live_customer(invoice["customer"], "customer")
        if invoice["automatic_tax"]["enabled"]:
            _check_tax_location(customer)
            invoice["automatic_tax"]["status"] = "complete"
        self._total(invoice)
        now = self._now()
        invoice["auto_advance"] = params.get("auto_advance", invoice["auto_advance"])
        invoice["starting_balance"] = customer["balance"]
        due = invoice["total"] + customer["balance"]
        automatic = invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically"
        carried = due <= 0 or (automatic and too_small(due, invoice["currency"]))
        customer["balance"] = invoice["ending_balance"] = due if carried else 0
        invoice["amount_due"] = invoice["amount_remaining"] = 0 if carried else due
        invoice["status"] = "open"
        invoice["status_transitions"]["finalized_at"] = invoice["effective_at"] = now
        invoice["number"] = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
        customer["next_invoice_sequence"] += 1
        self.emit("invoice.finalized", invoice)
        if carried:
            self._settle(invoice, "paid")
        return invoice

    def void(self, invoice_id: str, _params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/void: open or uncollectible invoices only; gives back an applied balance."""
        invoice = self._in_state(invoice_id, "open", "uncollectible")
        applied = invoice["starting_balance"] - invoice["ending_balance"]
        self.customers[invoice["customer"]]["balance"] += applied
        return self._settle(invoice, "void")

    def mark_uncollectible(self, invoice_id: str, _params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/mark_uncollectible: open invoices only."""
        return self._settle(self._in_state(invoice_id, "open"), "uncollectible")

    def pay(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/pay: by the customer's card, or `paid_out_of_band`."""
        invoice = found(self.invoices, "invoice", invoice_id)
        if invoice["status"] == "paid":
            raise ApiError(400, "Invoice is already paid", code="invoice_already_paid")
        self._in_state(invoice_id, "open", "uncollectible")
        if not params.get("paid_out_of_band"):
            self._charge(invoice)
        invoice.update(amount_paid=invoice["amount_remaining"], amount_remaining=0)
        return self._settle(invoice, "paid")

    def collect(self) -> list[Resource]:
        """Do what Stripe does in its own time: charge what is open and advances by itself. Return what is paid now."""
        waiting = [
            invoice["id"]
            for invoice in self.invoices.values()
            if (invoice["status"], invoice["auto_advance"]) == ("open", True)
            and invoice["collection_method"] == "charge_automatically"
            and invoice["customer"] not in self.declining
        ]
        return [self.pay(invoice_id, {}) for invoice_id in waiting]

    def _charge(self, invoice: Resource) -> None:
        if too_small(invoice["amount_remaining"], invoice["currency"]):
            text = f"Amount must be at least {MINIMUMS[invoice['currency']]} of {invoice['currency']}'s smallest unit"
            raise ApiError(400, text, code="amount_too_small", param="amount")
        invoice.update(attempted=True, attempt_count=invoice["attempt_count"] + 1)
        if invoice["customer"] in self.declining:
            self.emit("invoice.payment_failed", invoice)
            raise ApiError(402, "Your card was declined.", kind="card_error", code="card_declined")

    def _in_state(self, invoice_id: str, *states: str) -> Resource:
        invoice = found(self.invoices, "invoice", invoice_id)
        if invoice["status"] not in states:
            text = f"You can only pass in {' or '.join(states)} invoices. This invoice isn't: {invoice['status']}."
            raise ApiError(400, text)
        return invoice

    def _settle(self, invoice: Resource, status: str) -> Resource:
        """Bring an invoice to a state, note when, and emit its event."""
        word = {"void": "voided", "uncollectible": "marked_uncollectible"}.get(status, status)
        invoice["status"] = status
        invoice["status_transitions"][f"{word}_at"] = self._now()
        self.emit(f"invoice.{word}", invoice)
        if status == "paid":
            self.emit("invoice.payment_succeeded", invoice)
        return invoice


def _check_collection(params: Params) -> None:
    sent = params.get("collection_method") == "send_invoice"
    when = {"days_until_due", "due_date"} & set(params)
    if sent and not when:
        raise ApiError(400, "days_until_due or due_date is required", param="days_until_due")
    if when and not sent:
        raise ApiError(400, f"You can only set {when.pop()} with collection_method send_invoice.", param="due_date")


def _check_tax_location(customer: Resource) -> None:
    if not (customer["address"] or {}).get("country"):
        text = "The customer's location isn't recognized. Set a valid customer address to compute tax automatically."
        raise ApiError(400, text, code="customer_tax_location_invalid", param="automatic_tax")
