"""Invoices after they are finalized, and credit notes, at the stand-in, through Stripe's own package."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import stripe

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.client import stripe_client


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        running.test.add_customer("cus_1", email="a@example.com")
        yield running


@pytest.fixture
def client(stand_in: StripeStandIn) -> Iterator[stripe.StripeClient]:
    with stripe_client(stand_in) as opened:
        yield opened


def bill(client: stripe.StripeClient, *amounts: int, finalize: bool = True, collect: bool = False, **more: Any) -> str:
    """Make an invoice of these amounts and return its id."""
    params: Any = {"customer": "cus_1", "currency": "usd", "discounts": "", **more}
    invoice = client.v1.invoices.create(params)
    client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": amount} for amount in amounts]})
    if finalize:
        client.v1.invoices.finalize_invoice(invoice.id, {"auto_advance": collect})
    return str(invoice.id)


def events(stand_in: StripeStandIn) -> list[str]:
    return [event["type"] for event in stand_in.test.events]


def test_lines_are_added_all_or_none(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    invoice = bill(client, 100, 200, finalize=False)

    with pytest.raises(stripe.InvalidRequestError, match="period's end"):
        client.v1.invoices.add_lines(
            invoice, {"lines": [{"amount": 1}, {"amount": 2, "period": {"start": 9, "end": 8}}]}
        )
    with pytest.raises(stripe.InvalidRequestError, match="250 items"):
        client.v1.invoices.add_lines(invoice, {"lines": [{"amount": 1}] * 249})

    assert client.v1.invoices.retrieve(invoice).total == 300
    added = client.v1.invoices.add_lines(invoice, {"lines": [{"amount": 1}] * 248})
    assert (added.total, added.lines.has_more, len(added.lines.data)) == (548, True, 10)
    lines = client.v1.invoices.line_items.list(invoice, {"limit": 100})
    assert [line.amount for line in lines.auto_paging_iter()] == [100, 200] + [1] * 248


def test_an_open_invoice_is_paid_once(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    invoice = bill(client, 500)

    paid = client.v1.invoices.pay(invoice)

    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 500, 0)
    assert events(stand_in)[-2:] == ["invoice.paid", "invoice.payment_succeeded"]
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        client.v1.invoices.pay(invoice)
    with pytest.raises(stripe.InvalidRequestError, match="isn't: paid"):
        client.v1.invoices.void_invoice(invoice)


def test_a_declined_card_leaves_the_invoice_open(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.test.declining.add("cus_1")
    invoice = bill(client, 500, collect=True)

    with pytest.raises(stripe.CardError):
        client.v1.invoices.pay(invoice)
    assert stand_in.test.collect() == []
    assert client.v1.invoices.retrieve(invoice).status == "open"

    uncollectible = client.v1.invoices.mark_uncollectible(invoice)
    assert uncollectible.status_transitions.marked_uncollectible_at is not None
    assert events(stand_in)[-2:] == ["invoice.payment_failed", "invoice.marked_uncollectible"]
    assert client.v1.invoices.pay(invoice, {"paid_out_of_band": True}).status == "paid"


def test_stripe_collects_by_itself_only_what_may_advance(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    waits, advances = bill(client, 500), bill(client, 600, collect=True)

    assert [invoice["id"] for invoice in stand_in.test.collect()] == [advances]
    assert client.v1.invoices.retrieve(waits).status == "open"


def test_less_than_the_minimum_goes_to_the_balance_when_stripe_collects(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    # Given 49 cents, which can't be charged
    invoice = bill(client, 49, collect=True)

    # Then the invoice is paid without a payment, and the customer owes it with the next one
    small = client.v1.invoices.retrieve(invoice)
    assert (small.status, small.amount_due, small.total, small.ending_balance) == ("paid", 0, 49, 49)
    following = client.v1.invoices.retrieve(bill(client, 100, collect=True))
    assert (following.amount_due, following.total, following.starting_balance) == (149, 100, 49)

    # And one that nobody collects stays open, and can't be paid by card
    waiting = bill(client, 49)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoices.pay(waiting)
    assert refused.value.code == "amount_too_small"


@pytest.mark.parametrize(("currency", "wrong", "right"), [("isk", 150, 100), ("ugx", 1, 500), ("kwd", 1001, 1010)])
def test_amounts_of_special_currencies_are_whole(
    client: stripe.StripeClient, currency: str, wrong: int, right: int
) -> None:
    invoice = client.v1.invoices.create({"customer": "cus_1", "currency": currency})

    with pytest.raises(stripe.InvalidRequestError, match="multiple of"):
        client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": wrong}]})
    assert client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": right}]}).total == right


def test_automatic_tax_needs_a_place_and_takes_nothing_negative(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stand_in.test.tax_percent = Decimal(20)
    invoice = bill(client, 1000, finalize=False, automatic_tax={"enabled": True})

    with pytest.raises(stripe.InvalidRequestError, match="Negative"):
        client.v1.invoices.add_lines(invoice, {"lines": [{"amount": -1}]})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoices.finalize_invoice(invoice)
    assert refused.value.code == "customer_tax_location_invalid"

    client.v1.customers.update("cus_1", {"address": {"country": "DE"}})
    final = client.v1.invoices.finalize_invoice(invoice)
    assert (final.total, final.total_excluding_tax, final.subtotal) == (1200, 1000, 1000)


def test_a_credit_note_takes_from_what_remains(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    invoice = bill(client, 1000)

    note = client.v1.credit_notes.create({"invoice": invoice, "amount": 400, "metadata": {"ours": "7"}})

    assert (note.status, note.type, note.pre_payment_amount, note.total) == ("issued", "pre_payment", 400, 400)
    assert client.v1.invoices.retrieve(invoice).amount_remaining == 600
    (listed,) = client.v1.credit_notes.list({"invoice": invoice}).data
    assert (listed.id, listed.to_dict()["metadata"]) == (note.id, {"ours": "7"})
    assert "credit_note.created" in events(stand_in)

    # And what it took is due again once it is void
    assert client.v1.credit_notes.void_credit_note(note.id).status == "void"
    assert client.v1.invoices.retrieve(invoice).amount_remaining == 1000
    with pytest.raises(stripe.InvalidRequestError, match="credit note is void"):
        client.v1.credit_notes.void_credit_note(note.id)


def test_a_credit_note_over_everything_settles_the_invoice(client: stripe.StripeClient) -> None:
    invoice = bill(client, 700, 300)
    first, second = client.v1.invoices.line_items.list(invoice).data

    note = client.v1.credit_notes.create(
        {
            "invoice": invoice,
            "lines": [
                {"type": "invoice_line_item", "invoice_line_item": first.id, "amount": 700},
                {"type": "invoice_line_item", "invoice_line_item": second.id, "amount": 300},
            ],
        }
    )

    assert [line.invoice_line_item for line in note.lines.data] == [first.id, second.id]
    assert client.v1.invoices.retrieve(invoice).status == "paid"
    with pytest.raises(stripe.InvalidRequestError, match="its invoice is paid"):
        client.v1.credit_notes.void_credit_note(note.id)


def test_a_credit_note_after_payment_says_where_it_goes(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    invoice = bill(client, 1000)
    client.v1.invoices.pay(invoice)

    with pytest.raises(stripe.InvalidRequestError, match="must equal the post payment amount, 300"):
        client.v1.credit_notes.create({"invoice": invoice, "amount": 300})
    note = client.v1.credit_notes.create(
        {"invoice": invoice, "amount": 300, "credit_amount": 100, "refund_amount": 200}
    )

    assert (note.type, note.post_payment_amount, note.refunds[0].amount_refunded) == ("post_payment", 300, 200)
    assert stand_in.test.customers["cus_1"]["balance"] == -100
    with pytest.raises(stripe.InvalidRequestError, match="at most 700"):
        client.v1.credit_notes.create({"invoice": invoice, "amount": 701, "credit_amount": 701})


def test_drafts_take_no_credit_notes(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="This invoice is draft"):
        client.v1.credit_notes.create({"invoice": bill(client, 5, finalize=False), "amount": 1})


def test_deleted_customers_and_drafts_are_gone(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    draft = bill(client, 500, finalize=False)

    client.v1.invoices.delete(draft)
    client.v1.customers.delete("cus_1")

    assert stand_in.test.items == {}
    assert client.v1.customers.retrieve("cus_1").to_dict() == {"id": "cus_1", "object": "customer", "deleted": True}
    assert client.v1.customers.list({"email": "a@example.com"}).data == []
    for refused in (lambda: client.v1.invoices.retrieve(draft), lambda: bill(client, 1)):
        with pytest.raises(stripe.InvalidRequestError) as error:
            refused()
        assert error.value.code == "resource_missing"
    assert events(stand_in)[-2:] == ["invoice.deleted", "customer.deleted"]
