"""Model graduated."""

from decimal import Decimal

import pytest

from flusher.pricing.graduated import Graduated
from flusher.pricing.line import total
from tests.pricing.support import ARTICLE, amounts, rate_model, tiers


@pytest.mark.parametrize(
    ("quantity", "lines", "expected"),
    [
        ("0", [], "0"),
        ("1", ["0.00"], "0.00"),
        ("1000", ["0.00"], "0.00"),
        ("1001", ["0.00", "0.01"], "0.01"),
        ("10000", ["0.00", "90.00"], "90.00"),
        ("10001", ["0.00", "90.00", "0.01"], "90.01"),
        ("12345", ["0.00", "90.00", "11.73"], "101.73"),
    ],
)
def test_the_articles_plan(quantity: str, lines: list[str], expected: str) -> None:
    rated = rate_model(Graduated(ARTICLE), quantity)
    assert amounts(rated) == lines
    assert total(rated) == Decimal(expected)


def test_a_line_says_which_units_it_bills() -> None:
    rated = rate_model(Graduated(ARTICLE), "12345")
    assert [(line.tier, line.description, str(line.quantity), str(line.unit_price)) for line in rated] == [
        (1, "calls, first 1,000 units", "1000", "0"),
        (2, "calls, next 9,000 units", "9000", "0.01"),
        (3, "calls, 2,345 units above 10,000", "2345", "0.005"),
    ]


@pytest.mark.parametrize(
    ("quantity", "lines"),
    [("0", []), ("10", ["5.00"]), ("10.000000001", ["5.00", "7.00"]), ("25", ["5.00", "22.00"])],
)
def test_a_flat_fee_is_due_for_every_tier_that_is_entered(quantity: str, lines: list[str]) -> None:
    model = Graduated(tiers(("10", "0", "5"), (None, "1", "7")))
    assert amounts(rate_model(model, quantity)) == lines


def test_the_flat_fee_is_named_and_rounded_together_with_the_units() -> None:
    (line,) = rate_model(Graduated(tiers((None, "0.004", "0.004"))), "1")
    assert line.amount == Decimal("0.01")
    assert line.description == "calls, 1 unit, plus a flat fee of 0.004"


def test_fractional_units_fall_into_their_tiers() -> None:
    model = Graduated(tiers(("0.5", "1"), (None, "10")))
    assert amounts(rate_model(model, "0.75")) == ["0.50", "2.50"]


def test_free_units_come_off_before_the_tiers() -> None:
    rated = rate_model(Graduated(ARTICLE), "1501", free_units="500")
    assert [(str(line.quantity), str(line.amount)) for line in rated] == [("1000", "0.00"), ("1", "0.01")]
    assert rated[0].description == "calls, first 1,000 units, after 500 units free"
