"""Model package."""

from decimal import Decimal

import pytest

from flusher.pricing.package import Package
from tests.pricing.support import amounts, rate_model


@pytest.mark.parametrize(
    ("quantity", "lines"),
    [("0", []), ("0.000000001", ["5.00"]), ("100", ["5.00"]), ("100.000000001", ["10.00"]), ("250", ["15.00"])],
)
def test_a_package_that_is_begun_is_paid_in_full(quantity: str, lines: list[str]) -> None:
    assert amounts(rate_model(Package(Decimal(100), Decimal(5)), quantity)) == lines


def test_a_package_may_be_a_fraction_of_a_unit() -> None:
    assert amounts(rate_model(Package(Decimal("0.25"), Decimal(1)), "1.1")) == ["5.00"]


def test_the_line_counts_packages() -> None:
    (line,) = rate_model(Package(Decimal(1000), Decimal(5)), "12345")
    assert (line.quantity, line.unit_price) == (Decimal(13), Decimal(5))
    assert line.description == "calls, 13 packages of 1,000 units for 12,345 units"


def test_one_package_is_singular() -> None:
    (line,) = rate_model(Package(Decimal(1), Decimal(5)), "1")
    assert line.description == "calls, 1 package of 1 unit for 1 unit"


def test_free_units_come_off_before_packages() -> None:
    assert amounts(rate_model(Package(Decimal(100), Decimal(5)), "250", free_units="50")) == ["10.00"]
