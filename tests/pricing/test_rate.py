"""Rating a plan: which lines, in which order, with which ids; groups; limits."""

from datetime import timedelta
from decimal import Decimal, Inexact, getcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.pricing.line import Dimensions, LineKind, dimensions_of, line_id, line_json, total
from flusher.pricing.money import currency
from flusher.pricing.period import BillingPeriod, Interval, Period
from flusher.pricing.plan import (
    Commitment,
    Discount,
    Entry,
    Fixed,
    FixedPrice,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Plan,
    RateTier,
    Stairstep,
    Tier,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.rate import Measure, Run
from tests.pricing.support import ARTICLE, JULY, WHOLE_JULY, arrears, plan, tiers

EU, US = (("region", "eu"),), (("region", "us"),)
quantities = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=9)


def graduated(*, per_group: bool = False) -> UsagePrice:
    return UsagePrice("calls", "calls", Graduated(tiers(("10", "1"), (None, "2"))), per_group=per_group)


def test_a_line_in_json_has_the_public_shape() -> None:
    (line, *_) = arrears(plan(graduated()), WHOLE_JULY, {"calls": [Measure(Decimal(3))]}, scope="inv_1")
    shown = line_json(line, currency("usd"))
    assert shown.pop("id") == line_id("inv_1", LineKind.USAGE, "calls", None, 1, JULY)
    assert shown == {
        "kind": "usage",
        "price": "calls",
        "meter": "calls",
        "dimensions": None,
        "tier": 1,
        "period": {"from": "2025-07-01T00:00:00Z", "to": "2025-08-01T00:00:00Z"},
        "description": "calls, first 3 units",
        "quantity": "3",
        "unit_price": "1",
        "amount": "3.00",
        "working": "3 x 1 = 3; rounded half up to 0.01: 3.00",
    }


def test_lines_come_in_the_order_of_the_prices() -> None:
    prices = (UsagePrice("b", "b", PerUnit(Decimal(1))), FixedPrice("fee", Fixed(Decimal(9))), graduated())
    usage = {"calls": [Measure(Decimal(11))], "b": [Measure(Decimal(1))], "unpriced": [Measure(Decimal(7))]}
    lines = arrears(plan(*prices), WHOLE_JULY, usage)
    assert [line.price for line in lines] == ["b", "fee", "calls", "calls"]
    assert total(lines) == Decimal("22.00")


def test_groups_are_one_quantity_unless_priced_apart() -> None:
    # Given 8 units in each of two regions, and a tier that ends at 10
    usage = {"calls": [Measure(Decimal(8), US), Measure(Decimal(8), EU)]}
    # Then together they enter the second tier, apart they don't
    together = arrears(plan(graduated()), WHOLE_JULY, usage)
    apart = arrears(plan(graduated(per_group=True)), WHOLE_JULY, usage)
    assert [(line.dimensions, str(line.amount)) for line in together] == [(None, "10.00"), (None, "12.00")]
    assert [(line.dimensions, str(line.amount)) for line in apart] == [(EU, "8.00"), (US, "8.00")]
    assert apart[0].description == "calls (region eu), first 8 units"


def test_measures_of_one_group_are_summed() -> None:
    usage = {"calls": [Measure(Decimal(8), EU), Measure(Decimal(8), EU)]}
    lines = arrears(plan(graduated(per_group=True)), WHOLE_JULY, usage)
    assert [str(line.quantity) for line in lines] == ["10", "6"]


@pytest.mark.parametrize(
    "model",
    [
        PerUnit(Decimal(1)),
        Graduated(tiers((None, "1", "5"))),
        Volume(tiers((None, "1", "5"))),
        Package(Decimal(1), Decimal(5)),
    ],
)
@pytest.mark.parametrize("quantity", ["0", "-0.000000001", "-5", "0.000"])
def test_nothing_used_costs_nothing_flat_fees_included(model: PerUnit, quantity: str) -> None:
    price = UsagePrice("calls", "calls", model)
    assert arrears(plan(price), WHOLE_JULY, {"calls": [Measure(Decimal(quantity))]}) == ()
    assert arrears(plan(price), WHOLE_JULY, {}) == ()


def test_corrections_are_netted_before_pricing() -> None:
    usage = {"calls": [Measure(Decimal(8), EU), Measure(Decimal(-5), US)]}
    (line,) = arrears(plan(graduated()), WHOLE_JULY, usage)
    assert line.quantity == 3


def test_rating_again_gives_the_same_lines_ids_included() -> None:
    usage = {"calls": [Measure(Decimal(8), US), Measure(Decimal(9), EU)]}
    backwards = {"calls": [*reversed(usage["calls"])]}
    rated = arrears(plan(graduated(per_group=True)), WHOLE_JULY, usage, scope="inv_1")
    assert arrears(plan(graduated(per_group=True)), WHOLE_JULY, backwards, scope="inv_1") == rated


def test_ids_differ_by_everything_that_tells_lines_apart() -> None:
    other = Period(JULY.end, JULY.end)
    groups: list[Dimensions | None] = [None, EU, US, (("a", "bc"),), (("ab", "c"),)]
    ids = [
        line_id(scope, kind, price, group, tier, period)
        for scope in ("", "inv_1")
        for kind in LineKind
        for price in ("calls", "call")
        for group in groups
        for tier in (None, 1, 2)
        for period in (JULY, other)
    ]
    assert len(set(ids)) == len(ids)


