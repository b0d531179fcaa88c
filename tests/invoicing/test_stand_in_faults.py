"""The stand-in's switches: calls that fail by plan and by chance, rates, keys in flight, and other accounts."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.client import stripe_client

CREATE = "POST /v1/customers"
DEADLINE_S = 10.0


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        yield running


@pytest.fixture
def client(stand_in: StripeStandIn) -> Iterator[stripe.StripeClient]:
    with stripe_client(stand_in) as opened:
        yield opened


def create(client: stripe.StripeClient, key: str | None = None, **given: object) -> stripe.Customer:
    params: Any = given
    return client.v1.customers.create(params, {"idempotency_key": key} if key else {})


def failures(stand_in: StripeStandIn, client: stripe.StripeClient, calls: int, seed: int) -> list[bool]:
    """Make calls with a tenth of them failing; return which did."""
    stand_in.chance(0.1, seed=seed)
    found = []
    for _ in range(calls):
        try:
            create(client)
            found.append(False)
        except stripe.StripeError:
            found.append(True)
    stand_in.heal()
    return found


def test_chance_fails_the_same_share_of_calls_for_a_seed(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    first = failures(stand_in, client, 100, seed=1)

    assert failures(stand_in, client, 100, seed=1) == first
    assert failures(stand_in, client, 100, seed=2) != first
    assert 2 <= sum(first) <= 20


def test_any_route_can_be_failed(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.fault("*", "before", 503, skip=1)

    create(client)
    with pytest.raises(stripe.APIError):
        client.v1.customers.list()
    assert len(client.v1.customers.list().data) == 1


def test_a_key_that_is_forgotten_makes_a_second_object(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.fault(CREATE, "after", "forget")
    with pytest.raises(stripe.APIConnectionError):
        create(client, "key-1")
    create(client, "key-1")
    assert len(stand_in.test.customers) == 2

    stand_in.forget_keys()
    create(client, "key-1")
    assert len(stand_in.test.customers) == 3


@pytest.mark.parametrize(("status", "error"), [(409, stripe.APIError), (429, stripe.RateLimitError)])
def test_a_refusal_after_the_effect_leaves_the_effect_under_its_key(
    client: stripe.StripeClient, stand_in: StripeStandIn, status: int, error: type[stripe.StripeError]
) -> None:
    stand_in.fault(CREATE, "after", status)

    with pytest.raises(error):
        create(client, "key-1")

    assert create(client, "key-1").id in stand_in.test.customers
    assert len(stand_in.test.customers) == 1


def test_a_500_before_the_effect_is_replayed_and_nothing_was_made(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stand_in.fault(CREATE, "before", 500)

    for replayed in (None, "true"):
        with pytest.raises(stripe.APIError) as failed:
            create(client, "key-1")
        headers: Any = failed.value.headers
        assert headers.get("Idempotent-Replayed") == replayed
    assert stand_in.test.customers == {}


def test_a_key_in_flight_answers_409(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    # Given a call that takes its time
    stand_in.fault(CREATE, "after", "slow", seconds=DEADLINE_S)
    made: list[str] = []
    slow = threading.Thread(target=lambda: made.append(create(client, "key-1").id))
    slow.start()
    deadline = time.monotonic() + DEADLINE_S
    while not stand_in.test.customers and time.monotonic() < deadline:
        time.sleep(0.01)

    # When its key comes again meanwhile, then that is refused, and later it is replayed
    with stripe_client(stand_in) as second, pytest.raises(stripe.APIError) as refused:
        create(second, "key-1")
    body: Any = refused.value.json_body
    assert (refused.value.http_status, body["error"]["code"]) == (409, "idempotency_key_in_use")
    stand_in.heal()
    slow.join(DEADLINE_S)
    assert [create(client, "key-1").id] == made


def test_a_client_that_gives_up_finds_the_effect_under_its_key(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    stand_in.fault(CREATE, "after", "slow", seconds=0.6)
    with stripe_client(stand_in, timeout_s=0.2) as hasty, pytest.raises(stripe.APIConnectionError):
        create(hasty, "key-1")

    deadline = time.monotonic() + DEADLINE_S
    while not stand_in.calls and time.monotonic() < deadline:
        time.sleep(0.01)
    assert create(client, "key-1").id in stand_in.test.customers


def test_calls_above_the_rate_are_refused_until_time_passes(
    client: stripe.StripeClient, stand_in: StripeStandIn
) -> None:
    # Given three calls in a second of a clock that stands still
    stand_in.clock.stop()
    limit = stand_in.limit(3, of="stand-in")
    for _ in range(3):
        client.v1.customers.list()

    # Then the fourth is told when to come again, has no effect and no key
    with pytest.raises(stripe.RateLimitError) as refused:
        create(client, "key-1")
    headers: Any = refused.value.headers
    assert (headers["Retry-After"], limit.refused, stand_in.test.customers) == ("1", 1, {})

    # And a second later it passes
    stand_in.later(1)
    assert create(client, "key-1").id in stand_in.test.customers


def test_the_rate_is_also_of_real_time(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    limit = stand_in.limit(1)
    client.v1.customers.list()
    with pytest.raises(stripe.RateLimitError):
        client.v1.customers.list()

    deadline = time.monotonic() + DEADLINE_S
    while limit.refused and time.monotonic() < deadline:
        try:
            client.v1.customers.list()
            break
        except stripe.RateLimitError:
            time.sleep(0.05)
    first, *_, last = stand_in.calls
    assert last.at - first.at >= 1


def test_another_accounts_key_sees_nothing_of_ours(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    other = stand_in.give_key("sk_test_other", "acct_2")
    create(client, "key-1")

    with stripe_client(stand_in, "sk_test_other") as theirs:
        assert theirs.v1.accounts.retrieve_current().id == "acct_2"
        assert theirs.v1.customers.list().data == []
        create(theirs, "key-1", name="another")

    assert len(other.customers) == len(stand_in.test.customers) == 1
    assert stand_in.live.customers == {}


@pytest.mark.parametrize(("status", "error"), [(401, stripe.AuthenticationError), (403, stripe.PermissionError)])
def test_a_key_can_be_refused(
    client: stripe.StripeClient, stand_in: StripeStandIn, status: Any, error: type[stripe.StripeError]
) -> None:
    stand_in.refuse("sk_test_x", status)
    with pytest.raises(error):
        client.v1.customers.list()

    stand_in.heal()
    assert client.v1.customers.list().data == []


def test_a_customer_of_one_currency_takes_no_other(client: stripe.StripeClient, stand_in: StripeStandIn) -> None:
    stand_in.test.add_customer("cus_1", currency="usd")

    with pytest.raises(stripe.InvalidRequestError, match="cannot combine currencies"):
        client.v1.invoices.create({"customer": "cus_1", "currency": "eur"})


def test_metadata_has_limits(client: stripe.StripeClient) -> None:
    for metadata in ({"k" * 41: "v"}, {"k": "v" * 501}, {f"k{number}": "v" for number in range(51)}):
        with pytest.raises(stripe.InvalidRequestError, match="metadata"):
            create(client, metadata=metadata)
    made = create(client, metadata={"a": "1", "b": "2"})

    changed = client.v1.customers.update(made.id, {"metadata": {"a": "", "c": "3"}})
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
