"""The stand-in behaves as Stripe does where our code depends on it, seen through Stripe's own package."""

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.client import stripe_client


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        running.test.add_customer("cus_1")
        yield running


@pytest.fixture
def client(stand_in: StripeStandIn) -> Iterator[stripe.StripeClient]:
    with stripe_client(stand_in) as opened:
        yield opened


def draft(client: stripe.StripeClient, key: str | None = None, **more: object) -> stripe.Invoice:
    params: Any = {"customer": "cus_1", "currency": "usd", "discounts": "", **more}
    return client.v1.invoices.create(params, {"idempotency_key": key} if key else {})


def test_a_draft_with_items_is_finalized_and_adds_up(client: stripe.StripeClient) -> None:
    # Given a draft with two items
    invoice = draft(client)
    for amount in (9000, 1173):
        client.v1.invoice_items.create(
            {"customer": "cus_1", "invoice": invoice.id, "amount": amount, "currency": "usd"}
        )

    # When it is finalized
    final = client.v1.invoices.finalize_invoice(invoice.id, {"auto_advance": False})

    # Then it is open, numbered, and the sum of its items
    assert (final.status, final.total, final.number is not None) == ("open", 10173, True)
    assert [line.amount for line in client.v1.invoices.line_items.list(invoice.id).data] == [9000, 1173]


def test_the_same_key_gives_the_same_answer_and_one_object(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    first = draft(client, "key-1")
    second = draft(client, "key-1")

    assert first.id == second.id
    assert len(stand_in.test.invoices) == 1
    assert [call.replayed for call in stand_in.calls_to("POST /v1/invoices")] == [False, True]


def test_a_key_with_other_parameters_is_refused(client: stripe.StripeClient) -> None:
    draft(client, "key-1")

    with pytest.raises(stripe.IdempotencyError):
        draft(client, "key-1", description="other")


def test_an_error_is_replayed_under_its_key(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    # Given a refusal for a customer that does not exist
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_2'"):
        draft(client, "key-1", customer="cus_2")

    # When the customer is made and the call repeated with its key, then the refusal comes again
    stand_in.test.add_customer("cus_2")
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        draft(client, "key-1", customer="cus_2")
    assert draft(client, "key-2", customer="cus_2").customer == "cus_2"


def test_keys_are_forgotten_after_a_day(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    first = draft(client, "key-1")
    stand_in.later(25 * 3600)

    assert draft(client, "key-1").id != first.id


def test_an_unknown_parameter_is_refused_by_name(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=r"unknown parameter: automatic_tax\[enbled\]"):
        draft(client, automatic_tax={"enbled": True})


def test_an_invoice_holds_250_items(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    invoice = draft(client)
    item: Any = {"customer": "cus_1", "invoice": invoice.id, "amount": 1, "currency": "usd"}
    for _ in range(250):
        stand_in.test.create_item("", item)

    with pytest.raises(stripe.InvalidRequestError, match="250 items"):
        client.v1.invoice_items.create(item)


def test_an_item_in_another_currency_is_refused(client: stripe.StripeClient) -> None:
    invoice = draft(client)

    with pytest.raises(stripe.InvalidRequestError, match="currency eur does not match"):
        client.v1.invoice_items.create({"customer": "cus_1", "invoice": invoice.id, "amount": 1, "currency": "eur"})


def test_a_call_can_be_lost_before_and_after_its_effect(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.fault("POST /v1/invoices", "before")
    with pytest.raises(stripe.APIConnectionError):
        draft(client, "key-1")
    assert len(stand_in.test.invoices) == 0

    stand_in.fault("POST /v1/invoices", "after")
    with pytest.raises(stripe.APIConnectionError):
        draft(client, "key-1")
    assert len(stand_in.test.invoices) == 1

    assert draft(client, "key-1").id in stand_in.test.invoices


def test_a_500_is_replayed_and_a_429_is_not(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.fault("POST /v1/invoices", "before", 429)
    with pytest.raises(stripe.RateLimitError):
        draft(client, "key-1")
    draft(client, "key-1")

    stand_in.fault("POST /v1/invoices", "after", 500)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            draft(client, "key-2")


def test_a_coupon_of_the_customer_is_inherited_unless_discounts_are_given(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stand_in.test.add_customer("cus_1", discount={"id": "di_1", "object": "discount"})

    inherited = client.v1.invoices.create({"customer": "cus_1"})
    empty = draft(client)

    assert (inherited.discounts, empty.discounts) == (["di_1"], [])


def test_finalized_invoices_take_no_items_and_can_be_voided(client: stripe.StripeClient) -> None:
    invoice = draft(client)
    item: Any = {"customer": "cus_1", "invoice": invoice.id, "amount": 5, "currency": "usd"}
    client.v1.invoice_items.create(item)
    client.v1.invoices.finalize_invoice(invoice.id)

    with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
        client.v1.invoice_items.create(item)
    assert client.v1.invoices.void_invoice(invoice.id).status == "void"


def test_lists_are_paged_and_filtered(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.test.add_customer("cus_2")
    wanted = [draft(client, metadata={"n": str(number)}).id for number in range(5)]
    draft(client, customer="cus_2")

    page = client.v1.invoices.list({"customer": "cus_1", "limit": 2})

    assert page.has_more
    assert [invoice.id for invoice in page.auto_paging_iter()] == wanted[::-1]


def test_test_and_live_keys_see_different_objects(stand_in: StripeStandIn) -> None:
    with stripe_client(stand_in, "sk_live_x") as live, pytest.raises(stripe.InvalidRequestError, match="No such"):
        live.v1.customers.retrieve("cus_1")
