"""Late usage: billed by itself within the late limit, held for an operator behind it."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from flusher.invoicing.late import Held, list_held, release
from flusher.pricing.period import Period
from sidecar.contract.codes import TaximeterError
from tests.invoicing.world import World, utc

JULY = Period(utc(2025, 7, 1), utc(2025, 8, 1))
LIMIT = timedelta(days=35)


def test_what_comes_later_than_the_limit_is_held_until_an_operator_lets_it_be_billed(world: World) -> None:
    # given three closed months, of which one gets usage in time, and another one 36 days after its end
    world.subscribe("cus_1")
    world.run(utc(2025, 10, 1))
    world.use("cus_1", 2000, utc(2025, 7, 5), came=utc(2025, 9, 6))
    world.use("cus_1", 3000, utc(2025, 9, 5), came=utc(2025, 10, 31))
    # when the next month is billed
    (october,) = world.run(utc(2025, 11, 1)).invoices
    # then the one is adjusted, and the other one is held
    assert [(line.kind, str(line.amount), line.period.start) for line in october.lines] == [
        ("adjustment", "20.00", utc(2025, 9, 1))
    ]
    assert list(list_held(world.connection, LIMIT)) == [
        Held("cus_1/pro", "cus_1", JULY, "usd", Decimal("10.00"), released=False)
    ]
    # and once it is released the next invoice bills it, once
    release(world.connection, "cus_1/pro", "the customer agreed")
    assert [held.released for held in list_held(world.connection, LIMIT)] == [True]
    (november,) = world.run(utc(2025, 12, 1)).invoices
    assert [(line.kind, str(line.amount), line.period) for line in november.lines] == [("adjustment", "10.00", JULY)]
    assert list(list_held(world.connection, LIMIT)) == []
    world.use("cus_1", 100, utc(2025, 7, 6), came=utc(2025, 12, 2))
    (december,) = world.run(utc(2026, 1, 1)).invoices
    assert december.lines == ()


@pytest.mark.parametrize(("came", "held"), [(utc(2025, 9, 5), False), (utc(2025, 9, 5, 0, 1), True)])
def test_the_limit_is_counted_from_the_end_of_the_period_to_when_the_usage_came(
    world: World, came: datetime, held: bool
) -> None:
    world.subscribe("cus_1")
    world.run(utc(2025, 9, 1))
    world.use("cus_1", 2000, utc(2025, 7, 5), came=came)
    (september,) = world.run(utc(2025, 10, 1)).invoices
    assert (not september.lines) is held
    assert bool(list(list_held(world.connection, LIMIT))) is held


def test_what_comes_in_time_is_billed_however_long_the_next_period_is(world: World) -> None:
    world.apply(
        '[[plans]]\nname = "yearly"\ncurrency = "usd"\ninterval = "year"\n'
        'prices = [{meter = "api_call", model = "per_unit", unit_price = "0.01"}]\n'
    )
    world.subscribe("cus_1", "yearly", start="2023-01-01T00:00:00Z")
    world.run(utc(2024, 1, 1))
    world.use("cus_1", 2000, utc(2023, 7, 5), came=utc(2024, 2, 1))
    (year,) = world.run(utc(2025, 1, 1)).invoices
    assert str(year.total) == "20.00"


def test_a_subscription_that_does_not_exist_can_not_be_released(world: World) -> None:
    with pytest.raises(TaximeterError, match="no subscription 'nobody'"):
        release(world.connection, "nobody", "why not")


def test_a_release_is_kept_until_there_is_something_to_bill(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.run(utc(2025, 8, 1))
    release(world.connection, "cus_1/pro", "a backfill comes")
    assert world.run(utc(2026, 3, 1)).invoices == []
    world.use("cus_1", 2000, utc(2025, 7, 5), came=utc(2026, 3, 2))
    (late,) = world.run(utc(2026, 3, 3)).invoices
    assert (late.kind.value, str(late.total)) == ("adjustment", "10.00")
