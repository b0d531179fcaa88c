"""An open invoice is voided here and at Stripe, once; what it billed is billed again only when that is wanted."""

import json
from contextlib import suppress
from decimal import Decimal
from itertools import product
from typing import Any, Literal

import pytest

from flusher.database import connect
from flusher.invoicing.corrections import Connection, Corrector
from flusher.invoicing.gateway import RefusedError, UnavailableError
from flusher.invoicing.invoice import Invoice, Status
from flusher.invoicing.status import bring
from sidecar.contract.codes import TaximeterError
from tests.invoicing.delivery import Open, age_intents, load, make
from tests.invoicing.dying import LEFT, DyingCursor, Killed
from tests.invoicing.finals import VOID, finals_to, send
from tests.invoicing.test_lost_calls import DyingGateway
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

WHY = "made in error"


def void(world: World, gateway: Any, invoice: str, *, rebill: bool = False) -> Invoice:
    return void_on(world.connection, gateway, invoice, rebill=rebill)


def void_on(connection: Connection, gateway: Any, invoice: str, *, rebill: bool = False) -> Invoice:
    return Corrector(connection, gateway).void(invoice, WHY, rebill=rebill)


def july(world: World) -> Invoice:
    """Make July's invoice without Stripe: 101.73 USD."""
    world.subscribe("cus_1")
    world.use("cus_1", 12345, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    return invoice


def test_an_open_invoice_is_voided_here_and_there(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    for _ in range(2):
        assert void(world, finals_to(stand_in), ours).status is Status.VOID
    assert stand_in.test.invoices[theirs]["status"] == "void"
    assert len(stand_in.calls_to(VOID)) == 1


@pytest.mark.parametrize("effect", ["before", "after"])
def test_a_call_that_is_lost_is_made_up_for(
    world: World, stand_in: StripeStandIn, open_gateway: Open, effect: Literal["before", "after"]
) -> None:
    answers: tuple[Literal["drop"] | int, ...] = ("drop", 409, 429, 500)
    for answer, later in product(answers, (False, True)):
        ours, theirs = send(world, stand_in, open_gateway, f"cus_{answer}_{later}")
        stand_in.fault(VOID, effect, answer)
        try:
            void(world, finals_to(stand_in), ours)
            assert answer == 500  # looked up at once
        except UnavailableError:
            assert load(world, ours).status is Status.OPEN
        if later:
            age_intents(world, stand_in)
        assert void(world, finals_to(stand_in), ours).status is Status.VOID
        assert stand_in.test.invoices[theirs]["status"] == "void"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_call_it_is_void_in_the_end(
    world: World, stand_in: StripeStandIn, open_gateway: Open, moment: str
) -> None:
    for later in (False, True):
        ours, theirs = send(world, stand_in, open_gateway, f"cus_{later}")
        with pytest.raises(Killed):
            void(world, DyingGateway(finals_to(stand_in), 0, moment), ours)
        if later:
            age_intents(world, stand_in)
        assert void(world, finals_to(stand_in), ours).status is Status.VOID
        assert stand_in.test.invoices[theirs]["status"] == "void"


def test_killed_at_any_statement_it_is_billed_again_once(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given voids, each of which is killed one statement later than the one before, until one ends by itself
    ours, _ = send(world, stand_in, open_gateway)
    for statements in range(100):
        with connect(world.url, autocommit=True) as connection:
            connection.cursor_factory = DyingCursor
            LEFT[0] = statements
            with suppress(Killed):
                void_on(connection, finals_to(stand_in), ours, rebill=True)
                break

    # Then it is void, and the next run bills the same again, once
    assert 8 < statements < 99
    assert load(world, ours).status is Status.VOID
    totals = [[invoice.total for invoice in world.run(utc(2025, 8, day), stripe=True).invoices] for day in (20, 21)]
    assert totals == [[Decimal("101.73")], []]


def test_one_that_was_paid_meanwhile_is_not_voided_and_is_paid_here_too(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.pay(theirs, {})
    with pytest.raises(RefusedError, match="This invoice isn't: paid"):
        void(world, finals_to(stand_in), ours)
    assert load(world, ours).status is Status.PAID
    with pytest.raises(TaximeterError) as refused:
        void(world, finals_to(stand_in), ours)
    assert refused.value.code == "invoice_not_open"


def test_an_invoice_on_its_way_is_not_voided(world: World, stand_in: StripeStandIn) -> None:
    with pytest.raises(TaximeterError) as refused:
        void(world, finals_to(stand_in), make(world, stand_in))
    assert refused.value.code == "invoice_not_open"


def test_what_a_voided_invoice_billed_stays_billed(world: World) -> None:
    invoice = july(world)
    assert void(world, None, invoice.id).status is Status.VOID
    world.use("cus_1", 100, utc(2025, 8, 5))
    (august,) = world.run(utc(2025, 9, 1)).invoices
    assert august.total == 0


def test_with_rebill_the_next_run_bills_it_again_and_once(world: World) -> None:
    # Given an invoice with what came late after it, which August's billed as a difference
    invoice = july(world)
    world.use("cus_1", 55, utc(2025, 7, 6), came=utc(2025, 8, 2))
    (august,) = world.run(utc(2025, 9, 1)).invoices
    assert august.total == Decimal("0.27")  # 101.73 were billed, 102.00 it costs

    # When July's is voided to be billed again, also when that is said twice
    for _ in range(2):
        void(world, None, invoice.id, rebill=True)

    # Then September's bills what July's billed, and nothing else ever does
    (september,) = world.run(utc(2025, 10, 1)).invoices
    assert september.total == Decimal("101.73")
    (october,) = world.run(utc(2025, 11, 1)).invoices
    assert october.total == 0


def test_one_that_was_voided_at_stripe_can_be_billed_again(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given the invoice of an ended subscription, voided by hand and long ago
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.void(theirs, {})
    bring(world.connection, ours, Status.VOID)
    assert world.run(utc(2025, 8, 20), stripe=True).invoices == []

    void(world, finals_to(stand_in), ours, rebill=True)

    (again,) = world.run(utc(2025, 8, 21), stripe=True).invoices
    assert (again.total, again.lines[0].kind) == (Decimal("101.73"), "adjustment")
    assert world.run(utc(2025, 8, 22), stripe=True).invoices == []


def test_credit_that_it_drew_is_given_back_once(
    world: World, taximeter: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given an invoice that drew 30 of 30
    granted = ("--customer", "cus_1", "--amount", "30.00", "--currency", "usd", "--name", "prepaid")
    assert taximeter("credits", "grant", *granted, "--effective", "2025-01-01T00:00:00Z") == 0
    invoice = july(world)
    assert invoice.total == Decimal("71.73")

    for _ in range(2):
        assert taximeter("invoices", "void", invoice.id, "--reason", WHY) == 0

    capsys.readouterr()
    assert taximeter("credits", "--json") == 0
    assert json.loads(capsys.readouterr().out)["balances"] == [
        {"customer": "cus_1", "currency": "usd", "balance": "30"}
    ]


def test_flags_of_void_stand_with_it_alone_and_a_reason_is_needed(world: World, taximeter: Any) -> None:
    invoice = july(world)
    assert taximeter("invoices", "void", invoice.id) == 2
    assert taximeter("invoices", "void", "--reason", WHY) == 2
    assert taximeter("invoices", invoice.id, "--rebill") == 2
    assert taximeter("invoices", "void", "inv_of_nobody", "--reason", WHY) == 1
    assert taximeter("invoices", invoice.id) == 0
    assert load(world, invoice.id).status is Status.OPEN


def test_what_is_billed_again_is_paid_with_the_credit_that_was_given_back(world: World, taximeter: Any) -> None:
    granted = ("--customer", "cus_1", "--amount", "30.00", "--currency", "usd", "--name", "prepaid")
    assert taximeter("credits", "grant", *granted, "--effective", "2025-01-01T00:00:00Z") == 0
    void(world, None, july(world).id, rebill=True)

    (august,) = world.run(utc(2025, 9, 1)).invoices
    assert august.total == Decimal("71.73")
    (row,) = world.connection.execute("SELECT sum(remaining) FROM credit_grants").fetchall()
    assert row == (0,)
