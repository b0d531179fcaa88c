"""Many invoices at once: threads, one rate, two runs, an outage, a key that is no good."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from flusher.invoicing.gateway import StripeSettings
from flusher.invoicing.invoice import Delivery
from flusher.invoicing.outbox import Outbox, standing
from sidecar.contract.codes import TaximeterError
from tests.invoicing.delivery import CREATE, FINALIZE, assert_delivered_once, delivered, load, make
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn

OpenOutbox = Callable[..., Outbox]


@pytest.fixture
def settings(stand_in: StripeStandIn) -> StripeSettings:
    return StripeSettings("sk_test_x", stand_in.base_url, rate=1_000, concurrency=4, retries=3, backoff_s=0)


@pytest.fixture
def outbox(world: World, settings: StripeSettings) -> Outbox:
    return Outbox(world.url, settings)


def test_each_invoice_is_delivered_once_by_whichever_thread(
    world: World, stand_in: StripeStandIn, outbox: Outbox
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(12)]
    heard: list[tuple[int, int]] = []

    outbox.deliver(ids, lambda done, of: heard.append((done, of)))

    assert standing(world.connection, ids).sent == ids
    assert heard == [(done, 12) for done in range(1, 13)]
    for invoice_id in ids:
        assert_delivered_once(world, stand_in, invoice_id)


def test_two_runs_at_once_make_one_invoice_each(
    world: World, stand_in: StripeStandIn, settings: StripeSettings
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(6)]

    with ThreadPoolExecutor(3) as pool:
        for ended in [pool.submit(Outbox(world.url, settings).deliver, ids) for _ in range(3)]:
            ended.result()

    assert standing(world.connection, ids).sent == ids
    assert len(stand_in.test.invoices) == len(stand_in.calls_to(CREATE)) == 6
    for invoice_id in ids:
        assert_delivered_once(world, stand_in, invoice_id)


def test_a_rate_that_stripe_does_not_take_is_found(world: World, stand_in: StripeStandIn, outbox: Outbox) -> None:
    # Given a Stripe that takes 6 calls a second, and we would send 1,000
    ids = [make(world, stand_in, f"cus_{number}") for number in range(6)]
    limit = stand_in.limit(6)

    outbox.deliver(ids)

    # Then everything comes through, with few refusals: each of them makes all threads wait
    assert standing(world.connection, ids).sent == ids
    assert 0 < limit.refused < 30


def test_after_three_invoices_without_an_answer_the_rest_waits(
    world: World, stand_in: StripeStandIn, settings: StripeSettings
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(5)]
    stand_in.fault(CREATE, "before", "drop", times=100)

    Outbox(world.url, replace(settings, concurrency=1, retries=0)).deliver(ids)

    assert standing(world.connection, ids).waiting == ids
    assert len(stand_in.calls_to(CREATE)) == 3
    assert [load(world, invoice_id).reason for invoice_id in ids] == ["stripe_unavailable"] * 3 + [None] * 2


def test_what_is_refused_is_parked_and_the_others_go_on(world: World, stand_in: StripeStandIn, outbox: Outbox) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(6)]
    del stand_in.test.customers["cus_2"]
    stand_in.test.customers["cus_4"]["currency"] = "eur"

    outbox.deliver(ids)

    found = delivered(world, *ids)
    assert [invoice.customer for invoice in found.sent] == ["cus_0", "cus_1", "cus_3", "cus_5"]
    assert [(invoice.customer, invoice.reason) for invoice in found.parked] == [
        ("cus_2", "stripe_resource_missing"),
        ("cus_4", "stripe_refused"),
    ]
    assert all("run `taximeter invoice` again" in str(invoice.detail) for invoice in found.parked)


def test_a_key_that_expires_during_the_run_stops_it_and_it_goes_on_with_another(
    world: World, stand_in: StripeStandIn, settings: StripeSettings
) -> None:
    ids = [make(world, stand_in, f"cus_{number}") for number in range(4)]
    stand_in.fault(FINALIZE, "before", 401, times=100)

    with pytest.raises(TaximeterError) as refused:
        Outbox(world.url, settings).deliver(ids)
    assert refused.value.code == "stripe_key_refused"
    assert all(load(world, invoice_id).delivery is Delivery.PENDING for invoice_id in ids)

    stand_in.heal()
    Outbox(world.url, replace(settings, api_key="sk_test_new")).deliver(ids)
    for invoice_id in ids:
        assert_delivered_once(world, stand_in, invoice_id)
