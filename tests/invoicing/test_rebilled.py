"""Whatever an invoice billed, of whatever kind: voided to be billed again, it is billed again exactly."""

import random
from decimal import Decimal

import pytest

from flusher.invoicing.corrections import Corrector
from flusher.invoicing.invoice import Status
from tests.invoicing.delivery import load
from tests.invoicing.world import World, utc

EVERYTHING = """
[[plans]]
name = "rich"
currency = "usd"
interval = "month"
minimum = "60"
threshold = "80"
commitment = {amount = "500", interval = "quarter"}
discounts = [{name = "launch", percent = "10"}, {name = "loyal", amount = "1"}]
[[plans.prices]]
name = "base"
model = "fixed"
amount = "20"
charge = "in_advance"
[[plans.prices]]
name = "care"
model = "fixed"
amount = "5"
charge = "in_arrears"
[[plans.prices]]
name = "calls"
meter = "api_call"
model = "graduated"
minimum = "10"
tiers = [{up_to = 1000, unit_price = "0.01"}, {unit_price = "0.005"}]
[[plans.prices]]
name = "quarterly"
meter = "api_call"
model = "package"
package_size = 1000
package_price = "2"
interval = "quarter"
"""


def billed(world: World, customer: str) -> Decimal:
    """Return what invoices that are not void come to, less what they carry."""
    (row,) = world.connection.execute(
        "SELECT (SELECT coalesce(sum(total), 0) FROM invoices WHERE customer = %(who)s AND status <> 'void')"
        " - (SELECT coalesce(sum(remaining), 0) FROM credit_grants WHERE customer = %(who)s)",
        {"who": customer},
    ).fetchall()
    found: Decimal = row[0]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_is_billed_less_what_is_void_is_what_it_costs(world: World, seed: int) -> None:
    # Given two customers on a plan with everything, with the same usage; invoices of one are voided as they come
    chance = random.Random(seed)
    world.apply(EVERYTHING)
    twins = ("cus_even", "cus_voided")
    for customer in twins:
        world.subscribe(customer, plan="rich", start="2025-01-10T00:00:00Z", end="2025-08-20T00:00:00Z")
    voided = 0
    for month in range(1, 10):
        for day in (3, 12, 25):
            used = chance.randrange(9_000)
            for customer in twins:
                world.use(customer, used, utc(2025, min(month, 8), day), came=utc(2025, month, 28))
        for made in world.run(utc(2025, month, 28)).invoices:
            if made.customer == "cus_voided" and made.status is Status.OPEN and chance.random() < 0.6:
                Corrector(world.connection, None).void(made.id, "made in error", rebill=True)
                assert load(world, made.id).status is Status.VOID
                voided += 1

    # When everything that is due is billed
    for day in (1, 2):
        world.run(utc(2025, 10, day))

    # Then both were billed the same, in invoices that hold
    assert voided >= 3
    assert billed(world, "cus_voided") == billed(world, "cus_even") > 0
