"""`taximeter usage`: what was counted, by customer, meter and time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flusher.cli.main import main
from flusher.database import connect
from flusher.usage import Range, usage_range
from sidecar.contract.codes import TaximeterError

Usage = Callable[..., list[dict[str, Any]]]

# user, meter, dimensions, window, units, events; cus_2 has the users u1 and u2
ROWS: tuple[tuple[str, str, dict[str, str], str, str, int], ...] = (
    ("cus_1", "calls", {}, "2025-06-30T23:45Z", "100", 1),
    ("cus_1", "calls", {}, "2025-07-01T00:00Z", "1.5", 2),
    ("cus_1", "calls", {}, "2025-07-01T00:45Z", "0.000000001", 1),
    ("cus_1", "calls", {}, "2025-07-01T01:00Z", "-3", 1),
    ("cus_1", "calls", {"region": "eu"}, "2025-07-31T23:45Z", "7", 1),
    ("cus_1", "gb", {}, "2025-07-15T12:00Z", "123456789012345678901234.5", 3),
    ("u1", "calls", {}, "2025-07-02T00:00Z", "10", 1),
    ("u2", "calls", {}, "2025-07-02T00:15Z", "20", 1),
    ("cus_1", "calls", {}, "2025-08-01T00:00Z", "200", 1),
)
JULY = ("--from", "2025-07-01", "--to", "2025-08-01")


@pytest.fixture
def counted(database_url: str) -> str:
    """A database in which usage was counted."""
    with connect(database_url) as connection:
        connection.execute("INSERT INTO customers (id, stripe_customer, time_zone) VALUES ('cus_2', 'cus_2', 'UTC')")
        connection.execute("INSERT INTO customer_users VALUES ('u1', 'cus_2', 0), ('u2', 'cus_2', 1)")
        for user, meter, dimensions, window, units, events in ROWS:
            values = (user, meter, json.dumps(dimensions), window, Decimal(units), events)
            connection.execute("INSERT INTO usage VALUES (0, %s, %s, %s, %s, %s, %s)", values)
    return database_url


@pytest.fixture
def usage(counted: str, capsys: pytest.CaptureFixture[str]) -> Usage:
    """Runs the command and returns its rows."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        assert main(["usage", "--json", "--database-url", counted, *arguments]) == 0
        rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["usage"]
        return rows

    return run


def test_usage_is_summed_by_customer_meter_and_dimensions_exactly(usage: Usage) -> None:
    month = {"from": "2025-07-01T00:00:00Z", "to": "2025-08-01T00:00:00Z"}
    calls = {"customer": "cus_1", "meter": "calls", **month}
    assert usage(*JULY) == [
        {**calls, "dimensions": {}, "units": "-1.499999999", "events": 4},
        {**calls, "dimensions": {"region": "eu"}, "units": "7", "events": 1},
        {**calls, "meter": "gb", "dimensions": {}, "units": "123456789012345678901234.5", "events": 3},
        {**calls, "customer": "cus_2", "dimensions": {}, "units": "30", "events": 2},
    ]


def test_a_customer_is_all_its_users_and_a_user_of_a_customer_is_none(usage: Usage) -> None:
    assert [(row["customer"], row["units"]) for row in usage(*JULY, "--customer", "cus_2")] == [("cus_2", "30")]
    assert usage(*JULY, "--customer", "u1") == []
    assert usage(*JULY, "--customer", "nobody") == []


def test_one_meter_can_be_asked_for(usage: Usage) -> None:
    assert [row["units"] for row in usage(*JULY, "--meter", "gb")] == ["123456789012345678901234.5"]
    assert usage(*JULY, "--meter", "none") == []


def test_hours_days_and_months_divide_the_range_and_end_where_it_does(usage: Usage) -> None:
    def parts(by: str, start: str, end: str) -> list[tuple[str, str, str]]:
        rows = usage("--customer", "cus_1", "--meter", "calls", "--by", by, "--from", start, "--to", end)
        return [(row["from"][5:16], row["to"][5:16], row["units"]) for row in rows]

    assert parts("hour", "2025-07-01T00:15:00Z", "2025-07-01T01:15:00Z") == [
        ("07-01T00:15", "07-01T01:00", "0.000000001"),
        ("07-01T01:00", "07-01T01:15", "-3"),
    ]
    assert parts("day", "2025-06-30", "2025-07-02") == [
        ("06-30T00:00", "07-01T00:00", "100"),
        ("07-01T00:00", "07-02T00:00", "-1.499999999"),
    ]
    assert [units for _, _, units in parts("month", "2025-06-01", "2025-09-01")] == ["100", "-1.499999999", "7", "200"]


