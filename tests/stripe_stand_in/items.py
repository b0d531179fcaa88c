"""Invoice items, the lines that they become, and what an invoice's lines add up to."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.base import PAGE_DEFAULT, Table, found, new_id, page, required, settable
from tests.stripe_stand_in.customers import Customers
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.money import check_amount
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

ITEMS_MAX: Final = 250


class Items(Customers):
    """Invoice items, by the invoice that they are on, and invoices. `tax_percent` is what automatic tax adds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.items = Table("invoice")
        self.invoices = Table("customer")
        self.tax_percent = Decimal(0)

    def create_item(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/invoiceitems. Raises ApiError for an unknown customer, a closed or a full invoice."""
        item = self._new_item(params)
        if item["invoice"] is not None:
            invoice = found(self.invoices, "invoice", item["invoice"], "invoice")
            self._check_fits(invoice, [item])
            self._attach(invoice, [item])
        else:
            self.items[item["id"]] = item
        self.emit("invoiceitem.created", item)
        return item

    def retrieve_item(self, item_id: str, _params: Params) -> Resource:
        """Answer GET /v1/invoiceitems/{id}."""
        return found(self.items, "invoiceitem", item_id)

    def list_items(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/invoiceitems."""
        chosen = self.items.select(params, ("customer", "invoice"))
        if "pending" in params:
            chosen = [row for row in chosen if (row["invoice"] is None) == params["pending"]]
        return page(chosen, params, "/v1/invoiceitems")

    def delete_item(self, item_id: str, _params: Params) -> Resource:
        """Answer DELETE /v1/invoiceitems/{id}: pending ones, and those of drafts."""
        item = found(self.items, "invoiceitem", item_id)
        invoice = self.invoices.get(item["invoice"]) if item["invoice"] else None
        if invoice is not None:
            require_draft(invoice)
        del self.items[item_id]
        if invoice is not None:
            self._total(invoice)
        return shapes.deleted(item)

    def add_lines(self, invoice_id: str, params: Params) -> Resource:
        """Answer POST /v1/invoices/{id}/add_lines: all of them or none."""
        invoice = found(self.invoices, "invoice", invoice_id)
        given = {"customer": invoice["customer"], "currency": invoice["currency"], "invoice": invoice_id}
        items = [self._new_item({**line, **given}) for line in required(params, "lines")]
        self._check_fits(invoice, items)
        self._attach(invoice, items)
        if isinstance(params.get("invoice_metadata"), dict):
            invoice["metadata"].update(params["invoice_metadata"])
        return invoice

    def list_lines(self, invoice_id: str, params: Params) -> Resource:
        """Answer GET /v1/invoices/{id}/lines."""
        found(self.invoices, "invoice", invoice_id)
        lines = [shapes.line_item(item) for item in self.items.having(invoice_id)]
        return page(lines, params, f"/v1/invoices/{invoice_id}/lines")

    def _new_item(self, params: Params) -> Resource:
        """Return an item that is not put anywhere yet."""
        currency = str(params.get("currency", "")).lower()
        customer = self._customer_of(params, currency)
        item = shapes.invoice_item(new_id("ii"), self._now(), livemode=self.livemode)
        item.update(settable(params, item), customer=customer["id"])
        item["currency"] = currency or customer["currency"] or "usd"
        unit, quantity = _unit_and_quantity(params)
        item["amount"] = item["net_amount"] = int((unit * quantity).quantize(Decimal(1), ROUND_HALF_UP))
        item["pricing"] = {"type": "price_details", "unit_amount_decimal": str(unit)}
        item.update(quantity=int(quantity), quantity_decimal=str(quantity))
        check_amount(item["amount"], item["currency"])
        if item["period"]["end"] < item["period"]["start"]:
            raise ApiError(400, "The period's end must not be before its start", param="period[end]")
        return item

    def _check_fits(self, invoice: Resource, items: list[Resource]) -> None:
        """Raise ApiError unless an invoice can take these items."""
        require_draft(invoice)
        for item in items:
            if item["customer"] != invoice["customer"]:
                raise ApiError(400, "The invoice belongs to another customer", param="invoice")
            if item["currency"] != invoice["currency"]:
                text = f"The currency {item['currency']} does not match the invoice's currency {invoice['currency']}."
                raise ApiError(400, text, param="currency")
            if item["amount"] < 0 and invoice["automatic_tax"]["enabled"]:
                raise ApiError(400, "Negative amounts can't be on an invoice with automatic tax.", param="amount")
        if len(self.items.having(invoice["id"])) + len(items) > ITEMS_MAX:
            raise ApiError(400, f"An invoice can have at most {ITEMS_MAX} items.", param="invoice")

    def _attach(self, invoice: Resource, items: list[Resource]) -> None:
        for item in items:
            item["invoice"] = invoice["id"]
            self.items[item["id"]] = item
        self._total(invoice)

    def _total(self, invoice: Resource) -> None:
        """Add up a draft's lines: coupons, which all take a tenth off what is discountable, and tax on the rest."""
        items = self.items.having(invoice["id"])
        subtotal = sum(item["amount"] for item in items)
        discountable = sum(item["amount"] for item in items if item["discountable"]) if invoice["discounts"] else 0
        untaxed = subtotal - discountable // 10
        taxed = Decimal(untaxed) * self.tax_percent / 100 if invoice["automatic_tax"]["enabled"] else Decimal(0)
        total = untaxed + int(taxed.quantize(Decimal(1), ROUND_HALF_UP))
        due = max(0, total)
        invoice.update(subtotal=subtotal, subtotal_excluding_tax=subtotal, total=total, total_excluding_tax=untaxed)
        invoice.update(amount_due=due, amount_remaining=due)
        lines = [shapes.line_item(item) for item in items[:PAGE_DEFAULT]]
        url = f"/v1/invoices/{invoice['id']}/lines"
        invoice["lines"] = shapes.list_of(lines, url, has_more=len(items) > PAGE_DEFAULT)


def require_draft(invoice: Resource) -> None:
    """Raise ApiError for an invoice that is finalized."""
    if invoice["status"] != "draft":
        text = "This invoice is no longer editable because it is not a draft."
        raise ApiError(400, text, code="invoice_not_editable")


def _unit_and_quantity(params: Params) -> tuple[Decimal, Decimal]:
    """Return what an item costs a piece and how many there are: `amount` is one, else a unit amount and a quantity."""
    if "amount" in params:
        if {"quantity", "quantity_decimal", "unit_amount_decimal", "price_data"} & params.keys():
            raise ApiError(400, "You may only specify one of these parameters: amount, quantity.", param="amount")
        return Decimal(params["amount"]), Decimal(1)
    data: Params = params.get("price_data", params)
    quantity = Decimal(params["quantity_decimal"] if "quantity_decimal" in params else params.get("quantity", 1))
    for name in ("unit_amount_decimal", "unit_amount"):
        if name in data:
            return Decimal(data[name]), quantity
    raise ApiError(400, "Missing required param: amount.", code="parameter_missing", param="amount")