def test_the_ids_of_lines_never_change() -> None:
    # Stored invoices and Stripe hold these ids: a change here is a change of format
    assert line_id("inv_1", LineKind.USAGE, "calls", EU, 2, JULY) == "line_ede7a64535c952944b576972"


@pytest.mark.parametrize("quantity", ["NaN", "Infinity", "1e27", "-1e27"])
def test_a_quantity_out_of_range_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match=r"below 10\^27"):
        arrears(plan(graduated()), WHOLE_JULY, {"calls": [Measure(Decimal(quantity))]})


def test_a_digit_is_never_lost_silently() -> None:
    # Given a price with more digits than a catalog takes, so that the product needs more than sixty
    price = UsagePrice("calls", "calls", PerUnit(Decimal("1." + "3" * 40)))
    # When it is rated, then it raises instead of rounding
    with pytest.raises(Inexact):
        arrears(plan(price), WHOLE_JULY, {"calls": [Measure(Decimal("1234567890123456789012345.7"))]})


TOP_PRICE, TOP_RATE = Decimal("999999999999.999999999999"), Decimal("999999.9999999999")
"""The largest that a catalog takes."""


@pytest.mark.parametrize(
    "model",
    [
        PerUnit(TOP_PRICE),
        Graduated((Tier(Decimal("0.000000001"), TOP_PRICE, TOP_PRICE), Tier(None, TOP_PRICE, TOP_PRICE))),
        Volume((Tier(None, TOP_PRICE, TOP_PRICE),)),
        Stairstep((Tier(None, flat_fee=TOP_PRICE),)),
        Package(Decimal("0.000000001"), TOP_PRICE),
        Percentage(TOP_RATE, TOP_PRICE),
        Percentage(TOP_RATE, TOP_PRICE, maximum_per_event=TOP_PRICE),
        GraduatedPercentage((RateTier(None, TOP_RATE, TOP_PRICE),)),
        Matrix((Entry((), TOP_PRICE),)),
    ],
)
def test_sixty_digits_are_enough_for_whatever_a_catalog_takes(model: UsageModel) -> None:
    # Given the largest quantity, with a billionth, and the largest of everything around, prorated
    quantity = Decimal("999999999999999999.999999999")
    price = UsagePrice("calls", "calls", model, minimum=TOP_PRICE, maximum=TOP_PRICE, prorate=True, per_group=True)
    whole = Plan(
        "pro",
        "kwd",
        (price,),
        minimum=TOP_PRICE,
        discounts=(Discount("off", percent=Decimal("99.9999999999")), Discount("more", amount=TOP_PRICE)),
        commitment=Commitment(TOP_PRICE, Interval.MONTH),
    )
    part = BillingPeriod(Period(JULY.start, JULY.end - timedelta(microseconds=1)), JULY)
    measure = Measure(quantity, EU, 1_000, (Run(quantity.scaleb(-3), 1_000),))
    # Then nothing is lost
    for billing in (part, WHOLE_JULY):
        assert arrears(whole, billing, {"calls": [measure, Measure(quantity, US, 1, (Run(quantity, 1),))]})


def test_the_callers_decimal_context_is_left_alone_and_does_not_matter() -> None:
    # Given a caller with a context of 3 digits
    before = getcontext().prec
    getcontext().prec = 3
    try:
        price = UsagePrice("calls", "calls", Graduated(ARTICLE))
        lines = arrears(plan(price), WHOLE_JULY, {"calls": [Measure(Decimal(12345))]})
        # Then nothing is rounded to 3 digits
        assert total(lines) == Decimal("101.73")
        assert line_json(lines[-1], currency("usd"))["description"] == "calls, 2,345 units above 10,000"
        assert getcontext().prec == 3
    finally:
        getcontext().prec = before


def test_a_partial_period_keeps_tiers_and_free_units_whole() -> None:
    # Given half a month, tiers are not prorated
    half = BillingPeriod(Period(JULY.start, JULY.start.replace(day=16)), JULY)
    lines = arrears(plan(graduated()), half, {"calls": [Measure(Decimal(11))]})
    assert [str(line.quantity) for line in lines] == ["10", "1"]
    assert lines[0].period == half.period


def test_dimensions_are_put_in_order() -> None:
    assert dimensions_of({"b": "1", "a": "2"}) == (("a", "2"), ("b", "1"))


@given(st.lists(quantities, min_size=1, max_size=6))
def test_splitting_a_quantity_over_groups_changes_no_total(parts: list[Decimal]) -> None:
    price = UsagePrice("calls", "calls", Graduated(ARTICLE))
    split = {"calls": [Measure(part, (("n", str(n)),)) for n, part in enumerate(parts)]}
    whole = {"calls": [Measure(sum(parts, Decimal(0)))]}
    assert arrears(plan(price), WHOLE_JULY, split) == arrears(plan(price), WHOLE_JULY, whole)


@given(quantities, quantities)
def test_more_units_never_cost_less_when_graduated(one: Decimal, other: Decimal) -> None:
    price = UsagePrice("calls", "calls", Graduated(ARTICLE))
    costs = [
        total(arrears(plan(price), WHOLE_JULY, {"calls": [Measure(quantity)]})) for quantity in sorted((one, other))
    ]
    assert costs[0] <= costs[1]
