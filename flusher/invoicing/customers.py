"""Who is who at Stripe: which customers an invoice goes to, which are missing there, and making those that are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.gateway import Gateway, Known
from flusher.invoicing.intents import Step
from flusher.invoicing.once import Call, perform
from flusher.invoicing.payload import customer_params
from flusher.invoicing.store import ledger_of, rows
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]

_AT_ONCE: Final = 1_000
_A_PAGE_FOR: Final = 25
"""Customers are listed, a hundred a call, with a call at most for so many that are wanted; the rest is asked singly."""
_CLOCKS_S: Final = 86_400  # between Stripe's clock and ours, and much more


@dataclass(frozen=True, slots=True)
class Billed:
    """A customer of ours that is to be billed: its name at Stripe, and one of its invoices."""

    customer: str
    stripe_customer: str
    invoice: str


def stripe_customers(connection: Connection, customers: Sequence[str]) -> dict[str, str]:
    """Return what customers of ours are called at Stripe."""
    return {
        row["customer"]: row["stripe_customer"]
        for row in rows(connection, "find_stripe_customers", {"ids": list(customers)})
    }


def customers_to_bill(connection: Connection, invoices: Sequence[str], *, send_zero: bool) -> list[Billed]:
    """Return who the invoices that are not begun are for, each customer once."""
    found: dict[str, Billed] = {}
    for start in range(0, len(invoices), _AT_ONCE):
        values = {"ids": list(invoices[start : start + _AT_ONCE]), "send_zero": send_zero}
        asking = {row["customer"]: row["invoice"] for row in rows(connection, "list_customers_to_bill", values)}
        named = stripe_customers(connection, list(asking))
        for customer, invoice in asking.items():
            found.setdefault(customer, Billed(customer, named[customer], invoice))
    return list(found.values())


def not_listed(gateway: Gateway, wanted: Sequence[Billed]) -> list[Billed]:
    """Return those that the account's newest customers are not, with few calls: they are to be asked for one by one."""
    open_ids = {billed.stripe_customer for billed in wanted}
    if pages := len(open_ids) // _A_PAGE_FOR:
        for listed in gateway.list_customers(pages):
            open_ids.discard(listed)
            if not open_ids:
                break
    return [billed for billed in wanted if billed.stripe_customer in open_ids]


def make_customer(connection: Connection, gateway: Gateway, billed: Billed) -> None:
    """Make a customer at Stripe, once, and remember what it is called there. Raises what `perform` does."""
    connection.execute(query("ask_for_customer"), {"customer": billed.customer, "invoice": billed.invoice})
    ((asked,), (ledger, _)) = rows(connection, "find_asked", {"customer": billed.customer}), ledger_of(connection)
    since_s = asked["asked_s"] - _CLOCKS_S
    made = perform(
        connection,
        ledger,
        Call(
            Step(asked["invoice"], "create_customer"),
            params=lambda: customer_params(billed.customer, ledger),
            send=gateway.create_customer,
            find=lambda _tried: gateway.find_customer(ledger, billed.customer, since_s),
        ),
    )
    connection.execute(query("name_customer"), {"customer": billed.customer, "stripe_customer": made.id})


def describe_absent(absent: dict[str, Known], shown_max: int = 20) -> str:
    """Return which customers are not at Stripe, for a reader."""
    shown = [f"{customer} ({known})" for customer, known in list(absent.items())[:shown_max]]
    more = len(absent) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
