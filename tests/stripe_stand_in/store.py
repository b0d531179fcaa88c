"""The state of one account and mode: customers, invoice items and invoices, with the rules that Stripe holds."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.errors import ApiError, missing
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

ITEMS_MAX = 250
_PAGE_DEFAULT = 10
_PAGE_MAX = 100


class Store:
    """What one Stripe account holds in one mode. Every method is one API call."""

    def __init__(self, account: str, *, livemode: bool, now: Callable[[], int]) -> None:
        self.account = account
        self.livemode = livemode
        self._now = now
        self.customers: dict[str, Resource] = {}
        self.items: dict[str, Resource] = {}
        self.invoices: dict[str, Resource] = {}

    def retrieve_account(self, _id: str, _params: Params) -> Resource:
        """Answer GET /v1/account."""
        return shapes.account(self.account)

    def create_customer(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/customers."""
        return self.add_customer(_new_id("cus"), **params)

    def add_customer(self, customer_id: str, **fields: Any) -> Resource:
        """Put a customer with a known id, as if it had been made long ago."""
        customer = shapes.customer(customer_id, self._now(), livemode=self.livemode)
        customer.update(_settable(fields, customer))
        self.customers[customer_id] = customer
        return customer

    def retrieve_customer(self, customer_id: str, _params: Params) -> Resource:
        """Answer GET /v1/customers/{id}."""
        return _found(self.customers, "customer", customer_id)

    def list_customers(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/customers."""
        chosen = [row for row in self.customers.values() if _matches(row, params, ("email",))]
        return _page(chosen, params, "/v1/customers")

    def create_item(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/invoiceitems. Raises ApiError for an unknown customer, a closed or a full invoice."""
        customer = self._customer_of(params)
        item = shapes.invoice_item(_new_id("ii"), self._now(), livemode=self.livemode)
        if "amount" not in params:
            raise ApiError(400, "Missing required param: amount.", code="parameter_missing", param="amount")
        item.update(_settable(params, item), customer=customer["id"], net_amount=params["amount"])
        item["pricing"] = {"type": "price_details", "unit_amount_decimal": str(params["amount"])}
        item["currency"] = params.get("currency", customer["currency"] or "usd")
        if item["period"]["end"] < item["period"]["start"]:
            raise ApiError(400, "The period's end must not be before its start", param="period[end]")
        if item["invoice"] is not None:
            self._attach(item, _found(self.invoices, "invoice", item["invoice"], param="invoice"))
        self.items[item["id"]] = item
        return item

    def retrieve_item(self, item_id: str, _params: Params) -> Resource:
        """Answer GET /v1/invoiceitems/{id}."""
        return _found(self.items, "invoiceitem", item_id)

    def list_items(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/invoiceitems."""
        chosen = [row for row in self.items.values() if _matches(row, params, ("customer", "invoice"))]
        return _page(chosen, params, "/v1/invoiceitems")

    def create_invoice(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices. A customer's coupon is inherited unless `discounts` is given, as at Stripe."""
        customer = self._customer_of(params)
        invoice = shapes.invoice(_new_id("in"), customer, self._now())
        invoice.update(_settable(params, invoice))
        invoice["currency"] = params.get("currency", customer["currency"] or "usd")
        if "discounts" not in params and customer["discount"] is not None:
            invoice["discounts"] = [customer["discount"]["id"]]
        elif not params.get("discounts"):
            invoice["discounts"] = []
        if params.get("collection_method") == "send_invoice" and not {"days_until_due", "due_date"} & set(params):
            raise ApiError(400, "days_until_due or due_date is required", param="days_until_due")
        self.invoices[invoice["id"]] = invoice
        if params.get("pending_invoice_items_behavior") == "include":
            for item in self.items.values():
                if item["customer"] == customer["id"] and item["invoice"] is None:
                    self._attach(item, invoice)
        self._total(invoice)
        return invoice

    def add_lines(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/add_lines."""
        invoice = _found(self.invoices, "invoice", invoice_id)
        _require_draft(invoice)
        if len(self._items_of(invoice)) + len(params["lines"]) > ITEMS_MAX:
            raise _too_many_items()
        for line in params["lines"]:
            given = {"customer": invoice["customer"], "currency": invoice["currency"], "invoice": invoice_id}
            self.create_item("", {**line, **given})
        return invoice

    def retrieve_invoice(self, invoice_id: str, _params: Params) -> Resource:
        """Answer GET /v1/invoices/{id}."""
        return _found(self.invoices, "invoice", invoice_id)

    def list_invoices(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/invoices."""
        filters = ("customer", "status", "collection_method")
        chosen = [row for row in self.invoices.values() if _matches(row, params, filters)]
        return _page(chosen, params, "/v1/invoices")

    def list_lines(self, invoice_id: str, params: Params) -> Resource:
        """Answer GET /v1/invoices/{id}/lines."""
        invoice = _found(self.invoices, "invoice", invoice_id)
        return _page(self._lines_of(invoice), params, f"/v1/invoices/{invoice_id}/lines")

    def update_invoice(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}: only metadata once it is finalized."""
        invoice = _found(self.invoices, "invoice", invoice_id)
        if set(params) - {"metadata", "expand"}:
            _require_draft(invoice)
        metadata = {**invoice["metadata"], **(params.pop("metadata", None) or {})}
        invoice.update(_settable(params, invoice), metadata=metadata)
        return invoice

    def delete_invoice(self, invoice_id: str, _params: Params) -> Resource:
        """Answer DELETE /v1/invoices/{id}: drafts only."""
        _require_draft(_found(self.invoices, "invoice", invoice_id))
        del self.invoices[invoice_id]
        self.items = {key: item for key, item in self.items.items() if item["invoice"] != invoice_id}
        return {"id": invoice_id, "object": "invoice", "deleted": True}

    def finalize(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/finalize: a draft becomes open, or paid when nothing is due."""
        invoice = _found(self.invoices, "invoice", invoice_id)
        if invoice["status"] != "draft":
            text = "This invoice is already finalized, you can't re-finalize a non-draft invoice."
            raise ApiError(400, text, code="invoice_not_editable")
        customer = self.customers[invoice["customer"]]
        now = self._now()
        invoice["auto_advance"] = params.get("auto_advance", invoice["auto_advance"])
        invoice["status"] = "open" if invoice["amount_due"] else "paid"
        invoice["status_transitions"]["finalized_at"] = now
        invoice["effective_at"] = now
        invoice["number"] = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
        customer["next_invoice_sequence"] += 1
        if invoice["status"] == "paid":
            invoice["status_transitions"]["paid_at"] = now
            customer["balance"] += min(0, invoice["total"])
        return invoice

    def void(self, invoice_id: str, _params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/void: open or uncollectible invoices only."""
        invoice = _found(self.invoices, "invoice", invoice_id)
        if invoice["status"] not in ("open", "uncollectible"):
            text = f"You can only pass in open or uncollectible invoices. This invoice isn't: {invoice['status']}."
            raise ApiError(400, text)
        invoice["status"] = "void"
        invoice["status_transitions"]["voided_at"] = self._now()
        return invoice

    def _customer_of(self, params: Params) -> Resource:
        if "customer" not in params:
            raise ApiError(400, "Missing required param: customer.", code="parameter_missing", param="customer")
        return _found(self.customers, "customer", params["customer"], param="customer")

    def _attach(self, item: Resource, invoice: Resource) -> None:
        _require_draft(invoice)
        if item["customer"] != invoice["customer"]:
            raise ApiError(400, "The invoice belongs to another customer", param="invoice")
        if item["currency"] != invoice["currency"]:
            text = f"The currency {item['currency']} does not match the invoice's currency {invoice['currency']}."
            raise ApiError(400, text, param="currency")
        if len(self._items_of(invoice)) >= ITEMS_MAX:
            raise _too_many_items()
        item["invoice"] = invoice["id"]
        self.items[item["id"]] = item
        self._total(invoice)

    def _items_of(self, invoice: Resource) -> list[Resource]:
        return [item for item in self.items.values() if item["invoice"] == invoice["id"]]

    def _lines_of(self, invoice: Resource) -> list[Resource]:
        return [shapes.line_item(f"il_{item['id'][3:]}", item) for item in self._items_of(invoice)]

    def _total(self, invoice: Resource) -> None:
        lines = self._lines_of(invoice)
        subtotal = sum(line["amount"] for line in lines)
        discounted = sum(line["amount"] for line in lines if line["discountable"]) if invoice["discounts"] else 0
        total = subtotal - discounted // 10  # every coupon here takes a tenth off
        due = max(0, total)
        invoice.update(subtotal=subtotal, subtotal_excluding_tax=subtotal, total=total, total_excluding_tax=total)
        invoice.update(amount_due=due, amount_remaining=due)
        url = f"/v1/invoices/{invoice['id']}/lines"
        invoice["lines"] = shapes.list_of(lines[:_PAGE_DEFAULT], url, has_more=len(lines) > _PAGE_DEFAULT)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(8)}"


def _found(table: dict[str, Resource], kind: str, object_id: str, param: str | None = None) -> Resource:
    if object_id not in table:
        raise missing(kind, object_id, param or "id", 400 if param else 404)
    return table[object_id]


def _settable(params: Params, resource: Resource) -> Resource:
    return {name: value for name, value in params.items() if name in resource and value != ""}


def _require_draft(invoice: Resource) -> None:
    if invoice["status"] != "draft":
        text = "This invoice is no longer editable because it is not a draft."
        raise ApiError(400, text, code="invoice_not_editable")


def _too_many_items() -> ApiError:
    return ApiError(400, f"An invoice can have at most {ITEMS_MAX} items.", param="invoice")


def _matches(row: Resource, params: Params, names: Iterable[str]) -> bool:
    created: int | dict[str, int] = params.get("created", {})
    if isinstance(created, int):
        created = {"gte": created, "lte": created}
    at: int = row["created" if "created" in row else "date"]
    in_time = created.get("gte", at) <= at <= created.get("lte", at) and created.get("gt", at - 1) < at < created.get(
        "lt", at + 1
    )
    return in_time and all(row[name] == params[name] for name in names if name in params)


def _page(rows: list[Resource], params: Params, url: str) -> Resource:
    """Newest first, as Stripe lists; lines of an invoice keep their order."""
    limit = params.get("limit", _PAGE_DEFAULT)
    if not 1 <= limit <= _PAGE_MAX:
        raise ApiError(400, f"This value must be between 1 and {_PAGE_MAX}.", param="limit")
    ordered = rows if url.endswith("/lines") else rows[::-1]
    start = 0
    if "starting_after" in params:
        ids = [row["id"] for row in ordered]
        if params["starting_after"] not in ids:
            raise missing("object", params["starting_after"], "starting_after", 400)
        start = ids.index(params["starting_after"]) + 1
    return shapes.list_of(ordered[start : start + limit], url, has_more=start + limit < len(ordered))
