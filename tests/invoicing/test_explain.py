"""`taximeter explain`: each line with its terms, the hours and events it came from, and how it was rounded."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from flusher.invoicing.credit_store import grant
from flusher.invoicing.credits import Grant, GrantKind
from sidecar.contract.identity import event_key
from tests.invoicing.world import World, utc

Run = Callable[..., int]
Explain = Callable[..., Any]

EVER = timedelta(days=36_500)
GROUPS = """
[[meters]]
name = "traffic"
event_type = "traffic"
group_by = ["region"]
[[meters]]
name = "people"
event_type = "visit"
aggregation = "unique"
field = "properties.email"
[[plans]]
name = "web"
currency = "usd"
[[plans.prices]]
name = "base"
model = "fixed"
amount = "30"
charge = "in_arrears"
[[plans.prices]]
name = "traffic"
meter = "traffic"
model = "per_unit"
unit_price = "0.333"
per_group = true
[[plans.prices]]
name = "people"
meter = "people"
model = "volume"
tiers = [{up_to = 10, unit_price = "2"}, {unit_price = "1"}]
"""


@pytest.fixture
def explained(taximeter: Run, capsys: pytest.CaptureFixture[str]) -> Explain:
    """Returns the JSON of `taximeter explain`."""

    def run(*argv: str) -> Any:
        capsys.readouterr()
        assert taximeter("explain", *argv, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


def july(world: World) -> str:
    """Makes an invoice over 12,345 units of three hours; returns its id."""
    world.subscribe("c1")
    world.use("c1", 345, utc(2025, 7, 5, 10, 20), events=3)
    world.use("c1", 2000, utc(2025, 7, 5, 10, 50), events=4)
    world.use("c1", 10000, utc(2025, 7, 31, 23, 59), events=5)
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    return invoice.id


def see(world: World, user: str, label: str, at: datetime) -> None:
    """Counts an event of the meter `people`, as the drain would have."""
    world.connection.execute(
        "INSERT INTO usage_values (user_id, meter, dimensions, event_time, event_key, value, label)"
        " VALUES (%s, 'people', '{}', %s, %s, 0, %s)",
        (user, at, event_key(user, label, str(at)), label),
    )
    world.use(user, 0, at, meter="people")


def test_a_line_says_its_tier_its_hours_its_events_and_its_rounding(world: World, explained: Explain) -> None:
    found = explained(july(world))
    assert found["total"] == "101.73"
    line = found["lines"][2]
    assert (line["tier"], line["quantity"], line["unit_price"], line["amount"]) == (3, "2345", "0.005", "11.73")
    assert "2,345 x 0.005 = 11.725" in line["working"]
    assert "11.73" in line["working"]
    assert line["terms"]["tiers"][1] == {"up_to": "10000", "unit_price": "0.01", "flat_fee": "0"}
    usage = line["usage"]
    assert usage["aggregation"] == "sum"
    assert usage["events"] == 12
    assert usage["hours"] == [
        {"from": "2025-07-05T10:00:00Z", "units": "2345", "events": 7},
        {"from": "2025-07-31T23:00:00Z", "units": "10000", "events": 5},
    ]
    assert usage["billed"] == usage["now"] == {"quantity": "12345", "events": 12}
    assert usage["changed"] is False
    assert line["history"] == [{"invoice": found["id"], "amount": "101.73"}]


def test_usage_that_has_changed_since_is_told(world: World, taximeter: Run, explained: Explain, capsys: Any) -> None:
    invoice = july(world)
    world.use("c1", 5, utc(2025, 7, 6), events=1)
    usage = explained(invoice)["lines"][0]["usage"]
    assert (usage["changed"], usage["billed"]["quantity"], usage["now"]["quantity"]) == (True, "12345", "12350")
    assert taximeter("explain", invoice) == 0
    assert "12,345 in 12 events were billed so far, it shows 12,350 in 13 events now" in capsys.readouterr().out


def test_an_adjustment_says_what_was_billed_before_and_by_which_invoice(world: World, explained: Explain) -> None:
    # given an invoice, usage that came late, and a plan that is another by then
    first = july(world)
    world.use("c1", 1000, utc(2025, 7, 6), events=1)
    second = world.run(utc(2025, 9, 1), late_limit=EVER).invoices[0]
    # when the next one is explained
    lines = explained(second.id)["lines"]
    # then the adjustment names both amounts, and the terms of the period that it is of
    (line,) = [line for line in lines if line["kind"] == "adjustment"]
    assert line["period"]["from"] == "2025-07-01T00:00:00Z"
    assert line["history"] == [
        {"invoice": first, "amount": "101.73"},
        {"invoice": second.id, "amount": line["amount"]},
    ]
    assert line["amount"] == "5.00"
    assert "106.73 now - 101.73 billed" in line["working"]
    assert line["terms"]["model"] == "graduated"
    assert line["usage"]["events"] == 13
    assert line["usage"]["changed"] is False


def test_an_adjustment_is_explained_by_the_terms_of_its_own_period(world: World, explained: Explain) -> None:
    world.apply(GROUPS)
    world.subscribe("c1", "web")
    world.use("c1", 10, utc(2025, 7, 5), meter="traffic", region="eu")
    world.run(utc(2025, 8, 1))
    # a version that is in effect for the next period alone
    world.apply(GROUPS.replace("0.333", "9"))
    world.connection.execute("UPDATE plan_versions SET effective_at = '2025-08-01' WHERE plan = 'web' AND version = 2")
    world.use("c1", 10, utc(2025, 7, 6), meter="traffic", region="eu")
    second = world.run(utc(2025, 9, 1), late_limit=EVER).invoices[0]
    (line,) = [line for line in explained(second.id)["lines"] if line["kind"] == "adjustment"]
    assert line["terms"]["unit_price"] == "0.333"


@pytest.mark.parametrize("closed", [False, True])
def test_a_fee_in_advance_is_explained_by_the_terms_of_the_period_that_it_is_for(
    world: World, explained: Explain, closed: bool
) -> None:
    # given a subscription that changes to a plan with another fee on August 1
    for name, fee in (("small", 10), ("large", 20)):
        seat = f'{{name = "seat", model = "fixed", amount = "{fee}", charge = "in_advance"}}'
        world.apply(f'[[plans]]\nname = "{name}"\ncurrency = "usd"\nprices = [{seat}]\n')
    world.subscribe("c1", "small")
    world.connection.execute(
        "INSERT INTO subscription_changes (subscription, at, plan) VALUES ('c1/small', '2025-08-01', 'large')"
    )
    invoices = world.run(utc(2025, 9, 1) if closed else utc(2025, 8, 1)).invoices
    # when July's invoice is explained, which bills August in advance
    (line,) = explained(invoices[1].id)["lines"]
    # then it is the later plan's fee, and the opening invoice's is the first one's
    assert (line["amount"], line["terms"]["amount"]) == ("20.00", "20")
    assert explained(invoices[0].id)["lines"][0]["terms"]["amount"] == "10"


def test_a_line_of_a_group_comes_from_the_hours_of_that_group(world: World, explained: Explain) -> None:
    world.apply(GROUPS)
    world.subscribe("c1", "web")
    world.use("c1", 10, utc(2025, 7, 5, 1), meter="traffic", region="eu")
    world.use("c1", 20, utc(2025, 7, 5, 2), meter="traffic", region="us", events=6)
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    lines = {json.dumps(line["dimensions"]): line for line in explained(invoice.id)["lines"] if line["meter"]}
    european, american = lines['{"region": "eu"}'], lines['{"region": "us"}']
    assert european["usage"]["hours"] == [{"from": "2025-07-05T01:00:00Z", "units": "10", "events": 1}]
    assert (american["usage"]["events"], american["amount"]) == (6, "6.66")
    assert american["usage"]["now"] == {"quantity": "30", "events": 7}


def test_a_count_of_different_values_comes_from_the_events_that_had_them(world: World, explained: Explain) -> None:
    world.apply(GROUPS)
    world.subscribe("c1", "web")
    for label, hour, minute in (("a", 1, 0), ("b", 1, 10), ("a", 1, 20), ("a", 2, 0)):
        see(world, "c1", label, utc(2025, 7, 5, hour, minute))
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    (line,) = [line for line in explained(invoice.id)["lines"] if line["price"] == "people"]
    assert line["quantity"] == "2"
    assert [(hour["units"], hour["events"]) for hour in line["usage"]["hours"]] == [("2", 3), ("1", 1)]
    assert line["usage"]["aggregation"] == "unique"
    assert line["usage"]["now"]["quantity"] == "2"


def test_a_fee_has_terms_and_no_usage(world: World, explained: Explain) -> None:
    world.apply(GROUPS)
    world.subscribe("c1", "web")
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    (line,) = explained(invoice.id)["lines"]
    assert (line["price"], line["usage"], line["terms"]["model"], line["amount"]) == ("base", None, "fixed", "30.00")
    assert "30" in line["working"]


def test_credit_names_its_grant_and_what_is_left(
    world: World, taximeter: Run, explained: Explain, capsys: pytest.CaptureFixture[str]
) -> None:
    amount = Decimal(150)
    start = utc(2025, 7, 1)
    grant(world.connection, [Grant("g1", "c1", "usd", "Welcome", GrantKind.PREPAID, amount, amount, 5, start, start)])
    invoice = july(world)
    line = explained(invoice)["lines"][-1]
    assert (line["kind"], line["price"], line["amount"], line["grant"]) == ("credit", "Welcome", "-101.73", "g1")
    assert line["working"] == "150 - 101.73 = 48.27 remain"
    assert taximeter("explain", invoice) == 0
    assert "grant g1: 150 USD, prepaid, priority 5, never expires; 48.27 remain now" in capsys.readouterr().out


def test_a_person_reads_lines_with_tiers_and_hours(
    world: World, taximeter: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    invoice = july(world)
    capsys.readouterr()
    assert taximeter("explain", invoice) == 0
    shown = capsys.readouterr().out
    assert "101.73 USD" in shown
    assert "2,345 x 0.005 = 11.725" in shown
    assert "from 12 events of api_call (sum) in 2 hours" in shown
    assert "2025-07-31T23:00:00Z" in shown
    assert shown.count("from 12 events") == 1


@pytest.mark.parametrize("by", ["place", "id"])
def test_one_line_is_explained_alone_with_all_its_hours(
    world: World, taximeter: Run, explained: Explain, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    world.subscribe("c1")
    for hour in range(30):
        world.use("c1", 100, utc(2025, 7, 5) + timedelta(hours=hour))
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    name = "2" if by == "place" else invoice.lines[1].id
    assert [line["id"] for line in explained(invoice.id, "--line", name)["lines"]] == [invoice.lines[1].id]
    assert taximeter("explain", invoice.id) == 0
    assert "and 6 more hours: add --line" in capsys.readouterr().out
    assert taximeter("explain", invoice.id, "--line", name) == 0
    assert "2025-07-06T05:00:00Z" in capsys.readouterr().out


def test_what_is_not_there_is_said(world: World, taximeter: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert taximeter("explain", "inv_none") == 1
    assert "error: invoice_unknown" in capsys.readouterr().err
    assert taximeter("explain", july(world), "--line", "4") == 1
    assert "error: line_unknown" in capsys.readouterr().err
