"""Invoices reach Stripe as drafts with items and are finalized; what is wrong with one stops that one alone."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from flusher.database import connect
from flusher.invoicing.deliver import Delivered, bind_stripe, deliver_invoices
from flusher.invoicing.invoice import Delivery, Status
from sidecar.contract.codes import TaximeterError
from tests.invoicing.delivery import (
    CREATE,
    FINALIZE,
    ITEM,
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
    for item in stand_in.calls_to(ITEM):
        assert item.params["discountable"] == "false"
        assert item.params["period"] == {"start": "1751328000", "end": "1754006399"}
        assert item.params["metadata"]["taximeter_line"].startswith("line_")
    assert [call.params["auto_advance"] for call in stand_in.calls_to(FINALIZE)] == ["false"]


def test_a_delivery_repeated_asks_stripe_nothing(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    invoice_id = make(world, stand_in)
    deliver(world, open_gateway(), invoice_id)
    calls = len(stand_in.calls)

    deliver(world, open_gateway(), invoice_id)

    assert len(stand_in.calls) == calls


def test_two_deliveries_at_once_make_one_invoice_each(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(6)]

    def run(_number: int) -> Delivered:
        with connect(world.url, autocommit=True) as connection:
            return deliver_invoices(connection, world.url, open_gateway(), ids)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(run, range(3)))

    assert [len(one.sent) for one in found] == [6, 6, 6]
    assert len(stand_in.test.invoices) == 6
    assert [invoice["total"] for invoice in stand_in.test.invoices.values()] == [10173] * 6
    assert len(stand_in.calls_to(CREATE)) == 6


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
    assert (waiting.invoice, waiting.reason) == (invoice_id, "proof_broken")
    assert stand_in.calls_to(FINALIZE) == []

    world.resolve()
    deliver(world, open_gateway(), invoice_id)
    assert_delivered_once(world, stand_in, invoice_id)


def test_an_invoice_with_amounts_that_cancel_out_is_sent_and_one_without_any_is_not(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given 500 free calls, and a month in which an adjustment takes back what the usage costs
    stand_in.test.add_customer("cus_1")
    world.subscribe("cus_1")
    world.use("cus_1", 1100, utc(2025, 7, 5))
    (july,) = world.run(utc(2025, 8, 1), stripe=True).invoices
    world.use("cus_1", -100, utc(2025, 7, 6))
    world.use("cus_1", 1100, utc(2025, 8, 5))
    (august,) = world.run(utc(2025, 9, 1), stripe=True).invoices
    world.use("cus_1", 500, utc(2025, 9, 5))
    (september,) = world.run(utc(2025, 10, 1), stripe=True).invoices

    # Then August's, of 0 in all, is sent, and September's is paid without Stripe
    assert (august.total, august.delivery) == (Decimal(0), Delivery.PENDING)
    assert (september.total, september.delivery, september.status) == (Decimal(0), Delivery.NONE, Status.PAID)
    sent = deliver(world, open_gateway(), july.id, august.id).sent
    assert [invoice.status for invoice in sent] == [Status.OPEN, Status.PAID]


def test_more_lines_than_stripe_takes_are_parked_before_anything_is_made(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    world.apply(
        '[[meters]]\nname = "wide"\nevent_type = "wide"\ngroup_by = ["region"]\n'
        '[[plans]]\nname = "wide"\ncurrency = "usd"\n'
        '[[plans.prices]]\nmeter = "wide"\nmodel = "per_unit"\nunit_price = "1"\nper_group = true'
    )
    world.subscribe("cus_1", plan="wide", end="2025-08-01T00:00:00Z")
    for region in range(251):
        world.use("cus_1", 1, utc(2025, 7, 5), meter="wide", region=f"r{region}")
    (invoice,) = world.run(utc(2025, 8, 1), stripe=True).invoices

    (parked,) = deliver(world, open_gateway(), invoice.id).parked

    assert parked.reason == "too_many_lines"
    assert stand_in.calls == []


@pytest.mark.parametrize(
    ("currency", "price", "shown"), [("jpy", "1200", 1200), ("isk", "5", 500), ("kwd", "0.01", 10)]
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
