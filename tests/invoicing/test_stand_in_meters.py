"""Billing meters at the stand-in: v1, v2 and the stream, through Stripe's own package."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.client import stripe_client
from tests.stripe_stand_in.meters import Refused

DAY_S = 24 * 3600


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        running.clock.stop()
        running.test.add_customer("cus_1")
        running.test.add_meter("api_call")
        yield running


@pytest.fixture
def client(stand_in: StripeStandIn) -> Iterator[stripe.StripeClient]:
    with stripe_client(stand_in) as opened:
        yield opened


def usage(value: str = "25", customer: str = "cus_1", **more: object) -> Any:
    """Return the parameters of an event."""
    return {"event_name": "api_call", "payload": {"stripe_customer_id": customer, "value": value}, **more}


def counted(stand_in: StripeStandIn) -> list[str]:
    return [event["payload"]["value"] for event in stand_in.test.meter_events]


def stream(client: stripe.StripeClient, stand_in: StripeStandIn, *events: Any) -> None:
    """Open a session and send events."""
    token = client.v2.billing.meter_event_session.create().authentication_token
    with stripe_client(stand_in, token) as session:
        session.v2.billing.meter_event_stream.create({"events": list(events)})


def test_a_meter_is_made_listed_and_switched_off(client: stripe.StripeClient) -> None:
    meters = client.v1.billing.meters
    made = meters.create({"display_name": "Tokens", "event_name": "tokens", "default_aggregation": {"formula": "sum"}})

    assert [meter.event_name for meter in meters.list({"status": "active"}).data] == ["tokens", "api_call"]
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        meters.create({"display_name": "x", "event_name": "tokens", "default_aggregation": {"formula": "sum"}})
    assert meters.deactivate(made.id).status == "inactive"
    assert [meter.event_name for meter in meters.list({"status": "active"}).data] == ["api_call"]
    assert meters.reactivate(made.id).status == meters.retrieve(made.id).status == "active"


def test_an_identifier_counts_once_in_a_day_and_again_after_it(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    # Given an event with an identifier
    client.v1.billing.meter_events.create(usage(identifier="ours-1"))

    # When it comes again within a day, then it is refused
    stand_in.later(DAY_S - 1)
    with pytest.raises(stripe.InvalidRequestError, match="An event already exists with identifier ours-1"):
        client.v1.billing.meter_events.create(usage(identifier="ours-1"))
    assert counted(stand_in) == ["25"]

    # And when the day is over, then Stripe has forgotten it
    stand_in.later(1)
    client.v1.billing.meter_events.create(usage(identifier="ours-1"))
    assert counted(stand_in) == ["25", "25"]


@pytest.mark.parametrize("value", ["1.5", "", "x", "1e3", "9" * 16])
def test_only_whole_numbers_are_counted(client: stripe.StripeClient, stand_in: StripeStandIn, value: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.billing.meter_events.create(usage(value))
    assert refused.value.code == "meter_event_invalid_value"

    client.v1.billing.meter_events.create(usage("-7"))
    assert counted(stand_in) == ["-7"]


def test_events_of_35_days_and_of_the_next_5_minutes_are_counted(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    now = stand_in.clock.now()
    for timestamp in (now - 35 * DAY_S, now + 300):
        assert client.v1.billing.meter_events.create(usage(timestamp=timestamp)).timestamp == timestamp

    for timestamp, code in ((now - 35 * DAY_S - 1, "timestamp_too_far_in_past"), (now + 301, "timestamp_in_future")):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.billing.meter_events.create(usage(timestamp=timestamp))
        assert refused.value.code == code
    assert len(stand_in.test.meter_events) == 2


def test_unknown_meters_and_customers_are_refused(client: stripe.StripeClient) -> None:
    wrong: list[tuple[Any, str]] = [
        ({**usage(), "event_name": "other"}, "no_meter"),
        (usage(customer="cus_2"), "meter_event_customer_not_found"),
        ({**usage(), "payload": {"value": "1"}}, "meter_event_no_customer_defined"),
    ]
    for params, code in wrong:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.billing.meter_events.create(params)
        assert refused.value.code == code


def test_summaries_add_up_what_a_customer_used(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    # Given usage in two hours, and of another customer
    (meter,) = stand_in.test.meters
    hour = stand_in.clock.now() // 3600 * 3600 - 7200
    stand_in.test.add_customer("cus_2")
    for value, timestamp, customer in (("5", hour, "cus_1"), ("6", hour + 3599, "cus_1"), ("7", hour + 3600, "cus_1")):
        client.v1.billing.meter_events.create(usage(value, customer, timestamp=timestamp))
    client.v1.billing.meter_events.create(usage("100", "cus_2", timestamp=hour))

    # Then windows are half-open, and can be grouped
    def summaries(**more: object) -> list[tuple[int, float]]:
        params: Any = {"customer": "cus_1", "start_time": hour, **more}
        found = client.v1.billing.meters.event_summaries.list(meter, params)
        return [(row.start_time, row.aggregated_value) for row in reversed(found.data)]

    assert summaries(end_time=hour + 3600) == [(hour, 11)]
    assert summaries(end_time=hour + 7200, value_grouping_window="hour") == [(hour, 11), (hour + 3600, 7)]
    with pytest.raises(stripe.InvalidRequestError, match="aligned"):
        summaries(end_time=hour + 61)


def test_v2_takes_one_event_with_its_time_in_words(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    at = stand_in.clock.now() - 60
    words = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    event = client.v2.billing.meter_events.create(usage(identifier="ours-1", timestamp=words))

    assert (event.object, event.identifier) == ("v2.billing.meter_event", "ours-1")
    assert [kept["timestamp"] for kept in stand_in.test.meter_events] == [at]


def test_the_stream_counts_what_is_right_and_drops_the_rest_silently(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stream(
        client,
        stand_in,
        usage("1", identifier="a"),
        usage("2", identifier="a"),
        usage("3", identifier="b", timestamp="2001-01-01T00:00:00Z"),
        usage("0.5", identifier="c"),
        usage("4", identifier="d"),
    )

    assert counted(stand_in) == ["1", "4"]
    assert stand_in.test.refused_events == [
        Refused("duplicate_meter_event", "a"),
        Refused("timestamp_too_far_in_past", "b"),
        Refused("meter_event_invalid_value", "c"),
    ]


def test_the_stream_takes_100_events_and_knows_its_parameters(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stream(client, stand_in, *[usage()] * 100)
    assert len(stand_in.test.meter_events) == 100

    with pytest.raises(stripe.InvalidRequestError, match="At most 100"):
        stream(client, stand_in, *[usage()] * 101)
    with pytest.raises(stripe.InvalidRequestError, match=r"unknown parameter: events\[0\]\[valeu\]"):
        stream(client, stand_in, usage(valeu="1"))
    assert len(stand_in.test.meter_events) == 100


def test_a_session_ends_after_a_quarter_of_an_hour(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    session = client.v2.billing.meter_event_session.create()
    with stripe_client(stand_in, session.authentication_token) as opened:
        stand_in.later(15 * 60 - 1)
        opened.v2.billing.meter_event_stream.create({"events": [usage()]})

        stand_in.later(1)
        with pytest.raises(stripe.TemporarySessionExpiredError):
            opened.v2.billing.meter_event_stream.create({"events": [usage()]})
        with pytest.raises(stripe.AuthenticationError):
            opened.v1.customers.list()

    with pytest.raises(stripe.AuthenticationError):
        client.v2.billing.meter_event_stream.create({"events": [usage()]})
    assert counted(stand_in) == ["25"]


def test_a_key_of_v2_replays_success_and_not_failure(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    # Given a call of v2 that failed after its effect
    route = "POST /v2/billing/meter_events"
    stand_in.fault(route, "after", 500)
    with pytest.raises(stripe.APIError):
        client.v2.billing.meter_events.create(usage(identifier="a"), {"idempotency_key": "key-1"})

    # Then its key gives what was done, 29 days later too
    stand_in.later(29 * DAY_S)
    event = client.v2.billing.meter_events.create(usage(identifier="a"), {"idempotency_key": "key-1"})
    assert event.identifier == "a"
    assert counted(stand_in) == ["25"]
    assert [call.replayed for call in stand_in.calls_to(route)] == [False, True]


def test_a_key_of_v2_lets_a_refused_call_succeed_later(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        client.v2.billing.meter_events.create(usage(customer="cus_2"), {"idempotency_key": "key-1"})

    stand_in.test.add_customer("cus_2")
    client.v2.billing.meter_events.create(usage(customer="cus_2"), {"idempotency_key": "key-1"})
    assert counted(stand_in) == ["25"]
