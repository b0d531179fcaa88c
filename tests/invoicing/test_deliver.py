"""Invoices reach Stripe once and right to the cent, whatever is lost or killed on the way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import product
from typing import Any, Literal, Self

import psycopg
import pytest

from flusher.database import connect
from flusher.invoicing.deliver import Delivered, bind_stripe, deliver_invoices
from flusher.invoicing.gateway import Gateway
from flusher.invoicing.invoice import Delivery, Invoice, Point, Status
from flusher.invoicing.store import load_invoices
from sidecar.contract.codes import TaximeterError
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

Open = Callable[..., Gateway]

CREATE = "POST /v1/invoices"
ITEM = "POST /v1/invoiceitems"
FINALIZE = "POST /v1/invoices/{id}/finalize"
READ = "GET /v1/invoices/{id}"
LINES = "GET /v1/invoices/{id}/lines"


def make(world: World, stand_in: StripeStandIn, customer: str = "cus_1", units: int = 12345) -> str:
    """Make July's invoice of a customer that Stripe knows, and return its id."""
    stand_in.test.add_customer(customer)
    world.subscribe(customer, end="2025-08-01T00:00:00Z")
    world.use(customer, units, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1), customer=customer, stripe=True).invoices
    assert (invoice.status, invoice.delivery) == (Status.DRAFT, Delivery.PENDING)
    return invoice.id


def deliver(world: World, gateway: Gateway, *ids: str) -> Delivered:
    return deliver_invoices(world.connection, world.url, gateway, ids)


def load(world: World, invoice_id: str) -> Invoice:
    (invoice,) = load_invoices(world.connection, [invoice_id])
    return invoice


def age_intents(world: World, stand_in: StripeStandIn) -> None:
    """Let 25 hours pass, here and at Stripe."""
    world.connection.execute("UPDATE stripe_intents SET created_at = created_at - interval '25 hours'")
    stand_in.later(25 * 3600)


def assert_delivered_once(world: World, stand_in: StripeStandIn, invoice_id: str) -> None:
    """Its customer has one invoice at Stripe, finalized, with our three lines, and ours says so."""
    ours = load(world, invoice_id)
    (theirs,) = (found for found in stand_in.test.invoices.values() if found["customer"] == ours.customer)
    items = [item["amount"] for item in stand_in.test.items.values() if item["customer"] == ours.customer]
    assert (theirs["status"], theirs["total"], theirs["currency"]) == ("open", 10173, "usd")
    assert sorted(items) == [0, 1173, 9000]
    assert (ours.status, ours.delivery, ours.point) == (Status.OPEN, Delivery.SENT, Point.FINALIZED)
    assert (ours.stripe_invoice, ours.reason) == (theirs["id"], None)


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


@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("route", [CREATE, ITEM, FINALIZE, READ, LINES])
def test_a_call_that_is_lost_is_made_up_for(
    world: World, stand_in: StripeStandIn, open_gateway: Open, route: str, effect: Literal["before", "after"]
) -> None:
    answers: tuple[Literal["drop"] | int, ...] = ("drop", 409, 429, 500)
    for answer, later in product(answers, (False, True)):
        # Given a call that fails before or after its effect
        invoice_id = make(world, stand_in, f"cus_{answer}_{later}")
        stand_in.fault(route, effect, answer, skip=1 if route == ITEM else 0)
        first = deliver(world, open_gateway(), invoice_id)
        assert [(waiting.invoice, waiting.reason) for waiting in first.waiting] == [(invoice_id, "stripe_unavailable")]

        # When it is run again, at once or when the key is forgotten
        if later:
            age_intents(world, stand_in)
        deliver(world, open_gateway(retries=1), invoice_id)

        # Then there is one invoice
        assert_delivered_once(world, stand_in, invoice_id)


def test_calls_are_repeated_within_a_run(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    invoice_id = make(world, stand_in)
    for route in (CREATE, ITEM, FINALIZE):
        stand_in.fault(route, "after", "drop")
        stand_in.fault(route, "before", 409)

    deliver(world, open_gateway(retries=3), invoice_id)

    assert_delivered_once(world, stand_in, invoice_id)


class Killed(BaseException):
    """The process ends here."""


class DyingCursor(psycopg.Cursor[Any]):
    """A cursor whose process dies at its connection's n-th statement."""

    def execute(self, *arguments: Any, **options: Any) -> Self:
        LEFT[0] -= 1
        if LEFT[0] < 0:
            raise Killed
        return super().execute(*arguments, **options)


LEFT = [0]


class DyingGateway:
    """A gateway whose process dies at its n-th call, before or after the call."""

    def __init__(self, gateway: Gateway, left: int, moment: str) -> None:
        self._gateway = gateway
        self._left = left
        self._moment = moment

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._gateway, name)

        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0 and self._moment == "before":
                raise Killed
            answer = method(*arguments)
            if self._left < 0:
                raise Killed
            return answer

        return call


def test_killed_at_any_statement_it_is_one_invoice(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    # Given deliveries, each of which is killed one statement later than the one before, until one ends by itself
    invoice_id = make(world, stand_in)
    gateway = open_gateway()
    for statements in range(200):
        with connect(world.url, autocommit=True) as connection:
            connection.cursor_factory = DyingCursor
            LEFT[0] = statements
            try:
                deliver_invoices(connection, world.url, gateway, [invoice_id])
            except Killed:
                continue
            break

    # Then there is one invoice
    assert 10 < statements < 199
    assert_delivered_once(world, stand_in, invoice_id)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_any_call_it_is_one_invoice(
    world: World, stand_in: StripeStandIn, open_gateway: Open, moment: str
) -> None:
    for call, later in product(range(8), (False, True)):
        # Given a delivery that is killed around one of its calls
        invoice_id = make(world, stand_in, f"cus_{call}_{later}")
        dying: Any = DyingGateway(open_gateway(), call, moment)
        try:
            deliver(world, dying, invoice_id)
            assert call >= 6  # create, three items, compare, finalize
        except Killed:
            assert call < 6

        # When it is run again, at once or when the keys are forgotten
        if later:
            age_intents(world, stand_in)
        deliver(world, open_gateway(), invoice_id)

        # Then there is one invoice
        assert_delivered_once(world, stand_in, invoice_id)


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


def test_after_three_invoices_without_an_answer_the_rest_waits(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(5)]
    stand_in.fault(CREATE, "before", "drop", times=100)

    found = deliver(world, open_gateway(), *ids)

    assert [waiting.invoice for waiting in found.waiting] == ids
    assert {waiting.reason for waiting in found.waiting} == {"stripe_unavailable"}
    assert len(stand_in.calls_to(CREATE)) == 3


def test_a_stripe_that_keeps_failing_ends_the_run_and_not_the_invoice(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    invoice_id = make(world, stand_in)
    stand_in.fault(CREATE, "before", 500, times=10)
    for _ in range(2):
        assert len(deliver(world, open_gateway(retries=1), invoice_id).waiting) == 1

    stand_in.heal()
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
