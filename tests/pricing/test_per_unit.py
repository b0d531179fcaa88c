"""Model per_unit."""

from decimal import Decimal

import pytest

from flusher.pricing.per_unit import PerUnit
from tests.pricing.support import amounts, rate_model


@pytest.mark.parametrize(
    ("price", "quantity", "lines"),
    [
        ("0.005", "1", ["0.01"]),
        ("0.005", "2345", ["11.73"]),
        ("0.000000000001", "1", ["0.00"]),
        ("2", "0", []),
        ("2", "-3", []),
        ("2", "1.5", ["3.00"]),
        ("999999999999.999999999999", "999999999999999999.999999999", ["999999999999999999999998999000.00"]),
    ],
)
def test_every_unit_costs_the_same(price: str, quantity: str, lines: list[str]) -> None:
    assert amounts(rate_model(PerUnit(Decimal(price)), quantity)) == lines


def test_the_line_says_how_many() -> None:
    (line,) = rate_model(PerUnit(Decimal(2)), "1234.5")
    assert line.description == "calls, 1,234.5 units"
    assert line.tier is None


@pytest.mark.parametrize(("quantity", "lines"), [("99", []), ("100", []), ("101", ["2.00"])])
def test_free_units_are_not_priced(quantity: str, lines: list[str]) -> None:
    assert amounts(rate_model(PerUnit(Decimal(2)), quantity, free_units="100")) == lines
