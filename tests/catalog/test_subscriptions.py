"""`taximeter subscriptions`: lists, imports, changes and ends them in a real PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow

from flusher.catalog.model import PlanChange, Subscription
from flusher.catalog_store import apply_catalog, load_subscriptions
from flusher.cli.main import main
from flusher.database import connect
from flusher.pricing.plan import Discount
from flusher.sql import query
from tests.catalog.support import METER, PLAN, instant, leave_invoice

Connection = psycopg.Connection[TupleRow]
Run = Callable[..., tuple[int, Any]]

TEAM = PLAN.replace('"pro"', '"team"').replace('"0.01"', '"0.02"')
START = "2025-07-01T00:00:00Z"


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        apply_catalog(opened, METER + PLAN + TEAM)
        yield opened


@pytest.fixture
def run(database_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        status = main(["subscriptions", *arguments, "--json", "--database-url", database_url])
        return status, json.loads(capsys.readouterr().out)

    return command


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def file(*lines: str | dict[str, object], name: str = "subscriptions.ndjson") -> str:
        path = tmp_path / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return str(path)

    return file


def row(customer: str, plan: str = "pro", **keys: object) -> dict[str, object]:
    return {"id": f"{customer}/s", "customer": customer, "plan": plan, "start": START, **keys}


def test_a_csv_file_is_imported_and_again_it_changes_nothing(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    path = write(
        "id,customer,plan,start,end",
        f'one,a,pro,{START},"2026-07-01T00:00:00+02:00"',
        f",b,team,{START},",
        name="s.csv",
    )
    assert run("import", path) == (0, {"applied": True, "dry_run": False, "added": 2, "changed": 0, "same": 0})
    assert load_subscriptions(connection) == [
        Subscription("one", "a", "pro", instant("2025-07-01"), instant("2026-06-30T22:00")),
        Subscription("b/team", "b", "team", instant("2025-07-01")),
    ]
    assert run("import", path)[1]["same"] == 2


def test_ndjson_has_overrides_and_they_survive_the_database(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    price = {"name": "api_call", "meter": "api_call", "model": "per_unit", "unit_price": "0.005"}
    path = write(
        row("a", discounts=[{"name": "early", "percent": "10"}], overrides={"prices": [price], "minimum": "5"}),
        "",
        row("b", end=None, trial={"days": 14}),
    )
    assert run("import", path)[1]["added"] == 2
    one, other = load_subscriptions(connection)
    assert [discount.name for discount in one.overrides.discounts] == ["early"]
    assert one.overrides.prices[0].name == "api_call"
    assert other.overrides.trial_days == 14
    # And they are listed as a file would have them
    (listed, _) = run()[1]["subscriptions"]
    assert listed["discounts"][0]["percent"] == "10"
    assert listed["overrides"]["minimum"] == "5"


def test_an_import_changes_plans_from_the_next_period_or_a_given_time_on(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    run("import", write(row("a"), row("b")))
    assert run("import", write(row("a", "team"), row("b")), "--effective", "2025-07-10T15:00:00Z")[1] == {
        "applied": True,
        "dry_run": False,
        "added": 0,
        "changed": 1,
        "same": 1,
    }
    (changed, same) = load_subscriptions(connection)
    assert changed.changes == (PlanChange(instant("2025-07-10T15:00"), "team"),)
    assert same.changes == ()
    # When nothing is said, it waits for the end of the running period
    run("import", write(row("b", "team")))
    (change,) = load_subscriptions(connection, "b")[0].changes
    assert change.at > datetime.now(change.at.tzinfo)
    assert (change.at.day, change.at.hour) == (1, 0)


def test_a_dry_run_counts_and_changes_nothing(connection: Connection, run: Run, write: Callable[..., str]) -> None:
    assert run("import", write(row("a")), "--dry-run")[1] == {
        "applied": False,
        "dry_run": True,
        "added": 1,
        "changed": 0,
        "same": 0,
    }
    assert load_subscriptions(connection) == []


def test_a_file_larger_than_a_chunk_is_imported_whole(
    connection: Connection, run: Run, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flusher.subscribing.CHUNK", 3)
    assert run("import", write(*(row(f"c{number}") for number in range(10))))[1]["added"] == 10
    assert len(load_subscriptions(connection)) == 10


@pytest.mark.parametrize(
    ("lines", "path", "says"),
    [
        ([row("a"), row("b", "max")], "line 2.plan", "name of a plan"),
        ([row("a"), row("b", rounding="up")], "line 2.rounding", "half_up"),
        ([row("a"), row("b", start="2025-07-01")], "line 2.start", "a time with an offset"),
        ([row("a"), row("b", end=START)], "line 2.end", "after the start"),
        ([row("a"), "", "{"], "line 3", "not JSON"),
        ([row("a"), "[]"], "line 2", "expected a JSON object"),
        ([row("a"), row("a")], "line 2.id", "line 1 already"),
        ([row("a"), row("b", discount=1)], "line 2.discount", "did you mean discounts?"),
        ([row("a", overrides={"minimum": 1.5})], "line 1.overrides.minimum", 'write it in quotes: "1.5"'),
        (
            [row("a", overrides={"prices": [{"meter": "none", "model": "per_unit", "unit_price": "1"}]})],
            "line 1.overrides.prices[0].meter",
            "name of a meter",
        ),
        (
            [
                row(
                    "a",
                    overrides={"prices": [{"meter": "api_call", "model": "percentage", "rate": "1", "free_events": 1}]},
                )
            ],
            "line 1.overrides.prices[0].meter",
            "single events",
        ),
        (
            [row("a", discounts=[{"name": "x", "percent": "5"}, {"name": "x", "percent": "5"}])],
            "line 1.discounts[1].name",
            "names an earlier",
        ),
        ([row("a"), {**row("a"), "id": "second"}], "line 2", "both price meter"),
        ([row("a"), row("u")], "line 2.customer", 'customer "owner"'),
    ],
)
def test_a_bad_file_is_refused_whole_with_the_line(
    connection: Connection, run: Run, write: Callable[..., str], lines: list[Any], path: str, says: str
) -> None:
    apply_catalog(connection, '[[customers]]\nid = "owner"\nuser_ids = ["u"]\n')
    status, found = run("import", write(*lines))
    assert status == 1
    assert not found["applied"]
    assert [problem["path"] for problem in found["problems"]] == [path]
    assert says in found["problems"][0]["message"]
    assert load_subscriptions(connection) == []


@pytest.mark.parametrize(
    ("lines", "path", "says"),
    [
        (["id,customer,plan", "a,a,pro"], "line 1", 'expected a column "start"'),
        (["customer,plan,start,colour", f"a,pro,{START},red"], "line 1", 'unknown column "colour"'),
        (["customer,plan,start,start", f"a,pro,{START},{START}"], "line 1", "there twice"),
        (["customer,plan,start", f"a,pro,{START}", f"b,pro,{START},x"], "line 3", "expected 3 cells"),
        (["customer,plan,start", '"a,pro,x'], "line 2", "not CSV"),
        (["customer,plan,start", f'"a\nb",pro,{START}', "c,pro,never"], "line 2.customer", "control characters"),
        (["customer,plan,start", f'"a\nb",pro,{START}', "c,pro,never"], "line 4.start", "a time with an offset"),
    ],
)
def test_a_bad_csv_file_is_refused_with_the_line(
    connection: Connection, run: Run, write: Callable[..., str], lines: list[str], path: str, says: str
) -> None:
    _, found = run("import", write(*lines, name="s.csv"))
    assert path in [problem["path"] for problem in found["problems"]]
    assert says in str(found["problems"])
    assert load_subscriptions(connection) == []


def test_a_second_subscription_is_found_beside_those_in_force_over_all_changes(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    # Given a plan without the meter, to which a subscription changes in August
    apply_catalog(
        connection,
        '[[plans]]\nname = "flat"\ncurrency = "usd"\n[[plans.prices]]\nname = "f"\nmodel = "fixed"\namount = 1\n',
    )
    run("import", write(row("a")))
    run("change", "a/s", "--plan", "flat", "--at", "2025-08-01")
    second = {**row("a"), "id": "second"}
    # Then a second one may price the meter from then on, and not before
    assert run("import", write({**second, "start": "2025-07-31T23:45:00Z"}))[0] == 1
    assert run("import", write({**second, "start": "2025-08-01T00:00:00Z"}))[0] == 0
    # And the first one can't change back
    status, found = run("change", "a/s", "--plan", "pro", "--at", "2025-09-01")
    assert status == 1
    assert "both price meter" in found["problems"][0]["message"]


def test_what_is_invoiced_is_not_changed_behind_unless_told(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    run("import", write(row("a"), row("b")))
    leave_invoice(connection, "a/s", "2025-08-01T00:00:00Z")
    early = ("--effective", "2025-07-15T00:00:00Z")
    # Then a file that reaches behind is refused whole
    status, found = run("import", write(row("b", "team"), row("a", "team")), *early)
    assert (status, found["problems"][0]["path"]) == (1, "line 2.plan")
    assert load_subscriptions(connection, "b")[0].changes == ()
    # And so are a change and an end
    assert run("change", "a/s", "--plan", "team", "--at", "2025-07-15")[0] == 1
    assert run("end", "a/s", "--at", "2025-07-31")[0] == 1
    # When it is told to, what closed periods are rated anew by is written down
    assert run("import", write(row("b", "team"), row("a", "team")), *early, "--into-closed")[1]["changed"] == 2
    reratings = connection.execute("SELECT subscription, since FROM reratings").fetchall()
    assert reratings == [("a/s", instant("2025-07-15"))]
    assert connection.execute("SELECT subscription FROM late_releases").fetchall() == [("a/s",)]


def test_one_subscription_is_put_on_another_plan(connection: Connection, run: Run, write: Callable[..., str]) -> None:
    run("import", write(row("a", discounts=[{"name": "early", "percent": "10"}])))
    # When it changes to another plan, what it had otherwise ends
    status, found = run("change", "a/s", "--plan", "team", "--at", "2025-07-10T15:00:00Z")
    assert (status, found["note"]) == (0, "from 2025-07-10T15:00:00Z on")
    assert found["subscription"]["changes"] == [{"at": "2025-07-10T15:00:00Z", "plan": "team"}]
    # Unless it is kept
    run("change", "a/s", "--plan", "pro", "--at", "2025-07-05")
    run("change", "a/s", "--plan", "team", "--at", "2025-07-08", "--keep-overrides", "--dry-run")
    (change,) = load_subscriptions(connection)[0].changes
    assert change == PlanChange(instant("2025-07-05"), "pro")
    run("import", write(row("b", discounts=[{"name": "early", "percent": "10"}])))
    run("change", "b/s", "--plan", "team", "--at", "2025-07-08", "--keep-overrides")
    (kept,) = load_subscriptions(connection, "b")[0].changes
    assert [type(discount) for discount in kept.overrides.discounts] == [Discount]


def test_now_is_a_second_of_the_databases_clock(connection: Connection, run: Run, write: Callable[..., str]) -> None:
    run("import", write(row("a")))
    before = connection.execute("SELECT date_trunc('second', clock_timestamp())").fetchall()[0][0]
    run("change", "a/s", "--plan", "team", "--at", "now")
    (change,) = load_subscriptions(connection)[0].changes
    assert before <= change.at <= connection.execute("SELECT clock_timestamp()").fetchall()[0][0]
    assert change.at.microsecond == 0


def test_one_subscription_is_ended(connection: Connection, run: Run, write: Callable[..., str]) -> None:
    run("import", write(row("a"), row("b")))
    assert run("end", "a/s", "--at", "2025-07-10T15:00:00Z")[1]["subscription"]["end"] == "2025-07-10T15:00:00Z"
    run("end", "b/s", "--at", "period_end")
    end = load_subscriptions(connection, "b")[0].end
    assert end is not None
    assert (end.day, end.hour) == (1, 0)
    assert end > datetime.now(end.tzinfo)
    # Then one that has ended has no running period to end with, and none ends before it starts
    for arguments in (("a/s", "--at", "period_end"), ("b/s", "--at", "2025-07-01")):
        status, found = run("end", *arguments)
        assert (status, found["applied"]) == (1, False)


def test_a_boundary_inside_a_window_of_summed_rows_is_refused(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    run("import", write(row("a")))
    connection.execute("CREATE TABLE events_p PARTITION OF events FOR VALUES FROM ('2025-07-01') TO ('2025-08-01')")
    connection.execute(
        "INSERT INTO events (shard, revision, events, received_at, user_id, source, event_type, units, event_time,"
        " fingerprint, event_key) VALUES (0, 0, 5, now(), 'a', '', 'api_call', 5, '2025-07-10T15:00:00Z', %s, %s)",
        (b"f" * 8, b"k" * 16),
    )
    status, found = run("change", "a/s", "--plan", "team", "--at", "2025-07-10T15:07:00Z")
    assert status == 1
    assert "summed up" in found["problems"][0]["message"]
    assert run("change", "a/s", "--plan", "team", "--at", "2025-07-10T15:15:00Z")[0] == 0


def test_the_list_is_paged_by_id_and_shows_the_plan_of_today(
    connection: Connection, run: Run, write: Callable[..., str]
) -> None:
    run("import", write(row("a"), row("b"), row("c")))
    run("change", "b/s", "--plan", "team", "--at", "2025-07-10")
    run("change", "c/s", "--plan", "team", "--at", "2190-01-01")
    listed = run("--limit", "2")[1]["subscriptions"]
    assert [(one["id"], one["plan"]) for one in listed] == [("a/s", "pro"), ("b/s", "team")]
    (last,) = run("--after", "b/s")[1]["subscriptions"]
    assert (last["plan"], last["changes"]) == ("pro", [{"at": "2190-01-01T00:00:00Z", "plan": "team"}])
    assert [one["id"] for one in run("--customer", "b")[1]["subscriptions"]] == ["b/s"]


def test_people_read_lists_and_outcomes(
    connection: Connection, database_url: str, write: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        capsys.readouterr()
        main(["subscriptions", *arguments, "--database-url", database_url])
        return capsys.readouterr().out

    assert "no subscriptions" in said()
    assert said("import", write(row("a"))) == "1 added, 0 changed, 0 as they were\n"
    assert said("change", "a/s", "--plan", "pro", "--at", "now") == "a/s pays by plan pro already; nothing to change\n"
    assert (
        said("change", "a/s", "--plan", "team", "--at", "2190-01-01")
        == "a/s pays by plan team from 2190-01-01T00:00:00Z on\n"
    )
    assert said("end", "a/s", "--at", "2190-02-01", "--dry-run") == "a/s would end at 2190-02-01T00:00:00Z\n"
    assert "team at 2190-01-01T00:00:00Z" in said()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("change", "none", "--plan", "pro", "--at", "now"), 1, "subscription_unknown"),
        (("end", "none", "--at", "now"), 1, "subscription_unknown"),
        (("change", "a/s", "--plan", "none", "--at", "now"), 1, "name of a plan"),
        (("change", "a/s", "--plan", "team", "--at", "period_end", "--into-closed"), 2, "reach back"),
        (("import", "none.csv"), 2, "FILE"),
    ],
)
def test_wrong_use_is_named(
    connection: Connection,
    database_url: str,
    write: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    main(["subscriptions", "import", write(row("a")), "--database-url", database_url])
    assert main(["subscriptions", *arguments, "--database-url", database_url]) == status
    assert says in capsys.readouterr().err


def test_a_change_waits_for_invoices_that_are_being_made(
    connection: Connection,
    database_url: str,
    run: Run,
    write: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("import", write(row("a")))
    monkeypatch.setattr("flusher.database._OPTIONS", "-c search_path=taximeter -c timezone=UTC -c lock_timeout=50ms")
    with connect(database_url) as invoicing:
        invoicing.execute(query("hold_catalog"))
        arguments = ["change", "a/s", "--plan", "team", "--at", "now", "--database-url", database_url]
        assert main(["subscriptions", *arguments]) == 75
    assert "or invoices are made by it" in capsys.readouterr().err
