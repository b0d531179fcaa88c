"""Whether a price can be asked of its meter, and a subscription's own terms of its plan."""

from decimal import Decimal

import pytest

from flusher.catalog.fitting import meter_problems, override_problems, wants_values
from flusher.catalog.plan_reader import (
    read_overrides,
    read_plan,
)
from flusher.pricing.plan import (
    Fixed,
    FixedPrice,
    Overrides,
    Plan,
)
from sidecar.contract.meters import Meter
from tests.catalog.plan_tables import EU, EVERYTHING, PLAN, PRICE, REST, Values, price_of, read

SUM = Meter("calls", "calls", group_by=("region",))
UNIQUE = Meter("calls", "calls", "unique", "properties.user")
RATE = {"model": "percentage", "rate": "1"}


@pytest.mark.parametrize(
    ("keys", "meter", "expected"),
    [
        ({}, UNIQUE, {}),
        ({"per_group": True}, SUM, {}),
        ({"per_group": True}, UNIQUE, {"per_group": 'expected a meter with group_by, got "calls" without'}),
        (RATE, SUM, {}),
        (RATE, UNIQUE, {"model": 'expected a meter with aggregation "sum", got "unique"'}),
        (RATE, Meter("calls", "calls", "count"), {"model": 'got "count"'}),
        ({"model": "graduated_percentage", "tiers": [{"rate": "1"}]}, UNIQUE, {"model": 'got "unique"'}),
        ({"model": "matrix", "prices": [EU, REST]}, SUM, {}),
        (
            {"model": "matrix", "prices": [{**EU, "match": {"region": "eu", "size": "big"}}, REST]},
            SUM,
            {"prices[0].match": 'a key of the meter\'s group_by ("region"), got "size"'},
        ),
        ({"model": "matrix", "prices": [EU, REST]}, UNIQUE, {"prices[0].match": "group_by (none)"}),
    ],
)
def test_what_a_meter_cant_give_to_a_price_is_named(keys: Values, meter: Meter, expected: dict[str, str]) -> None:
    base = {"meter": "calls"} if "model" in keys else PRICE
    found = dict(meter_problems(price_of({**base, **keys}), meter))
    assert found.keys() == expected.keys()
    assert all(says in found[key] for key, says in expected.items())


def test_a_fee_asks_nothing_of_a_meter() -> None:
    fee = FixedPrice("base", Fixed(Decimal(1)))
    assert list(meter_problems(fee, UNIQUE)) == []
    assert not wants_values(fee)


def test_single_events_are_wanted_by_what_is_per_event_alone() -> None:
    def wanted(**keys: object) -> bool:
        return wants_values(price_of({"meter": "calls", **RATE, **keys}))

    assert not wanted(fee_per_event="1")
    assert wanted(free_events=1)
    assert wanted(minimum_per_event="1")
    assert wanted(maximum_per_event="1")


def test_what_doesnt_go_with_the_plan_is_named_by_its_place_in_the_overrides() -> None:
    base: Plan = read(read_plan, {**PLAN, **EVERYTHING})
    overrides = read(
        read_overrides,
        {
            "prices": [PRICE, {**PRICE, "name": "weekly", "interval": "week"}],
            "minimum": "2000",
            "discounts": [{"name": "own", "amount": "1"}, {"name": "sorry", "amount": "1"}],
            "commitment": {"amount": "1", "interval": "day"},
            "credits": [{"name": "welcome", "amount": "1"}],
        },
    )
    assert {path: message.split(",")[0] for path, message in override_problems(base, overrides)} == {
        "prices[1].interval": "expected an interval that divides the plan's",
        "commitment.interval": "expected the plan's interval",
        "minimum": "the minimum would be 2000",
        "discounts[1].name": '"sorry" is one of the plan\'s; give it another name',
        "credits[0].name": '"welcome" is one of the plan\'s; give it another name',
    }
    lower = read(read_overrides, {"maximum": "5"})
    assert [path for path, _ in override_problems(base, lower)] == ["maximum"]
    assert list(override_problems(base, Overrides())) == []
