"""Invoices reach Stripe as drafts with items and are finalized; what is wrong with one stops that one alone."""

from decimal import Decimal

import pytest

from flusher.invoicing.deliver import bind_stripe
from flusher.invoicing.invoice import Delivery, Status
from flusher.invoicing.payload import CollectionMethod, StripeTerms
from sidecar.contract.codes import TaximeterError
from tests.invoicing.delivery import (
    ADD_LINES,
    CREATE,
    FINALIZE,
    READ,
    Open,
    assert_delivered_once,
    deliver,
    load,
    make,
)
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn


def test_an_invoice_becomes_a_draft_with_items_and_is_finalized(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in)

    found = deliver(world, open_gateway(), invoice_id)

    assert [invoice.id for invoice in found.sent] == [invoice_id]
    assert_delivered_once(world, stand_in, invoice_id)
    (draft,) = stand_in.calls_to(CREATE)
    assert draft.params["auto_advance"] == "false"
    assert draft.params["pending_invoice_items_behavior"] == "exclude"
    assert draft.params["discounts"] == ""
    assert draft.params["metadata"]["taximeter_invoice"] == invoice_id
    (added,) = stand_in.calls_to(ADD_LINES)
    for line in added.params["lines"].values():
        assert line["discountable"] == "false"
        assert line["period"] == {"start": "1751328000", "end": "1754006399"}
        assert line["metadata"]["taximeter_line"].startswith("line_")
        assert line["metadata"]["taximeter_invoice"] == invoice_id
    assert [call.params["auto_advance"] for call in stand_in.calls_to(FINALIZE)] == ["false"]


