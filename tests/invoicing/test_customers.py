"""Which customers Stripe lacks is said before anything is sent; those that we make are made once."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Literal

import pytest

from flusher.database import connect
from flusher.invoicing.customers import Billed, customers_to_bill, make_customer, stripe_customers
from flusher.invoicing.gateway import Known, RefusedError, StripeSettings, UnavailableError
from flusher.invoicing.outbox import Outbox
from tests.invoicing.delivery import CREATE, Open, age_intents, load, make
from tests.invoicing.dying import LEFT, DyingCursor, Killed
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn

MAKE = "POST /v1/customers"
Run = Callable[..., int]


@pytest.fixture
def with_key(stand_in: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> StripeStandIn:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_API_BASE", stand_in.base_url)
    monkeypatch.setenv("TAXIMETER_STRIPE_RATE", "1000")
    return stand_in


def billed(world: World, stand_in: StripeStandIn, customer: str) -> Billed:
    """Return a customer with an invoice, whom Stripe does not have."""
    invoice = make(world, stand_in, customer)
    del stand_in.test.customers[customer]
    (found,) = customers_to_bill(world.connection, [invoice], send_zero=False)
    return found


def test_who_is_missing_or_deleted_is_found_with_few_calls(world: World, stand_in: StripeStandIn) -> None:
    # Given 120 customers at Stripe among others, one that is deleted there and one that is not there
    wanted = [Billed(f"ours_{number}", f"cus_{number}", "inv_1") for number in range(120)]
    for one in wanted[:119]:
        stand_in.test.add_customer(one.stripe_customer)
    for number in range(200):
        stand_in.test.add_customer(f"cus_other{number}")
    stand_in.test.delete_customer("cus_7", {})
    settings = StripeSettings("sk_test_x", stand_in.base_url, rate=1_000)

    absent = Outbox(world.url, settings).find_absent(wanted, lambda _done, _of: None)

    assert absent == {"ours_119": Known.MISSING, "ours_7": Known.DELETED}
    assert len(stand_in.calls) <= 4 + 2 + 4  # pages, the two, and who was made before those pages


def test_a_run_names_who_is_missing_first_parks_their_invoices_and_sends_the_others(
    world: World, with_key: StripeStandIn, taximeter: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for customer in ("cus_here", "cus_gone", "cus_never"):
        make(world, with_key, customer)
    with_key.test.delete_customer("cus_gone", {})
    del with_key.test.customers["cus_never"]

    assert taximeter("invoice", "--at", "2025-08-01") == 1

    shown = capsys.readouterr().err
    assert "2 of 3 customers are not at Stripe, their invoices are parked: cus_gone (deleted), cus_never (m" in shown
    assert (
        len(
            re.findall(r"^parked: .* stripe_customer_missing: .* `stripe_customer` in the catalog", shown, re.MULTILINE)
        )
        == 2
    )
    assert [call.params["customer"] for call in with_key.calls_to(CREATE)] == ["cus_here"]


def test_another_name_in_the_catalog_mends_a_missing_customer(
    world: World, with_key: StripeStandIn, taximeter: Run
) -> None:
    billed(world, with_key, "cus_ours")
    assert taximeter("invoice", "--at", "2025-08-01") == 1

    with_key.test.add_customer("cus_theirs")
    world.apply('[[customers]]\nid = "cus_ours"\nstripe_customer = "cus_theirs"')

    assert taximeter("invoice", "--at", "2025-08-01") == 0
    assert [invoice["customer"] for invoice in with_key.test.invoices.values()] == ["cus_theirs"]


def test_with_the_setting_missing_customers_are_made_and_found_again_by_later_runs(
    world: World, with_key: StripeStandIn, taximeter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a customer with two subscriptions, whom Stripe never had, and one whom somebody deleted there
    monkeypatch.setenv("TAXIMETER_STRIPE_CREATE_CUSTOMERS", "true")
    billed(world, with_key, "cus_new")
    world.apply(
        '[[meters]]\nname = "seats"\nevent_type = "seats"\n[[plans]]\nname = "extra"\ncurrency = "usd"\n'
        '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = "5"\ncharge = "in_arrears"'
    )
    world.subscribe("cus_new", plan="extra", end="2025-08-01T00:00:00Z")
    gone = make(world, with_key, "cus_gone")
    with_key.test.delete_customer("cus_gone", {})

    assert taximeter("invoice", "--at", "2025-08-01") == 1

    (made,) = [call for call in with_key.calls_to(MAKE) if call.params.get("description") == "cus_new"]
    assert made.params["metadata"]["taximeter_customer"] == "cus_new"
    name = stripe_customers(world.connection, ["cus_new"])["cus_new"]
    assert [invoice["customer"] for invoice in with_key.test.invoices.values()] == [name, name]
    assert load(world, gone).reason == "stripe_customer_missing"

    # When there is another invoice, nobody is made
    world.apply(
        '[[subscriptions]]\nid = "again"\ncustomer = "cus_new"\nplan = "extra"\n'
        "start = 2025-08-01T00:00:00Z\nend = 2025-09-01T00:00:00Z"
    )
    assert taximeter("invoice", "--at", "2025-09-01", "--customer", "cus_new") == 0
    assert len(with_key.calls_to(MAKE)) == 1
    assert [invoice["customer"] for invoice in with_key.test.invoices.values()] == [name] * 3


@pytest.mark.parametrize("effect", ["before", "after"])
def test_a_customer_whose_call_is_lost_is_made_once(
    world: World, stand_in: StripeStandIn, open_gateway: Open, effect: Literal["before", "after"]
) -> None:
    answers: tuple[Literal["drop", "forget"] | int, ...] = ("drop", "forget", 409, 429, 500)
    for answer, later in product(answers, (False, True)):
        if answer == "forget" and not later:
            continue  # Stripe keeps its word and keys for a day
        wanted = billed(world, stand_in, f"cus_{answer}_{later}")
        before = len(stand_in.test.customers)
        stand_in.fault(MAKE, effect, answer)
        with pytest.raises(UnavailableError):
            make_customer(world.connection, open_gateway(), wanted)

        if later:
            age_intents(world, stand_in)
            world.connection.execute("UPDATE stripe_customers SET asked_at = asked_at - interval '25 hours'")
        make_customer(world.connection, open_gateway(retries=1), wanted)

        assert len(stand_in.test.customers) == before + 1
        name = stripe_customers(world.connection, [wanted.customer])[wanted.customer]
        assert stand_in.test.customers[name]["metadata"]["taximeter_customer"] == wanted.customer


def test_killed_at_any_statement_a_customer_is_made_once(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    wanted = billed(world, stand_in, "cus_1")
    gateway = open_gateway()
    for statements in range(50):
        with connect(world.url, autocommit=True) as connection:
            connection.cursor_factory = DyingCursor
            LEFT[0] = statements
            try:
                make_customer(connection, gateway, wanted)
            except Killed:
                continue
            break

    assert 5 < statements < 49
    (made,) = stand_in.test.customers
    assert stripe_customers(world.connection, ["cus_1"]) == {"cus_1": made}


def test_runs_at_once_make_a_customer_once(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    wanted = billed(world, stand_in, "cus_1")

    def run(_number: int) -> None:
        with connect(world.url, autocommit=True) as connection:
            make_customer(connection, open_gateway(retries=3), wanted)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))

    assert len(stand_in.test.customers) == 1


def test_a_customer_that_stripe_refuses_to_make_parks_its_invoice_alone(
    world: World, with_key: StripeStandIn, taximeter: Run, monkeypatch: pytest.MonkeyPatch, open_gateway: Open
) -> None:
    monkeypatch.setenv("TAXIMETER_STRIPE_CREATE_CUSTOMERS", "true")
    make(world, with_key, "cus_good")
    wanted = billed(world, with_key, "cus_bad")
    with_key.fault(MAKE, "before", 400, times=2)

    with pytest.raises(RefusedError):
        make_customer(world.connection, open_gateway(), wanted)
    assert taximeter("invoice", "--at", "2025-08-01") == 1

    assert load(world, wanted.invoice).reason == "stripe_customer_missing"
    assert [invoice["customer"] for invoice in with_key.test.invoices.values()] == ["cus_good"]
