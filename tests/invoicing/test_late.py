"""Late usage: billed by itself within the late limit, held for an operator behind it."""

from datetime import timedelta
from decimal import Decimal

import pytest

from flusher.invoicing.late import Held, list_held, release
from flusher.pricing.period import Period
from sidecar.contract.codes import TaximeterError
from tests.invoicing.world import World, utc

JULY = Period(utc(2025, 7, 1), utc(2025, 8, 1))
LIMIT = timedelta(days=35)


def test_usage_of_a_period_behind_the_late_limit_is_held_until_an_operator_lets_it_be_billed(world: World) -> None:
    # given three closed months, of which two change
    world.subscribe("cus_1")
    world.run(utc(2025, 10, 1))
    world.use("cus_1", 2000, utc(2025, 7, 5))
    world.use("cus_1", 3000, utc(2025, 9, 5))
    # when the next month is billed
    (october,) = world.run(utc(2025, 11, 1)).invoices
    # then it adjusts the one that ended within 35 days, and the other one is held
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
    world.use("cus_1", 100, utc(2025, 7, 6))
    (december,) = world.run(utc(2026, 1, 1)).invoices
    assert december.lines == ()


def test_a_subscription_that_does_not_exist_can_not_be_released(world: World) -> None:
    with pytest.raises(TaximeterError, match="no subscription 'nobody'"):
        release(world.connection, "nobody", "why not")


def test_the_late_limit_is_counted_from_when_the_run_makes_invoices(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.run(utc(2025, 8, 1))
    world.use("cus_1", 2000, utc(2025, 7, 5))
    assert world.run(utc(2025, 9, 5)).invoices == []  # 35 days after July
    (late,) = world.run(utc(2025, 9, 4, 23)).invoices
    assert (late.kind.value, str(late.total)) == ("adjustment", "10.00")
