"""Model volume."""

import pytest

from flusher.pricing.volume import Volume
from tests.pricing.support import amounts, rate_model, tiers

VOLUME = Volume(tiers(("10", "2", "1"), ("20", "1.5"), (None, "1", "3")))


@pytest.mark.parametrize(
    ("quantity", "lines"),
    [
        ("0", []),
        ("0.5", ["2.00"]),
        ("10", ["21.00"]),
        ("10.000000001", ["15.00"]),
        ("20", ["30.00"]),
        ("21", ["24.00"]),
    ],
)
def test_all_units_cost_what_the_holding_tier_says(quantity: str, lines: list[str]) -> None:
    assert amounts(rate_model(VOLUME, quantity)) == lines


def test_the_line_names_its_tier_and_fee() -> None:
    (line,) = rate_model(VOLUME, "21")
    assert (line.tier, line.description) == (3, "calls, 21 units, plus a flat fee of 3")


def test_free_units_select_the_tier() -> None:
    (line,) = rate_model(VOLUME, "21", free_units="11")
    assert (line.tier, str(line.amount)) == (1, "21.00")
