"""What a plan and a subscription may not say, each refused with its path and the reason."""

import pytest

from flusher.catalog.plan_reader import (
    read_overrides,
    read_own,
    read_plan,
)
from flusher.catalog.reader import FloatText
from tests.catalog.plan_tables import EU, PLAN, PRICE, REST, Values, problems, usage_price


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
