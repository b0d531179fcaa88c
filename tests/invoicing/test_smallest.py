"""Amounts that Stripe would not collect are carried to the customer's next invoice."""

from decimal import Decimal

import pytest

from flusher.invoicing.invoice import Invoice
from flusher.invoicing.smallest import SMALLEST, is_too_small
from flusher.pricing.money import CURRENCIES
from tests.invoicing.world import World, utc

CATALOG = """
[[plans]]
name = "tiny"
currency = "usd"
prices = [{name = "calls", meter = "api_call", model = "per_unit", unit_price = "0.01"}]
"""


def shown(invoice: Invoice) -> list[tuple[str, str, str]]:
    return [(line.kind, line.price, str(line.amount)) for line in invoice.lines]


@pytest.mark.parametrize(
    ("amount", "currency", "small"),
    [
        ("0.49", "usd", True),
        ("0.50", "usd", False),
        ("0.00", "usd", False),
        ("-1.00", "usd", False),
        ("49", "jpy", True),
    ],
)
def test_an_amount_is_too_small_below_the_least_that_stripe_charges(amount: str, currency: str, small: bool) -> None:
    assert is_too_small(Decimal(amount), currency) is small


def test_every_least_amount_is_one_that_the_currency_has() -> None:
    assert all(least % CURRENCIES[code].step == 0 for code, least in SMALLEST.items())


def test_what_is_too_small_is_carried_until_it_is_enough(world: World) -> None:
    # given 0.20 in July, 0.20 in August and 0.20 in September
    world.apply(CATALOG)
    world.subscribe("cus_1", "tiny")
    for month in (7, 8, 9):
        world.use("cus_1", 20, utc(2025, month, 5))
    made = world.run(utc(2025, 9, 1), stripe=True).invoices
    made += world.run(utc(2025, 10, 1), stripe=True).invoices
    assert [shown(invoice) for invoice in made] == [
        [("usage", "calls", "0.20"), ("adjustment", "carried", "-0.20")],
        [("usage", "calls", "0.20"), ("adjustment", "carried", "0.20"), ("adjustment", "carried", "-0.40")],
        [("usage", "calls", "0.20"), ("adjustment", "carried", "0.40")],
    ]
    assert [str(invoice.total) for invoice in made] == ["0.00", "0.00", "0.60"]
    assert world.connection.execute("SELECT count(*) FROM small_amounts WHERE billed_by IS NULL").fetchone() == (0,)


def test_without_stripe_nothing_is_too_small(world: World) -> None:
    world.apply(CATALOG)
    world.subscribe("cus_1", "tiny")
    world.use("cus_1", 20, utc(2025, 7, 5))
    (july,) = world.run(utc(2025, 8, 1)).invoices
    assert str(july.total) == "0.20"
