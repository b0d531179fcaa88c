"""Model graduated_percentage: as graduated, on money."""

from decimal import Decimal

import pytest

from flusher.pricing.graduated_percentage import GraduatedPercentage
from flusher.pricing.tiers import RateTier
from tests.pricing.support import amounts, rate_model

TIERS = GraduatedPercentage(
    (
        RateTier(Decimal(1000), Decimal("2.5")),
        RateTier(Decimal(10000), Decimal(1), Decimal(3)),
        RateTier(None, Decimal("0.5"), Decimal(7)),
    )
)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", []),
        ("0.2", ["0.01"]),
        ("1000", ["25.00"]),
        ("1000.000000001", ["25.00", "3.00"]),
        ("10000", ["25.00", "93.00"]),
        ("10000.01", ["25.00", "93.00", "7.00"]),
        ("20001", ["25.00", "93.00", "57.01"]),
    ],
)
def test_each_part_of_the_money_costs_its_own_tiers_rate(quantity: str, expected: list[str]) -> None:
    assert amounts(rate_model(TIERS, quantity)) == expected


def test_a_line_says_which_part_it_bills_and_multiplies_out() -> None:
    lines = rate_model(TIERS, "20001")
    assert [(line.tier, line.description, str(line.quantity), str(line.unit_price)) for line in lines] == [
        (1, "calls, first 1,000, 2.5 %", "1000", "0.025"),
        (2, "calls, next 9,000, 1 %, plus a flat fee of 3", "9000", "0.01"),
        (3, "calls, 10,001 above 10,000, 0.5 %, plus a flat fee of 7", "10001", "0.005"),
    ]
    assert lines[1].working == "1 % of 9,000 + 3 = 93; rounded half up to 0.01: 93.00"
