"""`taximeter simulate`: real usage under a plan that does not exist yet, beside what it was worth."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow

from flusher.catalog_store import apply_catalog
from flusher.cli.main import main
from flusher.database import connect
from tests.catalog.support import METER, PLAN

Connection = psycopg.Connection[TupleRow]
Rows = dict[str, list[str | None]]
Simulate = Callable[..., tuple[Rows, dict[str, Any]]]

FEE = '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = 31\ncharge = "in_advance"\n'


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def simulated(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Simulate:
    def simulate(
        plan: str, *arguments: str, start: str = "2025-07-01", end: str = "2025-08-01"
    ) -> tuple[Rows, dict[str, Any]]:
        file = tmp_path / "new.toml"
        file.write_text(plan)
        capsys.readouterr()
        target = ["--database-url", database_url, "--json", *arguments]
        assert main(["simulate", "--plan", str(file), "--from", start, "--to", end, *target]) == 0
        found = json.loads(capsys.readouterr().out)
        return {row["customer"]: [row["old"], row["new"]] for row in found["customers"]}, found

    return simulate


def subscribe(connection: Connection, *customers: str, plan: str = "pro", end: str = "") -> None:
    rows = [
        f'[[subscriptions]]\ncustomer = "{customer}"\nplan = "{plan}"\nstart = 2025-01-01T00:00:00Z\n'
        + (f"end = {end}T00:00:00Z\n" if end else "")
        for customer in customers
    ]
    apply_catalog(connection, "".join(rows))


def use(
    connection: Connection, user: str, units: int, at: str = "2025-07-10T10:00:00Z", meter: str = "api_call"
) -> None:
    connection.execute(
        "INSERT INTO usage (shard, user_id, meter, window_start, units, events) VALUES (0, %s, %s, %s, %s, %s)",
        (user, meter, at, units, units),
    )


def test_each_customer_is_shown_old_beside_new_with_totals(connection: Connection, simulated: Simulate) -> None:
    # Given a plan of 1 cent a call, and customers who used 100 and 300 in July
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "a", "b", "idle")
    use(connection, "a", 100)
    use(connection, "b", 300)
    use(connection, "b", 7, at="2025-08-01T00:00:00Z")
    # When a plan of half a cent and a fee of 2 is tried
    plan = PLAN.replace('"pro"', '"new"').replace('"0.01"', '"0.005"')
    rows, found = simulated(plan + FEE.replace("31", "2"))
    # Then each customer has both, and the totals add up
    assert rows == {"a": ["1.00", "2.50"], "b": ["3.00", "3.50"], "idle": ["0.00", "2.00"]}
    assert found["totals"] == {
        "customers": 3,
        "more": 3,
        "less": 0,
        "same": 0,
        "not_compared": 0,
        "old": "4.00",
        "new": "8.00",
        "difference": "4.00",
    }


def test_periods_tiers_and_fees_are_those_of_the_plan_cut_at_the_times_asked_for(
    connection: Connection, simulated: Simulate
) -> None:
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "a")
    use(connection, "a", 150, at="2025-06-30T23:45:00Z")
    use(connection, "a", 150, at="2025-07-01T00:00:00Z")
    # Given a plan whose first 100 a month are free, and a monthly fee
    plan = PLAN.replace('"pro"', '"new"').replace('unit_price = "0.01"', 'unit_price = "1"\nfree_units = 100')
    # When June's second half and July's first day are rated: 15 of 30 days, and one of 31
    rows, _ = simulated(plan + FEE, start="2025-06-16", end="2025-07-02")
    # Then each month has its free units, and its share of the fee
    assert rows == {"a": ["3.00", "116.50"]}  # 50 + 50 + 31 * 15/30 + 31 * 1/31


def test_the_old_side_follows_versions_changes_and_the_end_of_subscriptions(
    connection: Connection, simulated: Simulate
) -> None:
    apply_catalog(connection, METER + PLAN + PLAN.replace('"pro"', '"dear"').replace('"0.01"', '"1"'))
    subscribe(connection, "a", end="2025-07-20")
    connection.execute("INSERT INTO subscription_changes VALUES ('a/pro', '2025-07-10T00:00:00Z', 'dear')")
    for day in ("05", "15", "25"):  # by pro, by dear, after the end
        use(connection, "a", 100, at=f"2025-07-{day}T00:00:00Z")
    rows, _ = simulated(PLAN.replace('"pro"', '"new"').replace('"0.01"', '"0.02"'))
    # Then the new plan is in force for as long as the old ones were
    assert rows == {"a": ["101.00", "4.00"]}


def test_only_subscriptions_that_price_a_meter_of_the_plan_are_replaced(
    connection: Connection, simulated: Simulate
) -> None:
    other = METER.replace("api_call", "storage")
    flat = PLAN.replace('"pro"', '"disk"').replace("api_call", "storage")
    apply_catalog(connection, METER + other + PLAN + flat)
    subscribe(connection, "a", "b")
    subscribe(connection, "a", "c", plan="disk")
    for user in ("a", "b", "c"):
        use(connection, user, 100)
        use(connection, user, 500, meter="storage")
    rows, found = simulated(PLAN.replace('"pro"', '"new"').replace('"0.01"', '"0.03"'))
    assert rows == {"a": ["1.00", "3.00"], "b": ["1.00", "3.00"]}
    assert [row["subscriptions"] for row in found["customers"]] == [["a/pro"], ["b/pro"]]


def test_a_customer_without_a_subscription_is_rated_when_named(connection: Connection, simulated: Simulate) -> None:
    apply_catalog(connection, METER + PLAN)
    use(connection, "lead", 1000)
    assert simulated(PLAN)[0] == {}
    assert simulated(PLAN, "--customer", "lead")[0] == {"lead": ["0.00", "10.00"]}


def test_a_commitment_counts_the_periods_before(connection: Connection, simulated: Simulate) -> None:
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "a")
    use(connection, "a", 1000, at="2025-07-05T00:00:00Z")
    use(connection, "a", 2000, at="2025-08-05T00:00:00Z")
    plan = PLAN.replace('"pro"', '"new"').replace(
        "[[plans.prices]]", 'commitment = {amount = 100, interval = "quarter"}\n[[plans.prices]]'
    )
    assert simulated(plan, end="2025-10-01")[0] == {"a": ["30.00", "100.00"]}
    # And the next quarter begins anew
    assert simulated(plan, end="2026-01-01")[0] == {"a": ["30.00", "200.00"]}


def test_a_trial_of_the_new_plan_hides_nothing(connection: Connection, simulated: Simulate) -> None:
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "a")
    use(connection, "a", 100)
    plan = PLAN.replace('"pro"', '"new"').replace("[[plans.prices]]", "trial = {days = 30}\n[[plans.prices]]")
    assert simulated(plan)[0] == {"a": ["1.00", "1.00"]}


def test_the_days_are_those_of_the_customers_zone(connection: Connection, simulated: Simulate) -> None:
    apply_catalog(connection, METER + PLAN + '[[customers]]\nid = "a"\ntime_zone = "Asia/Kolkata"\n')
    subscribe(connection, "a")
    use(connection, "a", 60, at="2025-07-31T18:15:00Z")
    use(connection, "a", 60, at="2025-07-31T18:30:00Z")
    plan = PLAN.replace('"pro"', '"new"').replace('unit_price = "0.01"', 'unit_price = "1"\nfree_units = 50')
    # Then the two quarters of an hour are in two months, each with its free units
    assert simulated(plan, end="2025-09-01")[0] == {"a": ["1.20", "20.00"]}


def test_customers_billed_in_another_currency_are_named_and_left_out_of_the_totals(
    connection: Connection, simulated: Simulate
) -> None:
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "a")
    rows, found = simulated(PLAN.replace('"pro"', '"new"').replace("usd", "eur"))
    assert rows == {"a": [None, None]}
    assert "usd" in str(found["customers"])
    assert found["totals"]["not_compared"] == 1


def test_more_customers_than_a_page_are_all_there(
    connection: Connection, simulated: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flusher.simulate.PAGE", 2)
    monkeypatch.setattr("flusher.simulate.NEEDS_MAX", 1)
    apply_catalog(connection, METER + PLAN)
    names = [f"c{number}" for number in range(5)]
    subscribe(connection, *names)
    for number, name in enumerate(names):
        use(connection, name, number * 100)
    rows, _ = simulated(PLAN)
    assert rows == {name: [f"{number}.00"] * 2 for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (PLAN.replace('meter = "api_call"', 'meter = "fresh"') + METER.replace("api_call", "fresh"), "meter in force"),
        (PLAN + PLAN.replace('"pro"', '"other"'), "expected FILE:NAME"),
        (
            PLAN.replace('model = "per_unit"\nunit_price = "0.01"', 'model = "percentage"\nrate = 1\nfree_events = 2'),
            "single",
        ),
    ],
)
def test_a_plan_that_what_was_recorded_cannot_answer_is_refused(
    connection: Connection,
    database_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    plan: str,
    says: str,
) -> None:
    apply_catalog(connection, METER)
    file = tmp_path / "new.toml"
    file.write_text(plan)
    within = ["--from", "2025-07-01", "--to", "2025-08-01", "--database-url", database_url]
    assert main(["simulate", "--plan", str(file), *within])
    assert says in capsys.readouterr().err


def test_a_table_shows_the_greatest_differences_and_the_totals(
    connection: Connection,
    database_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flusher.cli.simulate.SHOWN_MAX", 1)
    apply_catalog(connection, METER + PLAN)
    subscribe(connection, "small", "large")
    use(connection, "small", 100)
    use(connection, "large", 900)
    file = tmp_path / "new.toml"
    file.write_text(PLAN.replace('"0.01"', '"0.02"') + PLAN.replace('"pro"', '"other"'))
    arguments = ["--from", "2025-07-01", "--to", "2025-08-01", "--database-url", database_url]
    assert main(["simulate", "--plan", f"{file}:pro", *arguments]) == 0
    out = capsys.readouterr().out
    assert "large" in out
    assert "small" not in out
    assert "... and 1 that differ less" in out
    assert "2 customers: 2 would pay more, 0 less, 0 the same" in out
    assert "plan pro: 20.00 USD instead of 10.00, 10.00" in out


def test_the_old_side_is_what_is_invoiced(
    connection: Connection, simulated: Simulate, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a customer with a zone, a trial, fees, a commitment, a discount and a change in the middle of May
    terms = 'commitment = {amount = 40, interval = "quarter"}\ndiscounts = [{percent = "12.5", duration = 4}]\n'
    graduated = 'model = "graduated"\ntiers = [{up_to = 100, unit_price = "0.03"}, {unit_price = "0.07"}]'
    plan = PLAN.replace("[[plans.prices]]", f"{terms}[[plans.prices]]", 1)
    plan = plan.replace('model = "per_unit"\nunit_price = "0.01"', graduated) + FEE
    dear = PLAN.replace('"pro"', '"dear"').replace('"0.01"', '"0.4"') + FEE.replace("31", "62")
    zone = '[[customers]]\nid = "a"\ntime_zone = "America/Sao_Paulo"\n'
    apply_catalog(connection, METER + plan + dear + zone)
    apply_catalog(
        connection,
        '[[subscriptions]]\ncustomer = "a"\nplan = "pro"\nstart = 2025-01-20T06:30:00Z\nend = 2025-09-10T12:00:00Z\n'
        "trial = {days = 5}\n",
    )
    arguments = ["--at", "2025-05-17T18:45:00Z", "--database-url", database_url]
    assert main(["subscriptions", "change", "a/pro", "--plan", "dear", *arguments]) == 0
    for month in range(1, 10):
        use(connection, "a", month * 37, at=f"2025-0{month}-09T03:15:00Z")
        use(connection, "a", 11, at=f"2025-0{month}-28T22:00:00Z")
    # When everything is invoiced
    capsys.readouterr()
    assert main(["invoice", "--json", "--database-url", database_url]) == 0
    totals = [Decimal(invoice["total"]) for invoice in json.loads(capsys.readouterr().out)["invoices"]]
    # Then that is what the old side comes to
    rows, _ = simulated(PLAN, start="2025-01-01", end="2026-01-01")
    assert len(totals) > 9
    assert rows["a"][0] == str(sum(totals))
