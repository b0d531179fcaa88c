"""Every call to Stripe may be lost and every run may be killed: it is one invoice, right to the cent."""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal

import pytest

from flusher.database import connect
from flusher.invoicing.deliver import Deliverer
from flusher.invoicing.gateway import Gateway
from flusher.invoicing.invoice import Delivery
from flusher.invoicing.payload import StripeTerms
from tests.invoicing.delivery import (
    ADD_LINES,
    CREATE,
    FINALIZE,
    LINES,
    READ,
    Open,
    age_intents,
    assert_delivered_once,
    deliver,
    load,
    make,
    make_wide,
)
from tests.invoicing.dying import LEFT, DyingCursor, Killed
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn


@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("route", [CREATE, ADD_LINES, READ, FINALIZE])
def test_a_call_that_is_lost_is_made_up_for(
    world: World, stand_in: StripeStandIn, open_gateway: Open, route: str, effect: Literal["before", "after"]
) -> None:
    answers: tuple[Literal["drop"] | int, ...] = ("drop", 409, 429, 500)
    for answer, later in product(answers, (False, True)):
        # Given a call that fails before or after its effect
        invoice_id = make(world, stand_in, f"cus_{answer}_{later}")
        stand_in.fault(route, effect, answer)
        first = deliver(world, open_gateway(), invoice_id)
        assert [(waiting.id, waiting.reason) for waiting in first.waiting] == [(invoice_id, "stripe_unavailable")]

        # When it is run again, at once or when the key is forgotten
        if later:
            age_intents(world, stand_in)
        deliver(world, open_gateway(retries=1), invoice_id)

        # Then there is one invoice
        assert_delivered_once(world, stand_in, invoice_id)


@pytest.mark.parametrize(("route", "answer"), [(ADD_LINES, "drop"), (ADD_LINES, 500), (LINES, "drop")])
def test_of_many_lines_each_call_may_be_lost(
    world: World, stand_in: StripeStandIn, open_gateway: Open, route: str, answer: Literal["drop"] | int
) -> None:
    effects: tuple[Literal["before", "after"], ...] = ("before", "after")
    for effect, later in product(effects, (False, True)):
        # Given an invoice whose lines take two calls to put there and two to read, of which the second is lost
        invoice_id = make_wide(world, stand_in, f"cus_{effect}_{later}", 110)
        stand_in.fault(route, effect, answer, skip=1)
        assert len(deliver(world, open_gateway(), invoice_id).waiting) == 1

        # When it is run again, at once or when the key is forgotten
        if later:
            age_intents(world, stand_in)
        deliver(world, open_gateway(retries=1), invoice_id)

        # Then every line is there once
        assert_delivered_wide(world, stand_in, invoice_id)


def test_of_lines_that_reached_stripe_in_part_only_the_others_are_sent_again(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given a call that Stripe fails after a part of its lines
    invoice_id = make_wide(world, stand_in, "cus_1", 60)
    stand_in.fault(ADD_LINES, "after", 500)
    deliver(world, open_gateway(), invoice_id)
    for item in list(stand_in.test.items)[::2]:
        stand_in.test.delete_item(item, {})

    deliver(world, open_gateway(retries=1), invoice_id)

    assert [len(call.params["lines"]) for call in stand_in.calls_to(ADD_LINES)] == [60, 60, 30]
    assert_delivered_wide(world, stand_in, invoice_id)


def assert_delivered_wide(world: World, stand_in: StripeStandIn, invoice_id: str) -> None:
    ours = load(world, invoice_id)
    (theirs,) = (found for found in stand_in.test.invoices.values() if found["customer"] == ours.customer)
    items = [item for item in stand_in.test.items.values() if item["customer"] == ours.customer]
    assert (theirs["status"], theirs["total"], ours.delivery) == ("open", len(ours.lines) * 100, Delivery.SENT)
    assert sorted(item["metadata"]["taximeter_line"] for item in items) == sorted(line.id for line in ours.lines)


def test_calls_are_repeated_within_a_run(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    invoice_id = make(world, stand_in)
    for route in (CREATE, ADD_LINES, FINALIZE):
        stand_in.fault(route, "after", "drop")
        stand_in.fault(route, "before", 409)

    deliver(world, open_gateway(retries=3), invoice_id)

    assert_delivered_once(world, stand_in, invoice_id)


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
                Deliverer(connection, gateway, StripeTerms()).deliver(invoice_id)
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
    for call, later in product(range(6), (False, True)):
        # Given a delivery that is killed around one of its calls
        invoice_id = make(world, stand_in, f"cus_{call}_{later}")
        dying: Any = DyingGateway(open_gateway(), call, moment)
        try:
            deliver(world, dying, invoice_id)
            assert call >= 4  # create, add lines, compare, finalize
        except Killed:
            assert call < 4

        # When it is run again, at once or when the keys are forgotten
        if later:
            age_intents(world, stand_in)
        deliver(world, open_gateway(), invoice_id)

        # Then there is one invoice
        assert_delivered_once(world, stand_in, invoice_id)


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
