"""Which invoices a run makes, from which usage, and that each is made once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest

from flusher.database import connect
from flusher.invoicing.invoice import Delivery, Status, invoice_json
from flusher.invoicing.run import Options, make_invoices
from flusher.pricing.period import Period
from tests.invoicing.world import World, utc

JULY = Period(utc(2025, 7, 1), utc(2025, 8, 1))
AUGUST = Period(utc(2025, 8, 1), utc(2025, 9, 1))


def test_the_articles_customer_is_billed_101_73(world: World) -> None:
    # Given 12,345 calls over July
    world.subscribe("cus_123456")
    for day in range(1, 31):
        world.use("cus_123456", 411, utc(2025, 7, day, 12), events=411)
    world.use("cus_123456", 15, utc(2025, 7, 31, 23, 59), events=15)

    # When August has begun
    made = world.run(utc(2025, 8, 1))

    # Then there is one open invoice, rounded per line
    (invoice,) = made.invoices
    assert (invoice.status, invoice.delivery, invoice.period) == (Status.OPEN, Delivery.NONE, JULY)
    shown = invoice_json(invoice)
    assert shown["total"] == "101.73"
    assert [(line.quantity, line.amount) for line in invoice.lines] == [
        (Decimal(1000), Decimal("0.00")),
        (Decimal(9000), Decimal("90.00")),
        (Decimal(2345), Decimal("11.73")),
    ]
    assert made.waiting == []


def test_a_run_repeated_makes_nothing_again(world: World) -> None:
    world.subscribe("cus_1")
    first = world.run(utc(2025, 8, 1))
    before = world.counts()

    second = world.run(utc(2025, 8, 1))

    assert (len(first.invoices), second.invoices, second.waiting) == (1, [], [])
    assert world.counts() == before


def test_every_period_that_is_over_gets_an_invoice_and_the_current_one_does_not(world: World) -> None:
    world.subscribe("cus_1")

    made = world.run(utc(2025, 9, 30))

    assert [invoice.period for invoice in made.invoices] == [JULY, AUGUST]
    assert [invoice.status for invoice in made.invoices] == [Status.PAID, Status.PAID]


def test_only_the_customer_that_is_asked_for_is_invoiced(world: World) -> None:
    world.subscribe("cus_1")
    world.subscribe("cus_2")

    made = world.run(utc(2025, 8, 1), customer="cus_2")

    assert [invoice.customer for invoice in made.invoices] == ["cus_2"]


def test_usage_of_all_users_of_a_customer_is_one_quantity(world: World) -> None:
    world.apply('[[customers]]\nid = "acme"\nuser_ids = ["u1", "u2"]')
    world.subscribe("acme")
    world.use("u1", 900, utc(2025, 7, 3))
    world.use("u2", 200, utc(2025, 7, 4))
    world.use("acme", 5000, utc(2025, 7, 4))

    (invoice,) = world.run(utc(2025, 8, 1)).invoices

    assert sum(line.quantity for line in invoice.lines) == 1100


def test_usage_at_the_end_of_a_period_belongs_to_the_next(world: World) -> None:
    world.subscribe("cus_1")
    world.use("cus_1", 1500, utc(2025, 8, 1))

    july, august = world.run(utc(2025, 9, 1)).invoices

    assert (july.total, august.total) == (Decimal(0), Decimal("5.00"))


def test_a_boundary_inside_a_window_is_rated_from_single_events(world: World) -> None:
    # Given an anniversary that starts at 12:07:30, and events in the same window before, at and after it
    world.apply(
        '[[plans]]\nname = "yearly"\ncurrency = "usd"\nanchor = "anniversary"\n'
        '[[plans.prices]]\nmeter = "api_call"\nmodel = "per_unit"\nunit_price = "1"'
    )
    world.subscribe("cus_1", plan="yearly", start="2025-07-10T12:07:30Z")
    world.event("cus_1", 1, utc(2025, 7, 10, 12, 7, 29), "before")
    world.event("cus_1", "10.5", utc(2025, 7, 10, 12, 7, 30), "first")
    world.event("cus_1", 100, utc(2025, 7, 20), "inside")
    world.event("cus_1", 1000, utc(2025, 8, 10, 12, 7, 29, 999999), "last")
    world.event("cus_1", 10000, utc(2025, 8, 10, 12, 7, 30), "next")

    (invoice,) = world.run(utc(2025, 8, 11)).invoices

    assert invoice.period == Period(utc(2025, 7, 10, 12, 7, 30), utc(2025, 8, 10, 12, 7, 30))
    assert [line.quantity for line in invoice.lines] == [Decimal("1110.5")]


def test_a_fee_in_advance_opens_with_an_invoice_and_then_comes_with_the_period_before(world: World) -> None:
    world.apply(
        '[[plans]]\nname = "base"\ncurrency = "usd"\n'
        '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = "31"\ncharge = "in_advance"'
    )
    world.subscribe("cus_1", plan="base", start="2025-07-17T00:00:00Z", end="2025-09-01T00:00:00Z")

    opening, july, august = world.run(utc(2025, 9, 2)).invoices

    assert opening.period == Period(utc(2025, 7, 17), utc(2025, 7, 17))
    assert (opening.total, july.total, august.total) == (Decimal("15.00"), Decimal("31.00"), Decimal(0))
    assert july.lines[0].period == AUGUST
    assert world.run(utc(2025, 9, 2)).invoices == []


def test_late_usage_is_an_adjustment_on_the_next_invoice(world: World) -> None:
    # Given July billed at 12,345
    world.subscribe("cus_1")
    world.use("cus_1", 12345, utc(2025, 7, 5))
    world.run(utc(2025, 8, 1))

    # When 55 more of July and 2,000 of August come in
    world.use("cus_1", 55, utc(2025, 7, 6))
    world.use("cus_1", 2000, utc(2025, 8, 6))
    (august,) = world.run(utc(2025, 9, 1)).invoices

    # Then August's invoice carries the difference of July: 12.00 - 11.73
    adjustment = august.lines[-1]
    assert (adjustment.kind, adjustment.period, adjustment.quantity) == ("adjustment", JULY, Decimal(55))
    assert adjustment.amount == Decimal("0.27")
    assert adjustment.description == "calls, adjustment of 2025-07-01 to 2025-08-01: 55 more than billed"
    assert august.total == Decimal("10.27")

    # And September's does not again
    (september,) = world.run(utc(2025, 10, 1)).invoices
    assert september.lines == ()


def test_an_ended_subscription_gets_its_adjustments_on_an_invoice_of_their_own(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.use("cus_1", 1000, utc(2025, 7, 5))
    world.run(utc(2025, 9, 1))

    # When usage comes late, twice, once negative, and once more
    totals = []
    for units in (100, 200, -50, 60):
        world.use("cus_1", units, utc(2025, 7, 6))
        (invoice,) = world.run(utc(2025, 9, 1)).invoices
        totals.append(invoice.total)

    # Then each is billed by itself, and the negative one is carried to the next
    assert totals == [Decimal("1.00"), Decimal("2.00"), Decimal("0.00"), Decimal("0.10")]
    assert world.run(utc(2025, 9, 1)).invoices == []
    assert world.counts()["invoices"] == 5


def test_late_usage_that_costs_nothing_makes_no_line_and_still_counts_later(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.run(utc(2025, 9, 1))
    world.use("cus_1", 900, utc(2025, 7, 6))
    assert world.run(utc(2025, 9, 1)).invoices == []

    world.use("cus_1", 200, utc(2025, 7, 7))
    (invoice,) = world.run(utc(2025, 9, 1)).invoices

    assert (invoice.total, invoice.lines[0].quantity) == (Decimal("1.00"), Decimal(1100))


def test_a_closed_period_keeps_the_plan_version_that_it_was_billed_under(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.use("cus_1", 2000, utc(2025, 7, 5))
    world.run(utc(2025, 9, 1))
    world.apply(
        '[[plans]]\nname = "pro"\ncurrency = "usd"\n'
        '[[plans.prices]]\nname = "calls"\nmeter = "api_call"\nmodel = "per_unit"\nunit_price = "9"'
    )

    world.use("cus_1", 100, utc(2025, 7, 6))
    (invoice,) = world.run(utc(2025, 9, 1)).invoices

    assert (invoice.total, invoice.plan_version) == (Decimal("1.00"), 1)


def test_a_period_waits_for_a_producer_and_closes_without_it_after_the_window(world: World) -> None:
    # Given a period that ended a moment ago and a producer that is behind
    row = world.connection.execute("SELECT date_trunc('day', now())").fetchone()
    today = row[0] if row else utc(2025, 1, 1)
    world.apply(
        '[[plans]]\nname = "daily"\ncurrency = "usd"\ninterval = "day"\n'
        '[[plans.prices]]\nmeter = "api_call"\nmodel = "per_unit"\nunit_price = "1"'
    )
    yesterday = (today - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.subscribe("cus_1", plan="daily", start=yesterday)
    world.producer("producer-behind", today - timedelta(seconds=1))

    # When the window has not passed, then it waits and says for whom
    waiting = world.run(window=timedelta(hours=72))
    assert (waiting.invoices, waiting.waiting[0].reason) == ([], "producers_behind")
    assert "producer-behind" in waiting.waiting[0].detail

    # When the window has passed, then it closes and says without whom
    (invoice,) = world.run(window=timedelta(0)).invoices
    assert invoice.closed_without == ("producer-behind",)


def test_a_retired_producer_holds_nothing_up(world: World) -> None:
    world.subscribe("cus_1")
    world.producer("producer-gone", utc(2025, 7, 5))
    world.connection.execute("UPDATE producers SET retired_at = now()")

    (invoice,) = world.run(utc(2025, 8, 1)).invoices

    assert invoice.closed_without == ()


def test_a_period_in_the_future_is_open(world: World) -> None:
    world.subscribe("cus_1", start="2099-01-01T00:00:00Z")

    made = world.run(utc(2099, 2, 1))

    assert (made.invoices, [waiting.reason for waiting in made.waiting]) == ([], ["period_open"])


def test_an_open_discrepancy_holds_the_invoices_that_it_touches(world: World) -> None:
    world.subscribe("cus_1")
    world.subscribe("cus_2")
    world.discrepancy("cus_1", utc(2025, 7, 31, 23, 45))

    made = world.run(utc(2025, 8, 1))
    assert [invoice.customer for invoice in made.invoices] == ["cus_2"]
    assert [(waiting.customer, waiting.reason) for waiting in made.waiting] == [("cus_1", "proof_broken")]

    world.resolve()
    assert [invoice.customer for invoice in world.run(utc(2025, 8, 1)).invoices] == ["cus_1"]


def test_a_dry_run_shows_everything_and_writes_nothing(world: World) -> None:
    world.subscribe("cus_1")
    world.use("cus_1", 1100, utc(2025, 7, 5))
    before = world.counts()

    dry = world.run(utc(2025, 9, 1), dry_run=True)

    assert world.counts() == before
    real = world.run(utc(2025, 9, 1))
    assert [invoice_json(invoice) for invoice in dry.invoices] == [invoice_json(invoice) for invoice in real.invoices]


def test_two_runs_at_once_make_one_invoice_each(world: World) -> None:
    for number in range(20):
        world.subscribe(f"cus_{number}")
        world.use(f"cus_{number}", 1100, utc(2025, 7, 5))

    def run(_number: int) -> int:
        with connect(world.url, autocommit=True) as connection:
            return len(make_invoices(connection, Options(at=utc(2025, 9, 1))).invoices)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(run, range(4)))

    assert sum(made) == 40
    assert world.counts()["invoices"] == 40


def test_what_was_billed_can_not_be_changed(world: World) -> None:
    world.subscribe("cus_1")
    world.use("cus_1", 1100, utc(2025, 7, 5))
    world.run(utc(2025, 8, 1))

    for statement in (
        "UPDATE invoices SET total = 0",
        "DELETE FROM invoices",
        "UPDATE invoice_line_records SET amount = 0",
        "DELETE FROM invoice_line_records",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="never changed"):
            world.connection.execute(statement)


def test_the_views_show_invoices_and_lines(world: World) -> None:
    world.subscribe("cus_1")
    world.use("cus_1", 1100, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1)).invoices

    listed = world.connection.execute(
        "SELECT id, customer, currency, period_start, period_end, status, total, stripe_invoice FROM invoice_list"
    ).fetchall()
    lines = world.connection.execute("SELECT invoice, amount FROM invoice_lines ORDER BY place").fetchall()

    assert listed == [(invoice.id, "cus_1", "usd", JULY.start, JULY.end, "open", Decimal("1.00"), None)]
    assert lines == [(invoice.id, Decimal("0.00")), (invoice.id, Decimal("1.00"))]
