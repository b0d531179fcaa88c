"""Terms that change, and everything around the models, from usage to invoices. Every amount is computed by hand."""

from typing import Any

from flusher.invoicing.invoice import Invoice, Kind
from tests.invoicing.world import World, utc

CALLS = '{name = "calls", meter = "api_call", model = "per_unit", unit_price = "0.01"}'
FEE = '{name = "seat", model = "fixed", amount = "31", charge = "in_advance"}'


def plan(world: World, name: str, *prices: str, more: str = "") -> None:
    world.apply(f'[[plans]]\nname = "{name}"\ncurrency = "usd"\n{more}\nprices = [{", ".join(prices)}]\n')


def change(world: World, subscription: str, to: str, at: Any) -> None:
    world.connection.execute(
        "INSERT INTO subscription_changes (subscription, at, plan) VALUES (%s, %s, %s)", (subscription, at, to)
    )


def shown(invoice: Invoice) -> list[tuple[str, str, str]]:
    return [(line.kind, line.price, str(line.amount)) for line in invoice.lines]


def totals(invoices: list[Invoice]) -> list[str]:
    return [str(invoice.total) for invoice in invoices]


def test_a_plan_change_inside_a_period_gives_back_what_was_paid_for_the_rest_of_it(world: World) -> None:
    # given a fee of 31 for July, paid in advance, and another plan from July 11 on
    plan(world, "old", CALLS, FEE)
    plan(world, "new", CALLS.replace("0.01", "0.02"), FEE.replace("31", "62"))
    world.subscribe("cus_1", "old")
    world.use("cus_1", 100, utc(2025, 7, 5))
    world.use("cus_1", 100, utc(2025, 7, 15))
    assert totals(world.run(utc(2025, 7, 1)).invoices) == ["31.00"]
    change(world, "cus_1/old", "new", utc(2025, 7, 11))
    # when everything up to August 1 is billed
    made = world.run(utc(2025, 8, 1)).invoices
    # then ten days are at the old prices, 21 days at the new ones, and the fees are by the second
    assert [(invoice.plan, invoice.period.start, shown(invoice)) for invoice in made] == [
        (
            "old",
            utc(2025, 7, 1),
            [("adjustment", "seat", "-21.00"), ("usage", "calls", "1.00"), ("fixed", "seat", "42.00")],
        ),
        ("new", utc(2025, 7, 11), [("usage", "calls", "2.00"), ("fixed", "seat", "62.00")]),
    ]


def test_an_end_inside_a_period_gives_back_what_was_paid_in_advance(world: World) -> None:
    plan(world, "old", FEE)
    world.subscribe("cus_1", "old")
    world.run(utc(2025, 8, 1))  # July, and August in advance
    world.connection.execute("UPDATE subscriptions SET end_at = '2025-08-11T00:00:00Z'")
    (last,) = world.run(utc(2025, 9, 1)).invoices
    # then a negative total is carried: the invoice is 0, and the customer has credit
    assert shown(last) == [("adjustment", "seat", "-21.00"), ("credit", "carried", "21.00")]
    assert (str(last.total), last.status.value) == ("0.00", "paid")
    # and the next invoice of the customer uses it
    plan(world, "usage", CALLS)
    world.subscribe("cus_1", "usage", start="2025-09-01T00:00:00Z")
    world.use("cus_1", 3000, utc(2025, 9, 5))
    (september,) = world.run(utc(2025, 10, 1)).invoices
    assert shown(september) == [("usage", "calls", "30.00"), ("credit", "carried", "-21.00")]


def test_an_end_at_a_boundary_gives_back_the_whole_fee_of_the_period_that_never_comes(world: World) -> None:
    plan(world, "old", FEE)
    world.subscribe("cus_1", "old")
    world.run(utc(2025, 8, 1))
    world.connection.execute("UPDATE subscriptions SET end_at = '2025-08-01T00:00:00Z'")
    (last,) = world.run(utc(2025, 8, 2)).invoices
    assert (last.kind, shown(last)) == (
        Kind.ADJUSTMENT,
        [("adjustment", "seat", "-31.00"), ("credit", "carried", "31.00")],
    )
    assert world.run(utc(2025, 9, 1)).invoices == []


