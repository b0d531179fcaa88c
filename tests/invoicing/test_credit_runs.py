"""Credit in invoice runs: granted with periods, drawn once, carried, whoever runs how often."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from threading import Barrier

from flusher.database import connect
from flusher.invoicing.credit_store import grant, list_standings
from flusher.invoicing.credits import Grant, GrantKind
from flusher.invoicing.invoice import Invoice
from flusher.invoicing.run import Options, make_invoices
from tests.invoicing.world import World, utc

JULY = utc(2025, 7, 1)
PLAN = """
[[plans]]
name = "metered"
currency = "usd"
prices = [{name = "calls", meter = "api_call", model = "per_unit", unit_price = "1"}]
[[plans.credits]]
name = "welcome"
amount = "25"
[[plans.credits]]
name = "monthly"
amount = "10"
priority = 1
expires_days = 32
every_period = true
"""


def make(name: str, amount: str, *, priority: int = 100, expires: datetime | None = None) -> Grant:
    whole = Decimal(amount)
    return Grant(name, "c1", "usd", name, GrantKind.PREPAID, whole, whole, priority, JULY, JULY, expires)


def credit_of(invoice: Invoice) -> dict[str, str]:
    return {line.price: f"{line.amount:.2f}" for line in invoice.lines if line.kind == "credit"}


def test_a_plans_credit_is_granted_with_its_periods_and_drawn_by_priority(world: World) -> None:
    # given credit that comes once, and credit that comes every month and is gone by the end of the next one
    world.apply(PLAN)
    world.subscribe("c1", "metered")
    for month, units in ((7, 12), (8, 4), (9, 40)):
        world.use("c1", units, utc(2025, month, 5))
    # when three months are billed
    july, august, september = world.run(utc(2025, 10, 1)).invoices
    # then what expires is drawn first, what is left of the rest afterwards, and nothing twice
    assert (credit_of(july), f"{july.total:.2f}") == ({"monthly": "-10.00", "welcome": "-2.00"}, "0.00")
    assert (credit_of(august), f"{august.total:.2f}") == ({"monthly": "-4.00"}, "0.00")
    assert credit_of(september) == {"monthly": "-10.00", "welcome": "-23.00"}
    assert f"{september.total:.2f}" == "7.00"


def test_a_run_that_is_repeated_grants_and_draws_nothing_more(world: World) -> None:
    world.apply(PLAN)
    world.subscribe("c1", "metered")
    world.use("c1", 12, utc(2025, 7, 5))
    world.run(utc(2025, 8, 1))
    before = list_standings(world.connection, ["c1"])
    world.run(utc(2025, 8, 1))
    world.run(utc(2025, 8, 1), dry_run=True)
    assert list_standings(world.connection, ["c1"]) == before


def test_two_runs_at_once_draw_every_unit_once(world: World) -> None:
    # given a customer with 20 subscriptions that come to 100 each, and credit for less than half of it
    world.apply(PLAN.split("[[plans.credits]]")[0])
    for number in range(20):
        world.apply(
            f'[[meters]]\nname = "m{number}"\nevent_type = "m{number}"\n'
            f'[[plans]]\nname = "p{number}"\ncurrency = "usd"\n'
            f'prices = [{{meter = "m{number}", model = "per_unit", unit_price = "1"}}]\n'
        )
        world.subscribe("c1", f"p{number}", end="2025-08-01T00:00:00Z")
        world.use("c1", 100, utc(2025, 7, 5), meter=f"m{number}")
    grant(world.connection, [make("a", "333.33"), make("b", "500", priority=1)])
    ready = Barrier(2)

    def run(_: int) -> list[Invoice]:
        with connect(world.url, autocommit=True) as connection:
            ready.wait(10)
            return make_invoices(connection, Options(at=utc(2025, 8, 1))).invoices

    # when two runs begin together
    with ThreadPoolExecutor(2) as pool:
        invoices = [invoice for made in pool.map(run, range(2)) for invoice in made]

    # then each invoice is made once, and all credit is used, no cent of it twice
    assert len({invoice.id for invoice in invoices}) == len(invoices) == 20
    assert sum(invoice.total for invoice in invoices) == Decimal("1166.67")
    standings = list_standings(world.connection, ["c1"])
    assert [found.grant.remaining for found in standings] == [0, 0]
    drawn = sum(drawn.amount for found in standings for drawn in found.draws)
    assert drawn == Decimal("833.33")


def test_credit_that_expired_when_the_period_ended_is_not_drawn(world: World) -> None:
    world.apply(PLAN.split("[[plans.credits]]")[0])
    world.subscribe("c1", "metered")
    world.use("c1", 12, utc(2025, 7, 5))
    grant(world.connection, [make("a", "5", expires=utc(2025, 8, 1)), make("b", "5", expires=utc(2025, 8, 1, us=1))])
    (july,) = world.run(utc(2025, 12, 1)).invoices[:1]
    assert credit_of(july) == {"b": "-5.00"}


def test_a_negative_total_is_carried_to_the_next_invoice_and_drawn_first(world: World) -> None:
    # given a billed July, most of which is taken back
    world.apply(PLAN.split("[[plans.credits]]")[0])
    world.subscribe("c1", "metered")
    world.use("c1", 100, utc(2025, 7, 5))
    world.run(utc(2025, 8, 1))
    world.use("c1", -60, utc(2025, 7, 5))
    world.use("c1", 20, utc(2025, 8, 5))
    world.use("c1", 42, utc(2025, 9, 5))
    grant(world.connection, [make("a", "5")])
    # when the next two months are billed
    august, september = world.run(utc(2025, 10, 1)).invoices
    # then August's is 0 and passes 40 on, which September draws before other credit
    assert (credit_of(august), f"{august.total:.2f}") == ({"carried": "40.00"}, "0.00")
    assert credit_of(september) == {"carried": "-40.00", "a": "-2.00"}
    assert f"{september.total:.2f}" == "0.00"
