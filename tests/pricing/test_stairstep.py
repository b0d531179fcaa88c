"""Model stairstep: one fee, that of the tier which holds the quantity."""

import pytest

from flusher.pricing.stairstep import Stairstep
from tests.pricing.support import rate_model, tiers

STEPS = Stairstep(tiers(("100", "0", "10"), ("1000.5", "0", "25"), (None, "0", "99.99")))


@pytest.mark.parametrize(
    ("quantity", "tier", "amount"),
    [
        ("0.000000001", 1, "10.00"),
        ("100", 1, "10.00"),
        ("100.000000001", 2, "25.00"),
        ("1000.5", 2, "25.00"),
        ("1000.500000001", 3, "99.99"),
        ("1000000", 3, "99.99"),
    ],
)
def test_the_fee_is_that_of_the_tier_that_holds_the_quantity(quantity: str, tier: int, amount: str) -> None:
    (line,) = rate_model(STEPS, quantity)
    assert (line.tier, str(line.amount)) == (tier, amount)


def test_nothing_used_costs_nothing() -> None:
    assert rate_model(STEPS, "0") == ()


def test_free_units_come_off_before_the_tier_is_chosen() -> None:
    (line,) = rate_model(STEPS, "150", free_units="50")
    assert (line.tier, str(line.amount)) == (1, "10.00")


def test_a_line_names_the_quantity_and_its_step_and_multiplies_out() -> None:
    lines = [rate_model(STEPS, quantity)[0] for quantity in ("1", "200", "1234.5")]
    assert [(line.description, str(line.quantity), str(line.unit_price)) for line in lines] == [
        ("calls, 1 unit, up to 100", "1", "10"),
        ("calls, 200 units, up to 1,000.5", "1", "25"),
        ("calls, 1,234.5 units, above 1,000.5", "1", "99.99"),
    ]
    (only,) = rate_model(Stairstep(tiers((None, "0", "5"))), "7")
    assert only.description == "calls, 7 units"
