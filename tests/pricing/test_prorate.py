"""Proration of usage prices that ask for it: free units and tiers of a partial period."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.pricing.line import Line
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.plan import (
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    RateTier,
    Stairstep,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.rate import Measure
from flusher.pricing.share import scaled
from tests.pricing.support import JULY, WHOLE_JULY, arrears, plan, run_of, tiers

TENTH = BillingPeriod(Period(JULY.start, JULY.start + timedelta(days=3, hours=2, minutes=24)), JULY)
"""Exactly a tenth of the 31 days."""
TENTHS = tiers(("100", "2", "1"), (None, "1", "3"))


def rate(model: UsageModel, quantity: str, billing: BillingPeriod, free_units: str = "0") -> tuple[Line, ...]:
    price = UsagePrice("calls", "calls", model, Decimal(free_units), prorate=True)
    return arrears(plan(price), billing, {"calls": [run_of(quantity)]})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # Given a tenth of the period, the first tier ends at 10; prices and flat fees stay whole
        (Graduated(TENTHS), ["21.00", "5.00"]),
        (Volume(TENTHS), ["15.00"]),
        (Stairstep(TENTHS), ["3.00"]),
        (
            GraduatedPercentage((RateTier(Decimal(100), Decimal(50)), RateTier(None, Decimal(100)))),
            ["5.00", "2.00"],
        ),
        (Package(Decimal(10), Decimal(4)), ["8.00"]),
        (Percentage(Decimal(50), Decimal(1)), ["7.00"]),
    ],
)
def test_tiers_end_earlier_in_a_partial_period(model: UsageModel, expected: list[str]) -> None:
    assert [str(line.amount) for line in rate(model, "12", TENTH)] == expected


def test_free_units_are_fewer_in_a_partial_period() -> None:
    (line,) = rate(Volume(tiers((None, "1"))), "12", TENTH, free_units="50")
    assert (str(line.amount), line.description) == ("7.00", "calls, 7 units, after 5 units free")


def test_a_whole_period_has_them_whole() -> None:
    assert [str(line.amount) for line in rate(Graduated(TENTHS), "12", WHOLE_JULY)] == ["25.00"]


def test_a_tier_that_proration_leaves_without_width_is_not_entered() -> None:
    # Given a period of a microsecond, in which tiers of a few units end at 0 all of them
    instant = BillingPeriod(Period(JULY.start, JULY.start + timedelta(microseconds=1)), JULY)
    model = Graduated(tiers(("1", "5", "5"), ("2", "5", "5"), (None, "1", "0")))
    # Then everything falls into the last
    assert [(line.tier, str(line.amount)) for line in rate(model, "3", instant)] == [(3, "3.00")]


@given(
    st.integers(0, 10**18).map(lambda number: Decimal(number).scaleb(-9)),
    st.integers(1, JULY.length_us),
)
def test_a_share_is_the_nearest_billionth(quantity: Decimal, covered_us: int) -> None:
    part = BillingPeriod(Period(JULY.start, JULY.start + timedelta(microseconds=covered_us)), JULY)
    exact = Fraction(quantity) * covered_us / JULY.length_us
    assert -Fraction(1, 2 * 10**9) < Fraction(scaled(quantity, part)) - exact <= Fraction(1, 2 * 10**9)


def test_units_themselves_are_never_prorated() -> None:
    price = UsagePrice("calls", "calls", Graduated(TENTHS), prorate=True)
    lines = arrears(plan(price), TENTH, {"calls": [Measure(Decimal(12))]})
    assert sum(line.quantity for line in lines) == 12