def test_usage_is_billed_when_it_passes_the_threshold_and_not_again_at_the_end(world: World) -> None:
    plan(world, "metered", CALLS, more='threshold = "10"')
    world.subscribe("cus_1", "metered")
    totals_of_july = []
    for day, units in ((3, 999), (5, 101), (9, 900), (20, 1000)):
        world.use("cus_1", units, utc(2025, 7, day))
        totals_of_july += totals(world.run(utc(2025, 7, day, 12)).invoices)
    # then 9.99 is not enough, 11.00 is, 9.00 more is not, and 19.00 more is
    assert totals_of_july == ["11.00", "19.00"]
    world.use("cus_1", 50, utc(2025, 7, 30))
    (july,) = world.run(utc(2025, 8, 1)).invoices
    assert shown(july) == [("usage", "calls", "30.50"), ("adjustment", "calls", "-30.00")]
    assert world.run(utc(2025, 8, 1)).invoices == []


def test_a_minimum_is_no_part_of_what_passes_a_threshold(world: World) -> None:
    plan(world, "metered", CALLS.replace("}", ', minimum = "100"}'), more='threshold = "10"')
    world.subscribe("cus_1", "metered")
    world.use("cus_1", 500, utc(2025, 7, 3))
    assert world.run(utc(2025, 7, 4)).invoices == []
    world.use("cus_1", 600, utc(2025, 7, 5))
    assert totals(world.run(utc(2025, 7, 6)).invoices) == ["11.00"]
    (july,) = world.run(utc(2025, 8, 1)).invoices
    assert shown(july)[1:] == [("minimum", "calls", "89.00"), ("adjustment", "calls", "-11.00")]


def test_a_threshold_needs_no_settled_period_and_is_no_invoice_in_a_dry_run(world: World) -> None:
    world.producer("producer-behind", utc(2025, 6, 1))
    plan(world, "metered", CALLS, more='threshold = "10"')
    world.subscribe("cus_1", "metered")
    world.use("cus_1", 1000, utc(2025, 7, 3))
    assert totals(world.run(utc(2025, 7, 4), dry_run=True).invoices) == ["10.00"]
    (made,) = world.run(utc(2025, 7, 4)).invoices
    assert (made.kind, made.status.value) == (Kind.THRESHOLD, "open")


def test_a_commitment_is_trued_up_at_the_end_of_its_interval_and_taken_back_by_late_usage(world: World) -> None:
    plan(world, "committed", CALLS, more='commitment = {amount = "100", interval = "quarter"}')
    world.subscribe("cus_1", "committed")
    for month, units in ((7, 2000), (8, 3000), (9, 1000)):
        world.use("cus_1", units, utc(2025, month, 5))
    made = world.run(utc(2025, 10, 1)).invoices
    assert [shown(invoice) for invoice in made] == [
        [("usage", "calls", "20.00")],
        [("usage", "calls", "30.00")],
        [("usage", "calls", "10.00"), ("minimum", "commitment", "40.00")],
    ]
    # when usage of September comes late, and more of it than was missing
    world.use("cus_1", 5000, utc(2025, 9, 6))
    (october,) = world.run(utc(2025, 11, 1)).invoices
    # then what was missing is taken back
    assert shown(october) == [("adjustment", "calls", "50.00"), ("adjustment", "commitment", "-40.00")]


def test_late_usage_gets_the_discount_and_the_minimum_of_its_own_period(world: World) -> None:
    discounts = 'discounts = [{name = "launch", percent = "10", duration = 1}]\nminimum = "5"'
    plan(world, "new", CALLS, more=discounts)
    world.subscribe("cus_1", "new")
    world.use("cus_1", 300, utc(2025, 7, 5))
    (july,) = world.run(utc(2025, 8, 1)).invoices
    assert shown(july) == [("usage", "calls", "3.00"), ("minimum", "minimum", "2.00"), ("discount", "launch", "-0.50")]
    world.use("cus_1", 500, utc(2025, 7, 6))
    world.use("cus_1", 1000, utc(2025, 8, 6))
    (august,) = world.run(utc(2025, 9, 1)).invoices
    # then July costs 8.00 less 10 % by now: 5.00 more, 2.00 less, and 0.30 off
    assert shown(august) == [
        ("usage", "calls", "10.00"),
        ("adjustment", "calls", "5.00"),
        ("adjustment", "minimum", "-2.00"),
        ("adjustment", "launch", "-0.30"),
    ]


