"""Customers."""

from typing import Any

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.base import Base, Table, change, found, new_id, page, required, settable
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource


class Customers(Base):
    """The customers of an account, deleted ones too. `declining` are those whose payments fail."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.customers = Table("email")
        self.declining: set[str] = set()

    def create_customer(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/customers."""
        customer = self.add_customer(new_id("cus"), **params)
        self.emit("customer.created", customer)
        return customer

    def add_customer(self, customer_id: str, **fields: Any) -> Resource:
        """Put a customer with a known id, as if it had been made long ago: no event."""
        customer = shapes.customer(customer_id, self._now(), livemode=self.livemode)
        customer.update(settable(fields, customer))
        self.customers[customer_id] = customer
        return customer

    def retrieve_customer(self, customer_id: str, _params: Params) -> Resource:
        """Answer GET /v1/customers/{id}: of a deleted one only that it is."""
        customer = found(self.customers, "customer", customer_id)
        return shapes.deleted(customer) if customer.get("deleted") else customer

    def list_customers(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/customers."""
        chosen = [row for row in self.customers.select(params, ("email",)) if not row.get("deleted")]
        return page(chosen, params, "/v1/customers")

    def update_customer(self, customer_id: str, params: Params) -> Resource:
        """Answer POST /v1/customers/{id}."""
        customer = self._live_customer(customer_id)
        before = change(customer, params)
        self.customers[customer_id] = customer
        self.emit("customer.updated", customer, before)
        return customer

    def delete_customer(self, customer_id: str, _params: Params) -> Resource:
        """Answer DELETE /v1/customers/{id}: it stays known, as deleted, and takes no more invoices."""
        customer = self._live_customer(customer_id)
        customer["deleted"] = True
        self.emit("customer.deleted", {name: value for name, value in customer.items() if name != "deleted"})
        return shapes.deleted(customer)

    def _live_customer(self, customer_id: str, param: str | None = None) -> Resource:
        customer = found(self.customers, "customer", customer_id, param)
        if customer.get("deleted"):
            return found({}, "customer", customer_id, param)
        return customer

    def _customer_of(self, params: Params, currency: str | None = None) -> Resource:
        """Return the customer in a call's parameters; raise ApiError when none is there or `currency` can't be its."""
        customer = self._live_customer(required(params, "customer"), "customer")
        if currency and customer["currency"] not in (None, currency):
            raise ApiError(
                400,
                "You cannot combine currencies on a single customer. This customer has had a subscription, coupon, "
                f"or invoice item with currency {customer['currency']}",
                param="currency",
            )
        return customer
