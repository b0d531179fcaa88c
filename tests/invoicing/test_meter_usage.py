"""Taking usage into meter events: all of it, once, whatever comes late, is voided, or runs at the same time."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import timedelta
from decimal import Decimal

import pytest

from flusher.invoicing import meter_usage
from flusher.invoicing.meter_usage import Wanted, take_usage
from tests.invoicing import metering
from tests.invoicing.metering import assert_taken, carried, hours_ago, in_events, take
from tests.invoicing.world import World


@pytest.fixture
def metered(world: World) -> World:
    world.apply(metering.CATALOG)
    return world


def test_each_hour_that_has_ended_becomes_an_event_of_its_whole_units(metered: World) -> None:
    metered.use("ann", "10.75", hours_ago(3), region="eu")
    metered.use("ann", "1.5", hours_ago(3) + timedelta(minutes=40), region="us")
    metered.use("ann", "1", hours_ago(2))
    metered.use("ann", "7", hours_ago(0))

    assert take(metered) == []

    found = metered.connection.execute("SELECT hour, units FROM metered_events ORDER BY hour").fetchall()
    assert found == [(hours_ago(3), 12), (hours_ago(2), 1)]
    assert carried(metered, "ann", "api_call") == Decimal("0.25")


def test_usage_is_taken_once_and_late_usage_is_a_difference(metered: World) -> None:
    metered.use("ann", "3.5", hours_ago(3))
    take(metered)
    take(metered)
    metered.use("ann", "2.75", hours_ago(3))
    take(metered)

    assert in_events(metered, "ann", "api_call", "pending") == 6
    assert carried(metered, "ann", "api_call") == Decimal("0.25")


def test_voided_usage_is_carried_until_more_was_used(metered: World) -> None:
    metered.use("ann", 10, hours_ago(5))
    take(metered)
    metered.use("ann", -8, hours_ago(5))
    metered.use("ann", 3, hours_ago(4))
    take(metered)
    assert in_events(metered, "ann", "api_call", "pending") == 10
    assert carried(metered, "ann", "api_call") == -5

    metered.use("ann", 6, hours_ago(3))
    take(metered)

    assert_taken(metered, "ann", "api_call")
    assert carried(metered, "ann", "api_call") == 0


def test_usage_of_all_users_is_the_customers_also_when_a_user_changes_hands(metered: World) -> None:
    for user in ("u1", "u2"):
        metered.use(user, "5.5", hours_ago(4))
    take(metered)
    metered.apply('[[customers]]\nid = "acme"\nuser_ids = ["u1", "u2"]\nstripe_customer = "cus_acme"\n')
    metered.use("u1", 1, hours_ago(2))
    take(metered)

    assert_taken(metered, "acme", "api_call", ["u1", "u2"])
    for user in ("u1", "u2"):
        assert in_events(metered, user, "api_call", "pending") + carried(metered, user, "api_call") == 0


def test_usage_waits_for_a_sidecar_that_may_hold_more_of_the_hour(metered: World) -> None:
    metered.use("ann", 5, hours_ago(3))
    metered.use("ann", 7, hours_ago(2))
    metered.producer("producer-1", hours_ago(2) + timedelta(minutes=1))
    wanted = Wanted(metering.METERS, hours_ago(48), window=timedelta(hours=24))

    (held,) = take_usage(metered.connection, wanted, lambda _done, _of: None)

    assert held.why.reason == "producers_behind"
    assert in_events(metered, "ann", "api_call", "pending") == 5


def test_usage_over_which_the_proof_is_broken_waits(metered: World) -> None:
    for user in ("ann", "bob"):
        metered.use(user, 5, hours_ago(3))
    metered.discrepancy("ann", hours_ago(3))

    (held,) = (one for one in take(metered) if one.meter == "api_call")

    assert (held.customer, held.why.reason) == ("ann", "proof_broken")
    assert [in_events(metered, user, "api_call", "pending") for user in ("ann", "bob")] == [0, 5]
    metered.resolve()
    assert take(metered) == []
    assert_taken(metered, "ann", "api_call")


def test_usage_before_the_first_hour_and_of_other_customers_stays(metered: World) -> None:
    for hours, user in ((9, "ann"), (5, "ann"), (5, "bob")):
        metered.use(user, 1, hours_ago(hours))

    take(metered, since=hours_ago(6), customer="ann")

    assert metered.connection.execute("SELECT customer, hour FROM metered_events").fetchall() == [("ann", hours_ago(5))]


def test_usage_is_taken_page_after_page_but_not_that_of_erased_customers(
    metered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_usage, "CUSTOMERS_AT_ONCE", 2)
    monkeypatch.setattr(meter_usage, "HOURS_AT_ONCE", 2)
    users = [f"user-000{number}" for number in range(7)]
    for user in users:
        for hours in (2, 3, 4):
            metered.use(user, "1.4", hours_ago(hours))
    for user in users[1:4]:
        metered.connection.execute("INSERT INTO erasures (erasure, users) VALUES (%s || '-erasure', 1)", (user,))
        metered.connection.execute(
            "INSERT INTO erased_users (token, erasure) VALUES (%s, %s)", (user, f"{user}-erasure")
        )

    take(metered)

    for user in (users[0], *users[4:]):
        assert_taken(metered, user, "api_call")
    assert [in_events(metered, user, "api_call", "pending") for user in users[1:4]] == [0, 0, 0]


def test_runs_at_the_same_time_take_everything_once(metered: World) -> None:
    users = [f"user-{number}" for number in range(30)]
    for user in users:
        for hours in (2, 3, 4):
            metered.use(user, "1.4", hours_ago(hours))

    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        worlds = [stack.enter_context(closing(World(metered.url))) for _ in range(3)]
        list(pool.map(take, worlds))

    for user in users:
        assert_taken(metered, user, "api_call")


def test_any_usage_in_any_order_over_many_runs_is_taken_to_the_last_digit(metered: World) -> None:
    dice = random.Random(7)
    users = ["ann", "bob", "eve"]
    for _ in range(12):
        for _ in range(10):
            units = Decimal(dice.randrange(-(10**9), 4 * 10**9)).scaleb(-dice.randrange(10))
            metered.use(
                dice.choice(users), str(units), hours_ago(dice.randrange(1, 9)), meter=dice.choice(metering.METERS)
            )
        take(metered)

    for user in users:
        for meter in metering.METERS:
            assert_taken(metered, user, meter)
