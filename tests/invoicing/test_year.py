"""A year of a customer, leap day, changes of plan, credit, late and voided usage included. Computed by hand.

The subscription begins on January 31, so its months begin on the last days: February 29, March 31, April 30 and so on.
"Team" costs 29.00 a month in advance; 1,000 calls are free, a further one is 0.01. "Scale" costs 62.00, a call 0.008.
"""

from decimal import Decimal

from flusher.invoicing.invoice import Invoice
from flusher.invoicing.late import list_held, release
from flusher.invoicing.run import Options
from tests.invoicing.world import World, utc

CATALOG = """
[[customers]]
id = "acme"
user_ids = ["acme-1", "acme-2"]

[[plans]]
name = "team"
currency = "usd"
anchor = "anniversary"
credits = [{name = "welcome", amount = "50"}]
prices = [
    {name = "calls", meter = "api_call", model = "graduated", tiers = [
        {up_to = 1000, unit_price = "0"}, {unit_price = "0.01"}]},
    {name = "seat", model = "fixed", amount = "29", charge = "in_advance"},
]

[[plans]]
name = "scale"
currency = "usd"
anchor = "anniversary"
prices = [
    {name = "calls", meter = "api_call", model = "per_unit", unit_price = "0.008"},
    {name = "seat", model = "fixed", amount = "62", charge = "in_advance"},
]
"""

USAGE = [  # user, units, when, when it came where that was later
    ("acme-1", 900, utc(2024, 2, 1), None),
    ("acme-2", 600, utc(2024, 2, 28, 23, 45), None),
    ("acme-1", 1200, utc(2024, 2, 29), None),  # the leap day is the first of the second month
    ("acme-2", 800, utc(2024, 3, 30, 23, 45), None),
    ("acme-1", 250, utc(2024, 2, 10), utc(2024, 3, 20)),  # late for the first month
    ("acme-1", 3000, utc(2024, 5, 10, 11, 45), None),
    ("acme-1", 10000, utc(2024, 5, 10, 12), None),  # the first quarter of an hour on the other plan
    ("acme-2", 500, utc(2024, 5, 1), utc(2024, 5, 20)),  # late for the part of the month on the old plan
    ("acme-1", 5000, utc(2024, 6, 15), None),
    ("acme-1", -2000, utc(2024, 5, 20), utc(2024, 6, 5)),  # voided
    ("acme-1", 100, utc(2024, 7, 1), None),
    ("acme-1", 1000, utc(2024, 6, 10), utc(2024, 8, 15)),  # 46 days after that month ended
    ("acme-1", 1000, utc(2024, 11, 5), None),
    ("acme-1", 1100, utc(2024, 12, 14, 23, 45), None),
]

CHANGE = "INSERT INTO subscription_changes (subscription, at, plan) VALUES"
DECISIONS = [  # what is decided, and when
    (
        utc(2024, 5, 2),
        f"{CHANGE} ('acme/team', '2024-05-10T12:00:00Z', 'scale')",
    ),
    (
        utc(2024, 10, 10),
        f"{CHANGE} ('acme/team', '2024-10-31T00:00:00Z', 'team')",
    ),
    (utc(2024, 12, 1), "UPDATE subscriptions SET end_at = '2024-12-15T00:00:00Z'"),
]

INVOICES = [
    (utc(2024, 1, 31), "0.00", ["fixed seat 29.00", "credit welcome -29.00"]),
    # 1,500 calls; the rest of the credit
    (utc(2024, 2, 29), "13.00", ["usage calls 0.00", "usage calls 5.00", "fixed seat 29.00", "credit welcome -21.00"]),
    # 2,000 calls from the leap day to March 30; 250 more of February
    (utc(2024, 3, 31), "41.50", ["usage calls 0.00", "usage calls 10.00", "fixed seat 29.00", "adjustment calls 2.50"]),
    (utc(2024, 4, 30), "29.00", ["fixed seat 29.00"]),
    # 10.5 of 31 days: 29.00 x 252 h / 744 h = 9.82, so 19.18 back; then 62.00 x 492 h / 744 h = 41.00
    (
        utc(2024, 5, 10, 12),
        "41.82",
        ["adjustment seat -19.18", "usage calls 0.00", "usage calls 20.00", "fixed seat 41.00"],
    ),
    # 10,000 calls at the new price; 500 more of the part before, at the old one
    (utc(2024, 5, 31), "147.00", ["usage calls 80.00", "fixed seat 62.00", "adjustment calls 5.00"]),
    (utc(2024, 6, 30), "86.00", ["usage calls 40.00", "fixed seat 62.00", "adjustment calls -16.00"]),
    (utc(2024, 7, 31), "62.80", ["usage calls 0.80", "fixed seat 62.00"]),
    (utc(2024, 8, 31), "62.00", ["fixed seat 62.00"]),
    # what was held of June is released
    (utc(2024, 9, 30), "70.00", ["fixed seat 62.00", "adjustment calls 8.00"]),
    # back on the old plan
    (utc(2024, 10, 31), "29.00", ["fixed seat 29.00"]),
    (utc(2024, 11, 30), "29.00", ["usage calls 0.00", "fixed seat 29.00"]),
    # 15 of 31 days: 14.03, so 14.97 back; 13.97 are left for another time
    (
        utc(2024, 12, 15),
        "0.00",
        ["adjustment seat -14.97", "usage calls 0.00", "usage calls 1.00", "credit carried 13.97"],
    ),
]


def test_a_year_of_a_customer_comes_to_what_it_comes_to_by_hand(world: World) -> None:
    # given the customer, and what happens through the year
    world.apply(CATALOG)
    world.subscribe("acme", "team", start="2024-01-31T00:00:00Z")
    used, decided = list(USAGE), list(DECISIONS)
    made: list[Invoice] = []
    for at, _, _ in INVOICES:
        while used and (used[0][3] or used[0][2]) < at:
            user, units, when, came = used.pop(0)
            world.use(user, units, when, came=came)
        while decided and decided[0][0] < at:
            world.connection.execute(decided.pop(0)[1])
        made += world.run(at).invoices
        if at == utc(2024, 8, 31):
            held = list(list_held(world.connection, Options().late_limit))
            assert [(one.period.start, one.amount) for one in held] == [(utc(2024, 5, 31), Decimal("8.00"))]
            release(world.connection, "acme/team", "agreed with acme")
    assert (used, decided) == ([], [])
    # then every invoice is as computed, and nothing is left to bill
    found = [
        (
            invoice.period.end,
            str(invoice.total),
            [f"{line.kind} {line.price} {line.amount}" for line in invoice.lines],
        )
        for invoice in made
    ]
    assert found == INVOICES
    assert sum((invoice.total for invoice in made), Decimal(0)) == Decimal("611.12")
    assert world.run(utc(2025, 6, 1)).invoices == []
    left = world.connection.execute("SELECT name, remaining FROM credit_grants ORDER BY name").fetchall()
    assert left == [("carried", Decimal("13.97")), ("welcome", Decimal("0.00"))]
