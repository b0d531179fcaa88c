"""Plans, and what subscriptions have otherwise, read from tables and written back."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

import pytest

from flusher.catalog.fitting import meter_problems, override_problems, wants_values
from flusher.catalog.plan_reader import (
    overrides_table,
    own_table,
    plan_table,
    read_overrides,
    read_own,
    read_plan,
)
from flusher.catalog.price_reader import read_price
from flusher.catalog.reader import FloatText, Report, Table
from flusher.pricing.money import Rounding
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    Commitment,
    Credit,
    Discount,
    Entry,
    Fixed,
    FixedPrice,
    GraduatedPercentage,
    Matrix,
    Overrides,
    Percentage,
    PerUnit,
    Plan,
    Price,
    RateTier,
    Stairstep,
    Tier,
    UsageModel,
    UsagePrice,
)
from sidecar.contract.meters import Meter
from tests.pricing.dice import Dice

Values = dict[str, object]
PRICE: Values = {"meter": "calls", "model": "per_unit", "unit_price": "1"}
PLAN: Values = {"name": "pro", "currency": "usd", "prices": [PRICE]}


_T = TypeVar("_T")


def read(reader: Callable[[Table], _T | None], values: Values) -> _T:
    """What a table says; fails with its problems."""
    report = Report()
    found = reader(Table(report, "", values))
    assert report.problems == []
    assert found is not None
    return found


def price_of(values: Values) -> Price:
    """The price of a table."""
    found = read_price(Table(Report(), "", values))
    assert found is not None
    return found


def problems(reader: Callable[[Table], object], values: Values) -> dict[str, str]:
    report = Report()
    assert reader(Table(report, "", values)) is None
    return {problem.path: problem.message for problem in report.problems}


def usage_price(**keys: object) -> Values:
    return {"meter": "calls", **keys}


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


EVERYTHING: Values = {
    "rounding": "half_even",
    "minimum": "10",
    "maximum": "1000",
    "threshold": "250",
    "discounts": [{"percent": "12.5", "duration": 3}, {"name": "sorry", "amount": "5"}],
    "commitment": {"amount": "1200", "interval": "year"},
    "credits": [
        {"name": "welcome", "amount": "20"},
        {
            "name": "prepaid",
            "amount": "100",
            "priority": 5,
            "expires_days": 365,
            "cost_basis": "0.8",
            "every_period": True,
        },
    ],
    "trial": {"days": 14},
}
READ = Overrides(
    rounding=Rounding.HALF_EVEN,
    minimum=Decimal(10),
    maximum=Decimal(1000),
    discounts=(Discount("discount", percent=Decimal("12.5"), duration=3), Discount("sorry", amount=Decimal(5))),
    commitment=Commitment(Decimal(1200), Interval.YEAR),
    credits=(
        Credit("welcome", Decimal(20)),
        Credit("prepaid", Decimal(100), 5, 365, Decimal("0.8"), every_period=True),
    ),
    trial_days=14,
    threshold=Decimal(250),
)


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


def plan(**keys: object) -> Values:
    return {**PLAN, **keys}


def priced(**keys: object) -> Values:
    return plan(prices=[{**PRICE, **keys}])


def tiered(model: str, *tiers: Values) -> Values:
    return plan(prices=[usage_price(model=model, tiers=list(tiers))])


def matrix(*prices: Values, **keys: object) -> Values:
    return plan(prices=[usage_price(model="matrix", prices=list(prices), **keys)])


def percentage(**keys: object) -> Values:
    return plan(prices=[usage_price(model="percentage", **{"rate": "1", **keys})])


FIRST = "prices[0]"
REST: Values = {"match": {}, "unit_price": "1"}
EU: Values = {"match": {"region": "eu"}, "unit_price": "1"}


@pytest.mark.parametrize(
    ("values", "path", "says"),
    [
        (tiered("stairstep", {"up_to": 5, "flat_fee": 1}), f"{FIRST}.tiers[0].up_to", "none in the last tier"),
        (tiered("stairstep", {"flat_fee": 1, "unit_price": 1}), f"{FIRST}.tiers[0].unit_price", "unknown key"),
        (tiered("stairstep", {}), f"{FIRST}.tiers[0]", 'expected flat_fee, it is missing; write flat_fee = "0"'),
        (
            tiered("stairstep", {"up_to": 5, "flat_fee": 1}, {"up_to": 5, "flat_fee": 1}, {"flat_fee": 1}),
            f"{FIRST}.tiers[1].up_to",
            "a quantity above 5",
        ),
        (tiered("graduated_percentage", {"rate": "-1"}), f"{FIRST}.tiers[0].rate", "0 or more"),
        (
            tiered("graduated_percentage", {"rate": FloatText("0.5")}),
            f"{FIRST}.tiers[0].rate",
            'write it in quotes: "0.5"',
        ),
        (tiered("graduated_percentage", {"rate": "1000000"}), f"{FIRST}.tiers[0].rate", "percent below 10^6"),
        (tiered("graduated_percentage", {}), f"{FIRST}.tiers[0]", "expected rate or flat_fee, got neither"),
        (percentage(rate="1.00000000001"), f"{FIRST}.rate", "at most 10 fractional digits"),
        (percentage(free_events="3"), f"{FIRST}.free_events", "an integer from 0 to 1,000,000"),
        (percentage(free_events=True), f"{FIRST}.free_events", "an integer"),
        (percentage(minimum_per_event="2", maximum_per_event="1"), f"{FIRST}.minimum_per_event", "at most the maximum"),
        (percentage(free_events=1, free_units="5"), f"{FIRST}.free_units", "none beside free_events"),
        (percentage(minimum_per_event="-1"), f"{FIRST}.minimum_per_event", "0 or more"),
        (priced(fee_per_event="1"), f"{FIRST}.fee_per_event", "unknown key"),
        (priced(free_events=1), f"{FIRST}.free_events", "unknown key"),
        (priced(minimum_per_event="1"), f"{FIRST}.minimum_per_event", "unknown key"),
        (priced(unmatched="free"), f"{FIRST}.unmatched", "unknown key"),
        (matrix(EU), f"{FIRST}.prices[0].match", "match = {} in the last entry"),
        (matrix(EU, unmatched="paid"), f"{FIRST}.unmatched", 'one of "free"'),
        (matrix(REST, EU), f"{FIRST}.prices[1].match", "prices[0].prices[0] comes first and matches all"),
        (matrix(EU, EU, REST), f"{FIRST}.prices[1].match", "comes first"),
        (matrix({"unit_price": "1"}), f"{FIRST}.prices[0].match", "write match = {} for all others"),
        (matrix({**EU, "match": {"region": ["eu"]}}, REST), f"{FIRST}.prices[0].match.region", "got an array"),
        (
            matrix({**EU, "match": {"region": FloatText("1.5")}}, REST),
            f"{FIRST}.prices[0].match.region",
            "the float 1.5",
        ),
        (matrix({**EU, "match": {"region": ""}}, REST), f"{FIRST}.prices[0].match.region", "not empty"),
        (matrix({**EU, "unit_price": "-1"}, REST), f"{FIRST}.prices[0].unit_price", "0 or more"),
        (matrix(), f"{FIRST}.prices", "at least one"),
        (priced(minimum="5", maximum="4"), f"{FIRST}.minimum", "at most the maximum, 4"),
        (priced(maximum="-1"), f"{FIRST}.maximum", "0 or more"),
        (priced(minimum=FloatText("1.5")), f"{FIRST}.minimum", 'write it in quotes: "1.5"'),
        (priced(interval="hour"), f"{FIRST}.interval", 'one of "day"'),
        (
            priced(interval="week"),
            f"{FIRST}.interval",
            'divides the plan\'s, "month", or is a multiple of it, got "week"',
        ),
        (priced(prorate="yes"), f"{FIRST}.prorate", "true or false"),
        (priced(name="minimum"), f"{FIRST}.name", 'another name for the price than "minimum", "maximum", "commitment"'),
        (priced(meter="commitment"), f"{FIRST}.meter", "another name for the price"),
        (plan(minimum="5", maximum="4"), "minimum", "at most the maximum, 4"),
        (plan(minimum=FloatText("5.0")), "minimum", "write it in quotes"),
        (plan(threshold="0"), "threshold", "an amount above 0"),
        (plan(rounding="up"), "rounding", '"half_up"'),
        (plan(overrides={}), "overrides", "unknown key"),
        (plan(discounts=[{"percent": "10", "amount": "1"}]), "discounts[0]", "either percent or amount, got both"),
        (plan(discounts=[{"name": "a"}]), "discounts[0]", "either percent or amount, got neither"),
        (plan(discounts=[{"percent": "100.1"}]), "discounts[0].percent", "at most 100 percent"),
        (plan(discounts=[{"percent": FloatText("0.1")}]), "discounts[0].percent", "write it in quotes"),
        (plan(discounts=[{"amount": "-1"}]), "discounts[0].amount", "0 or more"),
        (plan(discounts=[{"amount": "1", "duration": 0}]), "discounts[0].duration", "an integer from 1"),
        (plan(discounts=[{"amount": "1", "until": 3}]), "discounts[0].until", "unknown key"),
        (
            plan(discounts=[{"amount": "1"}, {"percent": "1"}]),
            "discounts[1].name",
            '"discount" names an earlier discount',
        ),
        (plan(discounts={"amount": "1"}), "discounts", "an array of tables"),
        (plan(commitment={"amount": "1"}), "commitment.interval", "it is missing"),
        (plan(commitment={"interval": "year"}), "commitment.amount", "it is missing"),
        (plan(commitment={"amount": "1", "interval": "day"}), "commitment.interval", 'or a multiple of it, got "day"'),
        (plan(commitment={"amount": "1", "interval": "week"}), "commitment.interval", "or a multiple of it"),
        (plan(commitment="100"), "commitment", "a table"),
        (plan(credits=[{"amount": "-5"}]), "credits[0].amount", "0 or more"),
        (
            plan(credits=[{"amount": "5", "expires": 3}]),
            "credits[0].expires",
            "unknown key; did you mean expires_days?",
        ),
        (plan(credits=[{"amount": "5"}, {"amount": "6"}]), "credits[1].name", '"credit" names an earlier credit'),
        (plan(trial=14), "trial", "a table"),
        (plan(trial={"days": -1}), "trial.days", "an integer from 0"),
        (plan(trial={"days": 14, "hours": 2}), "trial.hours", "unknown key"),
    ],
)
def test_what_a_plan_cant_have_is_refused_with_the_path_and_the_reason(values: Values, path: str, says: str) -> None:
    found = problems(read_plan, values)
    assert list(found) == [path]
    assert says in found[path]


def test_what_a_subscription_cant_have_otherwise_is_refused_too() -> None:
    assert list(problems(read_overrides, {"minimum": "2", "maximum": "1"})) == ["minimum"]
    assert list(problems(read_overrides, {"currency": "eur"})) == ["currency"]
    assert list(problems(read_own, {"overrides": {"discounts": []}})) == ["overrides.discounts"]
    assert list(problems(read_own, {"overrides": {"prices": [{**PRICE, "unit_price": "-1"}]}})) == [
        "overrides.prices[0].unit_price"
    ]
    assert list(problems(read_own, {"discounts": [{}]})) == ["discounts[0]"]


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