def test_an_offset_is_converted(usage: Usage) -> None:
    (row,) = usage("--customer", "cus_1", "--from", "2025-07-01T02:45:00+02:00", "--to", "2025-07-01T01:00:00z")
    assert (row["from"], row["units"]) == ("2025-07-01T00:45:00Z", "0.000000001")


@pytest.mark.parametrize(
    ("start", "end", "now", "expected"),
    [
        (None, None, (2025, 2, 10, 9), ((2025, 2, 1), (2025, 3, 1))),
        (None, None, (2025, 12, 31, 23), ((2025, 12, 1), (2026, 1, 1))),
        ((2025, 1, 31), None, (2025, 2, 10), ((2025, 1, 31), (2025, 3, 1))),
        ((2025, 4, 2), None, (2025, 2, 10), ((2025, 4, 2), (2025, 5, 1))),
        (None, (2025, 1, 1), (2025, 2, 10), ((2024, 12, 1), (2025, 1, 1))),
    ],
)
def test_without_times_it_is_the_utc_month(
    start: tuple[int, int, int] | None,
    end: tuple[int, int, int] | None,
    now: tuple[int, int, int],
    expected: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    given = [None if moment is None else datetime(*moment, tzinfo=UTC) for moment in (start, end)]
    found = usage_range(given[0], given[1], datetime(*now, tzinfo=UTC))
    assert found == Range(*(datetime(*moment, tzinfo=UTC) for moment in expected))


def test_an_end_inside_a_window_is_refused_with_the_ends_that_could_be_meant() -> None:
    inside, end = datetime(2025, 7, 1, 0, 20, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC)
    with pytest.raises(TaximeterError, match=r"--from: .*T00:20:00Z; use .*T00:15:00Z or .*T00:30:00Z") as raised:
        usage_range(inside, end, end)
    assert raised.value.code == "usage_invalid"


def test_an_empty_range_is_refused() -> None:
    moment = datetime(2025, 7, 1, tzinfo=UTC)
    with pytest.raises(TaximeterError, match="--from: expected a time before --to"):
        usage_range(moment, moment, moment)


@pytest.mark.parametrize(
    "text", ["2025-07", "2025-07-01T00:00:00", "yesterday", "2025-02-30", "1751328000", "20250701"]
)
def test_a_time_that_is_none_is_wrong_use(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["usage", "--from", text])
    assert raised.value.code == 2
    assert "argument --from: expected a date or a time with an offset" in capsys.readouterr().err


def test_a_person_gets_a_table(counted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", *JULY, "--customer", "cus_1", "--by", "day", "--database-url", counted]) == 0
    shown = capsys.readouterr()
    assert "2025-07-31T00:00:00Z" in shown.out
    assert "region=eu" in shown.out
    assert "123456789012345678901234.5" in shown.out
    assert "as of the last drain" in shown.err


def test_nothing_counted_is_said(counted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--from", "2020-01-01", "--to", "2020-02-01", "--database-url", counted]) == 0
    assert capsys.readouterr().out == "nothing was counted from 2020-01-01T00:00:00Z to 2020-02-01T00:00:00Z\n"


def test_a_database_without_the_schema_is_an_error_that_says_what_to_do(
    make_database: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", "--database-url", make_database(migrated=False)]) == 1
    assert "run `taximeter migrate`" in capsys.readouterr().err
    assert main(["usage", "--database-url", f"postgresql://x@/x?host={tmp_path}"]) == 75
    assert "error: database_unavailable" in capsys.readouterr().err


def test_the_view_by_hour_agrees(counted: str) -> None:
    with connect(counted) as connection:
        rows = connection.execute(
            "SELECT customer, meter, dimensions, window_start, units, events FROM usage_by_hour "
            "WHERE meter = 'calls' AND window_start >= '2025-07-01' AND window_start < '2025-07-03' ORDER BY 4"
        ).fetchall()
    assert rows == [
        ("cus_1", "calls", {}, datetime(2025, 7, 1, 0, tzinfo=UTC), Decimal("1.500000001"), 3),
        ("cus_1", "calls", {}, datetime(2025, 7, 1, 1, tzinfo=UTC), Decimal(-3), 1),
        ("cus_2", "calls", {}, datetime(2025, 7, 2, 0, tzinfo=UTC), Decimal(30), 2),
    ]
