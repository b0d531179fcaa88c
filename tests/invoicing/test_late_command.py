"""`taximeter late`: what is held is listed with what it comes to, and billed once it is accepted."""

import json
from collections.abc import Callable

import pytest

from tests.invoicing.world import World, utc

Run = Callable[..., int]


@pytest.fixture
def held(world: World) -> World:
    """A closed July with usage that came in November, which is worth 10 dollars."""
    world.subscribe("cus_1")
    world.run(utc(2025, 10, 1))
    world.use("cus_1", 2000, utc(2025, 7, 5), came=utc(2025, 11, 6))
    world.run(utc(2025, 12, 1))
    return world


def test_what_is_held_is_listed(held: World, taximeter: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert taximeter("late", "--json") == 0
    assert json.loads(capsys.readouterr().out)["late"] == [
        {
            "subscription": "cus_1/pro",
            "customer": "cus_1",
            "period": {"from": "2025-07-01T00:00:00Z", "to": "2025-08-01T00:00:00Z"},
            "currency": "usd",
            "amount": "10.00",
            "accepted": False,
        }
    ]
    assert taximeter("late") == 0
    assert "10.00 USD" in capsys.readouterr().out
    assert taximeter("late", "--customer", "cus_2") == 0
    assert "nothing is held" in capsys.readouterr().out
    assert taximeter("late", "--late-limit-days", "500") == 0
    assert "nothing is held" in capsys.readouterr().out


def test_what_is_accepted_is_billed_by_the_next_invoice(
    held: World, taximeter: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("late", "accept", "cus_1/pro", "--reason", "agreed", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"accepted": "cus_1/pro", "reason": "agreed"}
    assert taximeter("late", "--json") == 0
    assert json.loads(capsys.readouterr().out)["late"][0]["accepted"] is True
    (december,) = held.run(utc(2026, 1, 1)).invoices
    assert str(december.total) == "10.00"


def test_nothing_is_accepted_for_nobody_or_without_a_reason(
    held: World, taximeter: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("late", "accept", "nobody", "--reason", "agreed") == 1
    assert "error: subscription_unknown" in capsys.readouterr().err
    assert taximeter("late", "accept", "cus_1/pro") == 2