def test_credit_that_comes_with_a_plan_is_granted_once_and_drawn_until_it_is_used_up(world: World) -> None:
    plan(world, "gift", CALLS, more='credits = [{name = "welcome", amount = "15"}]')
    world.subscribe("cus_1", "gift")
    made = []
    for month in (7, 8):
        world.use("cus_1", 1000, utc(2025, month, 5))
        world.run(utc(2025, month, 20), dry_run=True)
        made += world.run(utc(2025, month + 1, 1)).invoices
    assert [shown(invoice)[1:] for invoice in made] == [
        [("credit", "welcome", "-10.00")],
        [("credit", "welcome", "-5.00")],
    ]
    assert world.connection.execute("SELECT count(*), sum(remaining) FROM credit_grants").fetchall() == [(1, 0)]


def test_two_subscriptions_of_a_customer_never_draw_one_unit_of_credit_twice(world: World) -> None:
    world.apply('[[meters]]\nname = "other"\nevent_type = "other"\n')
    plan(world, "one", CALLS, more='credits = [{name = "welcome", amount = "15"}]')
    plan(world, "two", CALLS.replace("api_call", "other"))
    world.subscribe("cus_1", "one")
    world.subscribe("cus_1", "two")
    for meter in ("api_call", "other"):
        world.use("cus_1", 1000, utc(2025, 7, 5), meter=meter)
    made = world.run(utc(2025, 8, 1)).invoices
    assert sorted(totals(made)) == ["0.00", "5.00"]


def test_nothing_is_billed_for_a_trial(world: World) -> None:
    plan(world, "try", CALLS, FEE, more="trial = {days = 10}")
    world.subscribe("cus_1", "try")
    world.use("cus_1", 5000, utc(2025, 7, 5))
    world.use("cus_1", 100, utc(2025, 7, 11))
    assert world.run(utc(2025, 7, 10)).invoices == []
    made = world.run(utc(2025, 8, 1)).invoices
    # then billing begins on July 11, with 21 of 31 days
    assert [shown(invoice) for invoice in made] == [
        [("fixed", "seat", "21.00")],
        [("usage", "calls", "1.00"), ("fixed", "seat", "31.00")],
    ]


def test_a_price_with_an_interval_of_its_own_is_billed_when_that_is_over(world: World) -> None:
    daily = CALLS.replace('"calls"', '"daily"').replace("}", ', interval = "day", minimum = "1"}')
    world.apply('[[meters]]\nname = "other"\nevent_type = "other"\n')
    quarterly = '{name = "quarterly", meter = "other", model = "per_unit", unit_price = "1", interval = "quarter"}'
    plan(world, "mixed", daily, quarterly)
    world.subscribe("cus_1", "mixed", start="2025-08-30T00:00:00Z")
    world.use("cus_1", 300, utc(2025, 8, 31))
    world.use("cus_1", 2, utc(2025, 8, 31), meter="other")
    world.use("cus_1", 3, utc(2025, 9, 30), meter="other")
    august, september = world.run(utc(2025, 10, 1)).invoices
    assert shown(august) == [("minimum", "daily", "1.00"), ("usage", "daily", "3.00")]
    assert str(september.total) == "35.00"  # 30 days at the minimum, and 5 units of the quarter
    assert [(line.period.start, str(line.amount)) for line in september.lines if line.price == "quarterly"] == [
        (utc(2025, 8, 30), "5.00")
    ]