def test_a_delivery_repeated_asks_stripe_nothing(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    invoice_id = make(world, stand_in)
    deliver(world, open_gateway(), invoice_id)
    calls = len(stand_in.calls)

    deliver(world, open_gateway(), invoice_id)

    assert len(stand_in.calls) == calls


def test_a_refused_invoice_is_parked_the_others_go_on_and_it_can_be_mended(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given a customer that Stripe does not know, before one that it does
    lost = make(world, stand_in, "cus_lost")
    del stand_in.test.customers["cus_lost"]
    good = make(world, stand_in, "cus_good")

    found = deliver(world, open_gateway(), lost, good)

    assert [invoice.id for invoice in found.sent] == [good]
    (parked,) = found.parked
    assert (parked.id, parked.delivery, parked.reason) == (lost, Delivery.PARKED, "stripe_resource_missing")
    assert "No such customer: 'cus_lost'" in str(parked.detail)

    # When the customer is made, the next run sends it
    stand_in.test.add_customer("cus_lost")
    again = deliver(world, open_gateway(), lost)
    assert [(invoice.id, invoice.reason) for invoice in again.sent] == [(lost, None)]


def test_another_customer_at_stripe_can_be_named_after_a_refusal(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in, "cus_ours")
    del stand_in.test.customers["cus_ours"]
    stand_in.test.add_customer("cus_theirs")
    deliver(world, open_gateway(), invoice_id)

    world.apply('[[customers]]\nid = "cus_ours"\nstripe_customer = "cus_theirs"')
    deliver(world, open_gateway(), invoice_id)

    (theirs,) = stand_in.test.invoices.values()
    assert (theirs["customer"], theirs["status"]) == ("cus_theirs", "open")


def test_a_draft_that_was_changed_at_stripe_is_not_finalized(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given a draft to which someone added an item of their own
    invoice_id = make(world, stand_in)
    stand_in.fault(READ, "before", "drop")
    deliver(world, open_gateway(), invoice_id)
    (draft,) = stand_in.test.invoices.values()
    item = stand_in.test.create_item("", {"customer": "cus_1", "invoice": draft["id"], "amount": 5, "currency": "usd"})

    # When delivery goes on, then it parks the invoice and says what differs
    (parked,) = deliver(world, open_gateway(), invoice_id).parked
    assert parked.reason == "stripe_lines_differ"
    assert "4 lines of 10178 usd" in str(parked.detail)
    assert draft["status"] == "draft"

    # When the item is taken off again, then it is sent
    del stand_in.test.items[item["id"]]
    stand_in.test._total(draft)
    deliver(world, open_gateway(), invoice_id)
    assert_delivered_once(world, stand_in, invoice_id)


def test_an_invoice_is_not_finalized_over_an_open_discrepancy(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in)
    world.discrepancy("cus_1", utc(2025, 7, 1))

    (waiting,) = deliver(world, open_gateway(), invoice_id).waiting
    assert (waiting.id, waiting.reason) == (invoice_id, "proof_broken")
    assert stand_in.calls_to(FINALIZE) == []

    world.resolve()
    deliver(world, open_gateway(), invoice_id)
    assert_delivered_once(world, stand_in, invoice_id)


@pytest.mark.parametrize("send_zero", [False, True])
def test_an_invoice_of_0_is_sent_or_kept_as_the_setting_says_and_one_without_any_amount_is_kept(
    world: World, stand_in: StripeStandIn, open_gateway: Open, send_zero: bool
) -> None:
    # Given 1,000 free calls, a month in which an adjustment takes back what the usage costs, and a free month
    stand_in.test.add_customer("cus_1")
    world.subscribe("cus_1")
    world.use("cus_1", 1100, utc(2025, 7, 5))
    (july,) = world.run(utc(2025, 8, 1), stripe=True).invoices
    world.use("cus_1", -100, utc(2025, 7, 6))
    world.use("cus_1", 1100, utc(2025, 8, 5))
    (august,) = world.run(utc(2025, 9, 1), stripe=True).invoices
    world.use("cus_1", 500, utc(2025, 9, 5))
    (september,) = world.run(utc(2025, 10, 1), stripe=True).invoices
    assert (august.total, august.delivery) == (Decimal(0), Delivery.PENDING)
    assert (september.total, september.delivery, september.status) == (Decimal(0), Delivery.NONE, Status.PAID)

    # When July's and August's are delivered
    found = deliver(world, open_gateway(), july.id, august.id, terms=StripeTerms(send_zero=send_zero))

    # Then August's is paid, with Stripe or without
    assert [invoice.id for invoice in found.sent] == ([july.id, august.id] if send_zero else [july.id])
    assert [invoice.id for invoice in found.kept] == ([] if send_zero else [august.id])
    assert load(world, august.id).status is Status.PAID
    assert len(stand_in.test.invoices) == 1 + send_zero


@pytest.mark.parametrize(
    ("currency", "price", "shown"),
    [("usd", "1.20", 120), ("jpy", "1200", 1200), ("isk", "500", 50000), ("ugx", "5000", 500000)]
    + [(currency, "1.23", 1230) for currency in ("bhd", "jod", "kwd", "omr", "tnd")],
)
def test_amounts_are_stripes_integers_in_each_currency(
    world: World, stand_in: StripeStandIn, open_gateway: Open, currency: str, price: str, shown: int
) -> None:
    world.apply(
        f'[[plans]]\nname = "{currency}"\ncurrency = "{currency}"\n'
        f'[[plans.prices]]\nmeter = "api_call"\nmodel = "per_unit"\nunit_price = "{price}"'
    )
    stand_in.test.add_customer("cus_1")
    world.subscribe("cus_1", plan=currency, end="2025-08-01T00:00:00Z")
    world.use("cus_1", 1, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1), stripe=True).invoices

    deliver(world, open_gateway(), invoice.id)

    (theirs,) = stand_in.test.invoices.values()
    assert (theirs["total"], theirs["currency"], theirs["status"]) == (shown, currency, "open")


def test_how_it_is_collected_and_taxed_is_passed_through(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in)
    terms = StripeTerms(collect=True, collection_method=CollectionMethod.SEND, days_until_due=14, automatic_tax=True)

    deliver(world, open_gateway(), invoice_id, terms=terms)

    (draft,) = stand_in.calls_to(CREATE)
    assert (draft.params["collection_method"], draft.params["days_until_due"]) == ("send_invoice", "14")
    assert draft.params["automatic_tax"] == {"enabled": "true"}
    assert [call.params["auto_advance"] for call in stand_in.calls_to(FINALIZE)] == ["true"]


@pytest.mark.parametrize("route", [ADD_LINES, READ, FINALIZE])
def test_a_draft_that_was_deleted_at_stripe_is_made_anew(
    world: World, stand_in: StripeStandIn, open_gateway: Open, route: str
) -> None:
    # Given a delivery that stopped with a draft at Stripe, which somebody deletes
    invoice_id = make(world, stand_in)
    stand_in.fault(route, "before", "drop")
    deliver(world, open_gateway(), invoice_id)
    (draft,) = stand_in.test.invoices
    stand_in.test.delete_invoice(draft, {})

    deliver(world, open_gateway(), invoice_id)

    assert_delivered_once(world, stand_in, invoice_id)


def test_the_first_push_binds_the_ledger_to_an_account_and_mode(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    bind_stripe(world.connection, open_gateway())
    bind_stripe(world.connection, open_gateway("rk_test_other"))

    with pytest.raises(TaximeterError, match=r"bills in Stripe account acct_\w+ \(test\)") as refused:
        bind_stripe(world.connection, open_gateway("sk_live_x"))
    assert refused.value.code == "stripe_account_changed"

    stand_in.test.account = "acct_other"
    with pytest.raises(TaximeterError, match="acct_other"):
        bind_stripe(world.connection, open_gateway())


def test_a_key_that_stripe_does_not_know_stops_everything(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in)

    with pytest.raises(TaximeterError) as refused:
        deliver(world, open_gateway("nonsense"), invoice_id)

    assert refused.value.code == "stripe_key_refused"
    assert "nonsense" not in str(refused.value)
    assert load(world, invoice_id).delivery is Delivery.PENDING
