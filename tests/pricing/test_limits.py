"""A price's own minimum and maximum: lines of their own, against the sum of its rounded lines."""

from datetime import timedelta
from decimal import Decimal

import pytest

from flusher.pricing.line import Line, total
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.plan import Fixed, FixedPrice, Graduated, PerUnit, UsageModel, UsagePrice
from flusher.pricing.rate import Measure
from tests.pricing.support import JULY, WHOLE_JULY, arrears, plan, tiers

HALF = BillingPeriod(Period(JULY.start, JULY.start + timedelta(days=15, hours=12)), JULY)


def limited(
    minimum: str | None = None,
    maximum: str | None = None,
    model: UsageModel | None = None,
    *,
    prorate: bool = False,
    per_group: bool = False,
) -> UsagePrice:
    low, high = (None if limit is None else Decimal(limit) for limit in (minimum, maximum))
    model = model or PerUnit(Decimal(1))
    return UsagePrice("calls", "calls", model, per_group=per_group, minimum=low, maximum=high, prorate=prorate)


def lines_of(price: UsagePrice, quantity: str, billing: BillingPeriod = WHOLE_JULY) -> tuple[Line, ...]:
    return arrears(plan(price), billing, {"calls": [Measure(Decimal(quantity))]})


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", [("minimum", "5.00")]),
        ("-3", [("minimum", "5.00")]),
        ("3.5", [("usage", "3.50"), ("minimum", "1.50")]),
        ("4.99", [("usage", "4.99"), ("minimum", "0.01")]),
        ("5", [("usage", "5.00")]),
        ("20", [("usage", "20.00")]),
        ("20.01", [("usage", "20.01"), ("maximum", "-0.01")]),
        ("50", [("usage", "50.00"), ("maximum", "-30.00")]),
    ],
)
def test_the_difference_is_a_line_of_its_own(quantity: str, expected: list[tuple[str, str]]) -> None:
    assert [(line.kind.value, str(line.amount)) for line in lines_of(limited("5", "20"), quantity)] == expected


def test_a_minimum_is_due_for_a_meter_that_shows_nothing_at_all() -> None:
    (line,) = arrears(plan(limited("5")), WHOLE_JULY, {})
    assert (line.price, line.meter, line.description) == ("calls", "calls", "calls, minimum of 5")
    assert (str(line.quantity), str(line.unit_price), str(line.amount)) == ("1", "5.00", "5.00")
    assert line.working == "5 - 0 = 5; rounded half up to 0.01: 5.00"


def test_the_rounded_lines_are_what_counts() -> None:
    # Given two tiers of half a cent each, rounded up to two cents together
    model = Graduated(tiers(("1", "0.005"), (None, "0.005")))
    # Then a minimum of two cents is reached, and a maximum of one cent is passed by one
    assert [str(line.amount) for line in lines_of(limited("0.02", None, model), "2")] == ["0.01", "0.01"]
    assert str(total(lines_of(limited(None, "0.01", model), "2"))) == "0.01"


def test_a_limit_with_more_digits_than_the_currency_is_rounded() -> None:
    assert str(total(lines_of(limited("4.995"), "0"))) == "5.00"
    assert str(total(lines_of(limited(None, "4.995"), "100"))) == "5.00"


def test_a_minimum_of_nothing_makes_no_line_and_a_maximum_of_nothing_makes_all_free() -> None:
    assert lines_of(limited("0"), "0") == ()
    assert str(total(lines_of(limited(None, "0"), "7"))) == "0.00"


def test_groups_priced_apart_have_one_minimum_together() -> None:
    shown = [Measure(Decimal(2), (("region", "eu"),)), Measure(Decimal(3), (("region", "us"),))]
    lines = arrears(plan(limited("10", per_group=True)), WHOLE_JULY, {"calls": shown})
    assert [(line.kind.value, str(line.amount)) for line in lines] == [
        ("usage", "2.00"),
        ("usage", "3.00"),
        ("minimum", "5.00"),
    ]
    assert lines[-1].dimensions is None


def test_limits_are_whole_in_a_partial_period_unless_they_are_prorated() -> None:
    assert str(total(lines_of(limited("5", "20"), "0", HALF))) == "5.00"
    assert str(total(lines_of(limited("5", "20", prorate=True), "0", HALF))) == "2.50"
    assert str(total(lines_of(limited("5", "20", prorate=True), "99", HALF))) == "10.00"
    (line,) = lines_of(limited("5", prorate=True), "0", HALF)
    assert line.description == "calls, minimum of 5, 1,339,200 of 2,678,400 seconds"


def test_a_whole_period_is_not_prorated() -> None:
    assert str(total(lines_of(limited("5", "20", prorate=True), "0"))) == "5.00"


def test_each_price_has_its_own_limits_and_fees_have_none() -> None:
    other = UsagePrice("seats", "seats", PerUnit(Decimal(1)), maximum=Decimal(2))
    lines = arrears(
        plan(limited("5"), FixedPrice("base", Fixed(Decimal(3))), other),
        WHOLE_JULY,
        {"seats": [Measure(Decimal(9))]},
    )
    assert [(line.price, line.kind.value, str(line.amount)) for line in lines] == [
        ("calls", "minimum", "5.00"),
        ("base", "fixed", "3.00"),
        ("seats", "usage", "9.00"),
        ("seats", "maximum", "-7.00"),
    ]
    assert len({line.id for line in lines}) == 4
