"""Sending meter events: whatever is lost, refused or ended on the way, Stripe has what was used, to the unit."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest

from flusher.invoicing import meter_sink
from flusher.invoicing.deliver import bind_stripe
from flusher.invoicing.gateway import StripeSettings
from flusher.invoicing.meter_calls import Api
from flusher.invoicing.meter_gateway import MeterEvent, MeterGateway
from flusher.invoicing.meter_sink import Sent, decide, send_events
from flusher.invoicing.sink import bind_meters
from sidecar.contract.codes import TaximeterError, TryAgainError
from tests.invoicing import metering
from tests.invoicing.metering import assert_taken, carried, hours_ago, in_events, take
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.faults import BAD_DAY, Answer, Effect

V1 = "POST /v1/billing/meter_events"
SESSION = "POST /v2/billing/meter_event_session"
STREAM = "POST /v2/billing/meter_event_stream"
NAMES = {"api_call": "api_call", "tokens": "llm_tokens"}
LOST: list[tuple[Effect, Answer]] = [*BAD_DAY, ("after", 409)]


@dataclass
class Sink:
    """A ledger, and a Stripe that knows its meters and two customers."""

    world: World
    stand_in: StripeStandIn

    def push(self, api: Api = Api.V1, *, retries: int = 0, since_hours: int = 30 * 24) -> Sent:
        take(self.world, since=hours_ago(since_hours))
        return self.send(api, retries=retries)

    def send(self, api: Api = Api.V1, *, retries: int = 0) -> Sent:
        settings = StripeSettings("sk_test_x", self.stand_in.base_url, rate=1_000, retries=retries, backoff_s=0)
        sent = Sent()
        send_events(self.world.connection, self.world.url, settings, NAMES, api, sent)
        return sent

    def at_stripe(self, customer: str, meter: str = "api_call") -> int:
        return sum(
            int(event["payload"]["value"])
            for event in self.stand_in.test.meter_events
            if (event["payload"]["stripe_customer_id"], event["event_name"]) == (customer, NAMES[meter])
        )

    def states(self) -> dict[str, int]:
        found = self.world.connection.execute("SELECT state, count(*) FROM metered_events GROUP BY state").fetchall()
        return dict(found)

    def a_day_passes(self) -> None:
        """Let 25 hours pass, here and at Stripe: identifiers are forgotten there."""
        self.world.connection.execute(
            "UPDATE metered_events SET tried_at = tried_at - interval '25 hours', ended_at = ended_at - interval '25 h'"
        )
        self.stand_in.later(25 * 3600)

    def assert_even(self, *customers: str) -> None:
        """Stripe has what was sent, and that with what is carried is what was used."""
        for customer in customers or ("ann", "bob"):
            for meter in NAMES:
                assert self.at_stripe(customer, meter) == in_events(self.world, customer, meter, "sent")
                assert_taken(self.world, customer, meter)


@pytest.fixture
def sink(world: World, stand_in: StripeStandIn) -> Sink:
    world.apply(metering.CATALOG)
    for customer in ("ann", "bob"):
        stand_in.test.add_customer(customer)
    for name in NAMES.values():
        stand_in.test.add_meter(name)
    return Sink(world, stand_in)


@pytest.fixture
def used(sink: Sink) -> Sink:
    """Two customers used both meters in three hours."""
    for hours in (2, 3, 4):
        for customer, units in (("ann", "10.5"), ("bob", "3.25")):
            for meter in NAMES:
                sink.world.use(customer, units, hours_ago(hours), meter=meter)
    return sink


@pytest.mark.parametrize("api", Api)
def test_what_was_used_is_at_stripe_under_its_names_and_hours(used: Sink, api: Api) -> None:
    sent = used.push(api)

    assert sent.events == {"api_call": 6, "tokens": 6}
    assert sent.units == {"api_call": Decimal(40), "tokens": Decimal(40)}
    assert [used.at_stripe(customer) for customer in ("ann", "bob")] == [31, 9]
    assert [carried(used.world, customer, "tokens") for customer in ("ann", "bob")] == [Decimal("0.5"), Decimal("0.75")]
    times = {event["timestamp"] for event in used.stand_in.test.meter_events}
    assert times == {int(hours_ago(hours).timestamp()) for hours in (2, 3, 4)}
    assert used.push(api).events == {}
    used.assert_even()


@pytest.mark.parametrize(("effect", "answer"), LOST)
@pytest.mark.parametrize("route", [V1, STREAM, SESSION])
def test_a_call_that_fails_is_made_good_by_the_next_run(used: Sink, route: str, effect: Effect, answer: Answer) -> None:
    api = Api.V1 if route == V1 else Api.V2
    used.stand_in.fault(route, effect, answer)

    used.push(api)
    assert used.states()["pending"] > 0
    used.push(api)

    assert used.states() == {"sent": 12}
    used.assert_even()


@pytest.mark.parametrize("api", Api)
def test_a_call_that_fails_is_repeated_at_once(used: Sink, api: Api) -> None:
    used.stand_in.fault(V1 if api is Api.V1 else STREAM, "after", 500, times=2)

    used.push(api, retries=3)

    assert used.states() == {"sent": 12}
    used.assert_even()


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize("step", ["_begin", "_store"])
def test_a_run_that_is_killed_between_the_calls_and_the_record_of_them_sends_nothing_twice(
    used: Sink, monkeypatch: pytest.MonkeyPatch, step: str, api: Api
) -> None:
    whole = getattr(meter_sink._Sender, step)

    def killed(self: object, *arguments: object) -> None:
        if step == "_begin":
            whole(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(meter_sink._Sender, step, killed)
        with pytest.raises(KeyboardInterrupt):
            used.push(api)
    assert used.states() == {"pending": 12}
    used.push(api)

    assert used.states() == {"sent": 12}
    used.assert_even()


@pytest.mark.parametrize("effect", ["before", "after"])
def test_after_a_day_stripes_own_sum_says_what_it_has(used: Sink, effect: Effect) -> None:
    used.stand_in.fault(V1, effect, "drop", times=100)
    used.push()
    used.stand_in.heal()
    before = len(used.stand_in.calls_to(V1))
    used.a_day_passes()

    used.send()

    assert used.states() == {"sent": 12}
    tried = 4 if effect == "after" else 0  # a customer and meter is given up on at its first event
    assert len(used.stand_in.calls_to(V1)) - before == 12 - tried
    used.assert_even()


def test_what_stripes_sum_can_not_tell_is_parked_until_somebody_says(sink: Sink) -> None:
    sink.world.use("ann", 5, hours_ago(3))
    sink.stand_in.fault(V1, "before", "drop")
    sink.push()
    sink.a_day_passes()
    sink.stand_in.test.create_meter_event(
        "",
        {
            "event_name": "api_call",
            "identifier": "somebody-else",
            "timestamp": int(hours_ago(3).timestamp()),
            "payload": {"stripe_customer_id": "ann", "value": "2"},
        },
    )

    sink.send()

    found = sink.world.connection.execute("SELECT identifier, state, reason FROM metered_events").fetchall()
    ((identifier, state, reason),) = found
    assert (state, reason) == ("parked", "meter_event_unconfirmed")
    decide(sink.world.connection, identifier, again=True, reason="looked it up")
    sink.push()
    assert sink.at_stripe("ann") == 2 + 5
    with pytest.raises(TaximeterError, match="is returned, and only parked ones wait"):
        decide(sink.world.connection, identifier, again=False, reason="again")
    with pytest.raises(TaximeterError, match="meter_event_missing"):
        decide(sink.world.connection, "nothing", again=True, reason="none")


def test_sums_are_not_asked_for_while_something_of_the_hour_is_new(sink: Sink) -> None:
    sink.world.use("ann", 5, hours_ago(3))
    sink.stand_in.fault(V1, "after", "drop")
    sink.push()
    sink.a_day_passes()
    sink.world.use("ann", 5, hours_ago(3))
    take(sink.world)
    sink.stand_in.heal()
    # The late usage is sent first, as if another run had been at it a moment ago.
    sink.world.connection.execute("UPDATE metered_events SET tried_at = now() WHERE tried_at IS NOT NULL")
    sink.world.connection.execute(
        "UPDATE metered_events SET state = 'sent', ended_at = now(), tried_at = now(), event_name = 'api_call',"
        " stripe_customer = 'ann' WHERE tried_at IS NULL"
    )
    sink.world.connection.execute(
        "UPDATE metered_events SET tried_at = now() - interval '25 hours' WHERE state = 'pending'"
    )

    sink.send()

    assert sink.states() == {"pending": 1, "sent": 1}


def test_usage_older_than_stripe_takes_is_parked_and_goes_with_the_next_when_somebody_says_so(sink: Sink) -> None:
    sink.world.use("ann", "5.5", hours_ago(36 * 24))
    sink.world.use("ann", "2.5", hours_ago(3))

    sink.push(since_hours=40 * 24)

    found = sink.world.connection.execute("SELECT identifier FROM metered_events WHERE reason = 'meter_event_too_old'")
    ((identifier,),) = found.fetchall()
    assert (sink.at_stripe("ann"), sink.states()) == (3, {"parked": 1, "sent": 1})
    decide(sink.world.connection, identifier, again=True, reason="bill it now")
    sink.push(since_hours=40 * 24)
    assert sink.at_stripe("ann") == 8
    assert carried(sink.world, "ann", "api_call") == 0


@pytest.mark.parametrize(
    ("api", "reason"), [(Api.V1, "stripe_meter_event_customer_not_found"), (Api.V2, "stripe_customer_missing")]
)
def test_an_event_of_nobody_at_stripe_is_parked_and_the_others_go(used: Sink, api: Api, reason: str) -> None:
    used.world.use("eve", 7, hours_ago(3))

    used.push(api)

    assert used.states() == {"sent": 12, "parked": 1}
    row = used.world.connection.execute("SELECT reason FROM metered_events WHERE state = 'parked'").fetchone()
    assert row == (reason,)
    used.world.apply('[[customers]]\nid = "eve"\nuser_ids = ["eve"]\nstripe_customer = "cus_eve"\n')
    used.stand_in.test.add_customer("cus_eve")
    used.push(api)
    assert (used.states(), used.at_stripe("cus_eve")) == ({"sent": 13}, 7)


@pytest.mark.parametrize(("api", "reason"), [(Api.V1, "stripe_no_meter"), (Api.V2, "stripe_meter_missing")])
def test_events_of_a_meter_that_stripe_does_not_have_are_parked(used: Sink, api: Api, reason: str) -> None:
    (meter,) = (found for found in used.stand_in.test.meters.values() if found["event_name"] == "llm_tokens")
    used.stand_in.test.deactivate_meter(meter["id"], {})

    used.push(api)

    assert used.states() == {"sent": 6, "parked": 6}
    found = used.world.connection.execute(
        "SELECT DISTINCT reason FROM metered_events WHERE state = 'parked'"
    ).fetchall()
    assert found == [(reason,)]
    used.stand_in.test.reactivate_meter(meter["id"], {})
    used.push(api)
    used.assert_even()


def test_an_event_that_is_refused_when_it_is_repeated_waits_for_stripes_sum(sink: Sink) -> None:
    sink.world.use("ann", 5, hours_ago(3))
    sink.stand_in.fault(V1, "after", "drop")
    sink.push()
    sink.stand_in.fault(V1, "before", 400)

    sink.push()
    assert sink.states() == {"pending": 1}
    sink.a_day_passes()
    sink.send()

    assert sink.states() == {"sent": 1}
    sink.assert_even("ann")


def test_a_batch_that_is_refused_is_sent_event_by_event(used: Sink) -> None:
    used.stand_in.fault(STREAM, "before", 400)

    used.push(Api.V2)

    assert used.states() == {"sent": 12}
    assert len(used.stand_in.calls_to(STREAM)) == 13


def test_a_ledger_that_was_bound_to_meters_meanwhile_sends_no_invoice(sink: Sink) -> None:
    settings = StripeSettings("sk_test_x", sink.stand_in.base_url, rate=1_000)
    with closing(MeterGateway(settings)) as gateway:
        bind_meters(sink.world.connection, gateway, hours_ago(24))

        with pytest.raises(TaximeterError, match="sent to Stripe as meters"):
            bind_stripe(sink.world.connection, gateway)


def test_a_stripe_that_does_not_answer_is_not_asked_for_everything(used: Sink) -> None:
    used.stand_in.fault(V1, "before", 503, times=1_000)

    used.push()

    assert len(used.stand_in.calls_to(V1)) < 12
    assert used.states() == {"pending": 12}


def test_of_two_runs_at_once_one_sends(used: Sink) -> None:
    take(used.world)

    def send(world: World) -> bool:
        try:
            Sink(world, used.stand_in).push()
        except TryAgainError:
            return False
        return True

    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        worlds = [stack.enter_context(closing(World(used.world.url))) for _ in range(3)]
        went = list(pool.map(send, worlds))

    assert any(went)
    used.assert_even()
    assert used.states() == {"sent": 12}


def test_a_session_of_the_stream_is_renewed_in_time_and_when_it_has_ended(sink: Sink) -> None:
    event = MeterEvent("identifier-1", "api_call", "ann", 1, hours_ago(1))
    with closing(MeterGateway(StripeSettings("sk_test_x", sink.stand_in.base_url, rate=1_000, retries=0))) as gateway:
        gateway.send_events([event])
        gateway.send_events([event])
        assert len(sink.stand_in.calls_to(SESSION)) == 1

        sink.stand_in.later(16 * 60)
        gateway.send_events([event])
        assert len(sink.stand_in.calls_to(SESSION)) == 2

        gateway._stream_until -= timedelta(minutes=30)
        gateway.send_events([event])
        assert len(sink.stand_in.calls_to(SESSION)) == 3
    assert sink.at_stripe("ann") == 1


@pytest.mark.parametrize("api", Api)
def test_any_usage_over_a_bad_week_is_at_stripe_or_carried_to_the_last_digit(sink: Sink, api: Api) -> None:
    dice = random.Random(11)
    sink.stand_in.chance(0.2, seed=5)
    for _ in range(8):
        for _ in range(12):
            units = Decimal(dice.randrange(-(10**9), 4 * 10**9)).scaleb(-dice.randrange(10))
            place = (dice.choice(["ann", "bob"]), str(units), hours_ago(dice.randrange(1, 9)))
            sink.world.use(*place, meter=dice.choice(list(NAMES)))
        sink.push(api, retries=1)
    sink.stand_in.heal()

    sink.push(api)

    assert set(sink.states()) == {"sent"}
    sink.assert_even()
