"""Plans, and what subscriptions have otherwise, read from tables and written back."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from flusher.catalog.plan_reader import (
    overrides_table,
    own_table,
    plan_table,
    read_overrides,
    read_own,
    read_plan,
)
from flusher.catalog.price_reader import read_price
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    Entry,
    Fixed,
    FixedPrice,
    GraduatedPercentage,
    Matrix,
    Overrides,
    Percentage,
    PerUnit,
    RateTier,
    Stairstep,
    Tier,
    UsageModel,
    UsagePrice,
)
from tests.catalog.plan_tables import EVERYTHING, PLAN, PRICE, READ, Values, read, usage_price
from tests.pricing.dice import Dice


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            usage_price(model="stairstep", tiers=[{"up_to": 10, "flat_fee": "5"}, {"flat_fee": 9}]),
            Stairstep((Tier(Decimal(10), flat_fee=Decimal(5)), Tier(None, flat_fee=Decimal(9)))),
        ),
        (usage_price(model="percentage", rate="1.2"), Percentage(Decimal("1.2"))),
        (
            usage_price(
                model="percentage",
                rate=3,
                fee_per_event="0.3",
                free_events=2,
                minimum_per_event="1",
                maximum_per_event="5",
            ),
            Percentage(Decimal(3), Decimal("0.3"), 2, Decimal(1), Decimal(5)),
        ),
        (
            usage_price(model="graduated_percentage", tiers=[{"up_to": "9.5", "rate": "2"}, {"flat_fee": "1"}]),
            GraduatedPercentage((RateTier(Decimal("9.5"), Decimal(2)), RateTier(None, Decimal(0), Decimal(1)))),
        ),
        (
            usage_price(
                model="matrix",
                prices=[
                    {"match": {"size": 4, "region": "eu", "spot": True}, "unit_price": "2"},
                    {"match": {}, "unit_price": 1},
                ],
            ),
            Matrix(
                (
                    Entry((("region", "eu"), ("size", "4"), ("spot", "true")), Decimal(2)),
                    Entry((), Decimal(1)),
                )
            ),
        ),
        (
            usage_price(model="matrix", prices=[{"match": {"region": "eu"}, "unit_price": "2"}], unmatched="free"),
            Matrix((Entry((("region", "eu"),), Decimal(2)),)),
        ),
    ],
)
def test_every_model_is_read(values: Values, expected: UsageModel) -> None:
    assert read(read_price, values) == UsagePrice("calls", "calls", expected)


def test_everything_around_a_price_is_read() -> None:
    values = {**PRICE, "minimum": "5", "maximum": 50, "interval": "quarter", "prorate": True, "free_units": "2.5"}
    assert read(read_price, values) == UsagePrice(
        "calls",
        "calls",
        PerUnit(Decimal(1)),
        Decimal("2.5"),
        minimum=Decimal(5),
        maximum=Decimal(50),
        interval=Interval.QUARTER,
        prorate=True,
    )
    fee: Values = {"name": "base", "model": "fixed", "amount": "9", "interval": "year"}
    assert read(read_price, fee) == FixedPrice("base", Fixed(Decimal(9)), Interval.YEAR)


def test_everything_around_a_plan_is_read() -> None:
    plan = read(read_plan, {**PLAN, **EVERYTHING})
    assert plan == read(read_plan, PLAN).under(READ)
    assert (plan.trial_days, plan.threshold, plan.commitment) == (14, Decimal(250), READ.commitment)


def test_a_plan_without_anything_around_it_keeps_the_table_it_always_had() -> None:
    assert plan_table(read(read_plan, PLAN)) == {
        "name": "pro",
        "currency": "usd",
        "interval": "month",
        "anchor": "calendar",
        "rounding": "half_up",
        "prices": [
            {
                "name": "calls",
                "meter": "calls",
                "model": "per_unit",
                "unit_price": "1",
                "free_units": "0",
                "per_group": False,
            }
        ],
    }


def test_what_a_subscription_has_otherwise_is_read_from_its_entry_and_from_a_table_of_its_own() -> None:
    flat = {**EVERYTHING, "prices": [PRICE]}
    overrides = read(read_overrides, flat)
    assert overrides == replace(READ, prices=(UsagePrice("calls", "calls", PerUnit(Decimal(1))),))
    # Given the entry of a file, then rates and limits stand in `overrides`, the others in the entry itself
    inner = {key: flat[key] for key in ("prices", "minimum", "maximum", "threshold")}
    entry = {key: value for key, value in flat.items() if key not in inner} | {"overrides": inner}
    assert read(read_own, {"id": "a", "plan": "pro", **entry}) == overrides
    assert read(read_own, {"id": "a", "plan": "pro", **own_table(overrides)}) == overrides
    assert read(read_own, {"id": "a"}) == read(read_overrides, {}) == Overrides()
    assert own_table(Overrides()) == overrides_table(Overrides()) == {}


def test_a_trial_of_no_days_takes_away_the_plans() -> None:
    overrides = read(read_overrides, {"trial": {"days": 0}})
    assert overrides_table(overrides) == {"trial": {"days": 0}}
    assert read(read_plan, {**PLAN, **EVERYTHING}).under(overrides).trial_days == 0


def test_a_table_is_read_to_what_wrote_it_and_written_the_same_again() -> None:
    dice = Dice(5)
    for _ in range(500):
        plan = dice.plan(dice.random.choice(list(Interval)))
        # Given a plan of any kind, as a database keeps it
        table = json.loads(json.dumps(plan_table(plan)))
        # Then it is read as it was, and its table doesn't change
        assert (again := read(read_plan, table)) == plan
        assert plan_table(again) == table
        overrides = Overrides(plan.prices, None, plan.minimum, plan.maximum, plan.discounts, plan.commitment)
        assert read(read_overrides, json.loads(json.dumps(overrides_table(overrides)))) == overrides
