"""Whatever comes late, in whatever order, all invoices together bill the usage that there is."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.invoicing.world import World, utc

START = utc(2025, 1, 1)
EVER = timedelta(days=10_000)
MONTHS = [utc(2025, month, 1) for month in range(1, 7)]
TIERS = ((Decimal(1000), Decimal(0)), (Decimal(9000), Decimal("0.01")), (Decimal(10**12), Decimal("0.005")))


def price_of(quantity: Decimal) -> Decimal:
    """The article's price in cents, each tier rounded half up, written apart from the product's."""
    left, cents = max(Decimal(0), quantity), Decimal(0)
    for size, price in TIERS:
        taken = min(left, size)
        cents += (taken * price * 100 + Decimal("0.5")) // 1
        left -= taken
    return cents / 100


@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_all_invoices_is_the_price_of_all_usage(world: World, seed: int) -> None:
    chance = random.Random(seed)
    customers = [f"cus_{number}" for number in range(4)]
    for customer in customers:
        ended = chance.random() < 0.5
        world.subscribe(customer, start="2025-01-01T00:00:00Z", end="2025-07-01T00:00:00Z" if ended else "")
    used: dict[tuple[str, int], Decimal] = {}

    # Given usage of any month at any time, with runs in between
    for _ in range(60):
        customer, month = chance.choice(customers), chance.randrange(6)
        at = MONTHS[month] + timedelta(minutes=chance.randrange(28 * 24 * 60))
        units = Decimal(chance.randrange(-2_000_000, 9_000_000)).scaleb(-3)
        world.use(customer, str(units), at)
        used[customer, month] = used.get((customer, month), Decimal(0)) + units
        if chance.random() < 0.3:
            world.run(START + timedelta(days=chance.randrange(300)), late_limit=EVER)
    world.run(utc(2025, 12, 1), late_limit=EVER)  # the next regular invoice of those that go on carries what is left

    # Then every customer's invoices, less what they carry to the next one, add up to the price of what was used
    for customer in customers:
        rows = world.connection.execute("SELECT total FROM invoice_list WHERE customer = %s", (customer,)).fetchall()
        carried = world.connection.execute("SELECT remaining FROM credit_grants WHERE customer = %s", (customer,))
        billed = sum((row[0] for row in rows), Decimal(0)) - sum((row[0] for row in carried), Decimal(0))
        assert billed == sum((price_of(used.get((customer, month), Decimal(0))) for month in range(6)), Decimal(0))