def test_a_customer_s_time_zone_chooses_when_months_begin(world: World) -> None:
    world.apply('[[customers]]\nid = "cus_1"\ntime_zone = "America/New_York"\n')
    plan(world, "metered", CALLS)
    world.subscribe("cus_1", "metered", start="2025-10-01T04:00:00Z")
    world.use("cus_1", 100, utc(2025, 11, 1, 3, 45))  # October in New York
    world.use("cus_1", 700, utc(2025, 11, 1, 4, 0))
    world.use("cus_1", 20, utc(2025, 12, 1, 4, 45))  # daylight saving is over: midnight is at 5:00
    made = world.run(utc(2025, 12, 2)).invoices
    assert [(invoice.period.start, invoice.period.end, str(invoice.total)) for invoice in made] == [
        (utc(2025, 10, 1, 4), utc(2025, 11, 1, 4), "1.00"),
        (utc(2025, 11, 1, 4), utc(2025, 12, 1, 5), "7.20"),
    ]


def test_a_dry_run_shows_a_running_period_as_it_is_so_far_and_makes_nothing(world: World) -> None:
    plan(world, "metered", CALLS)
    world.subscribe("cus_1", "metered", start="2026-11-01T00:00:00Z")
    world.use("cus_1", 150, utc(2026, 11, 2))
    (preview,) = world.run(utc(2026, 12, 1), dry_run=True).invoices
    assert (str(preview.total), preview.period.end, preview.reason) == ("1.50", utc(2026, 12, 1), "period_open")
    (so_far,) = world.run(utc(2026, 11, 3), dry_run=True, preview=True).invoices
    assert (str(so_far.total), so_far.reason) == ("1.50", "period_open")
    assert world.counts()["invoices"] == 0


def test_usage_of_two_currencies_is_billed_with_their_digits(world: World) -> None:
    for code, price, total in (("jpy", "0.015", "2"), ("kwd", "0.00155", "0.160"), ("usd", "0.00155", "0.16")):
        name = f"plan_{code}"
        world.apply(
            f'[[plans]]\nname = "{name}"\ncurrency = "{code}"\n'
            f'prices = [{{name = "calls", meter = "api_call", model = "per_unit", unit_price = "{price}"}}]\n'
        )
        world.subscribe(f"cus_{code}", name)
        world.use(f"cus_{code}", 100, utc(2025, 7, 5))
        (invoice,) = world.run(utc(2025, 8, 1), customer=f"cus_{code}").invoices
        assert str(invoice.total) == total


def test_closed_periods_keep_their_terms_unless_somebody_says_that_they_are_rated_anew(world: World) -> None:
    # given three closed months, and another plan that is in force since the second of them
    plan(world, "old", CALLS)
    plan(world, "new", CALLS.replace("0.01", "0.02").replace('"calls"', '"requests"'))
    world.subscribe("cus_1", "old")
    for month in (7, 8, 9):
        world.use("cus_1", 100, utc(2025, month, 5))
    world.run(utc(2025, 10, 1))
    change(world, "cus_1/old", "new", utc(2025, 8, 1))
    # when nobody said anything, then nothing closed changes
    assert world.run(utc(2025, 10, 2)).invoices == []
    # but when somebody does
    for statement in (
        "INSERT INTO reratings (subscription, since, reason) VALUES ('cus_1/old', '2025-08-01Z', 'told so')",
        "INSERT INTO late_releases (subscription, reason) VALUES ('cus_1/old', 'told so')",
    ):
        world.connection.execute(statement)
    world.use("cus_1", 100, utc(2025, 10, 5))
    (october,) = world.run(utc(2025, 11, 1)).invoices
    # then what was billed by the old plan is given back, and billed by the new one
    assert [(*entry, line.period.start.month) for entry, line in zip(shown(october), october.lines, strict=True)] == [
        ("usage", "requests", "2.00", 10),
        ("usage", "requests", "2.00", 8),
        ("adjustment", "calls", "-1.00", 8),
        ("usage", "requests", "2.00", 9),
        ("adjustment", "calls", "-1.00", 9),
    ]
    # and later usage of these months is billed by it too
    world.use("cus_1", 50, utc(2025, 10, 6), came=utc(2025, 11, 2))
    (november,) = world.run(utc(2025, 12, 1)).invoices
    assert shown(november) == [("adjustment", "requests", "1.00")]
