"""What changes of the catalog do to invoices: another time zone, another plan, behind what is invoiced."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow

from flusher.catalog_store import apply_catalog
from flusher.cli.main import main
from flusher.database import connect
from tests.catalog.support import METER, PLAN

Connection = psycopg.Connection[TupleRow]
Invoiced = Callable[..., list[tuple[str, str, str, list[tuple[str, str, str]]]]]

DEAR = PLAN.replace('"pro"', '"dear"').replace('"0.01"', '"1"')
SUBSCRIPTION = """
[[subscriptions]]
customer = "a"
plan = "pro"
start = 2025-06-01T00:00:00Z
end = 2025-11-01T00:00:00Z
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A ledger whose customer uses 100 on the 10th of each month."""
    with connect(database_url, autocommit=True) as opened:
        apply_catalog(opened, METER + PLAN + DEAR + SUBSCRIPTION)
        for month in range(6, 11):
            opened.execute(
                "INSERT INTO usage (shard, user_id, meter, window_start, units, events)"
                " VALUES (0, 'a', 'api_call', make_timestamptz(2025, %s, 10, 0, 0, 0, 'UTC'), 100, 1)",
                (month,),
            )
        yield opened


@pytest.fixture
def invoiced(database_url: str, capsys: pytest.CaptureFixture[str]) -> Invoiced:
    """Make what is due, and return each period, its total, and its lines: kind, amount, start."""

    def invoice(*arguments: str) -> list[Any]:
        capsys.readouterr()
        assert main(["invoice", "--json", *arguments, "--database-url", database_url]) == 0
        return [
            (
                made["period"]["from"],
                made["period"]["to"],
                made["total"],
                [(line["kind"], line["amount"], line["period"]["from"][:10]) for line in made["lines"]],
            )
            for made in json.loads(capsys.readouterr().out)["invoices"]
        ]

    return invoice


def test_another_time_zone_moves_no_period_that_was_invoiced(connection: Connection, invoiced: Invoiced) -> None:
    # Given June and July, invoiced in UTC
    assert [made[:2] for made in invoiced("--at", "2025-08-01T00:00:00Z")] == [
        ("2025-06-01T00:00:00Z", "2025-07-01T00:00:00Z"),
        ("2025-07-01T00:00:00Z", "2025-08-01T00:00:00Z"),
    ]
    # When the customer's days are New York's
    apply_catalog(connection, '[[customers]]\nid = "a"\ntime_zone = "America/New_York"\n')
    # Then August follows July, ends there, and nothing is adjusted
    assert invoiced() == [
        ("2025-08-01T00:00:00Z", "2025-09-01T04:00:00Z", "1.00", [("usage", "1.00", "2025-08-01")]),
        ("2025-09-01T04:00:00Z", "2025-10-01T04:00:00Z", "1.00", [("usage", "1.00", "2025-09-01")]),
        ("2025-10-01T04:00:00Z", "2025-11-01T00:00:00Z", "1.00", [("usage", "1.00", "2025-10-01")]),
    ]


@pytest.mark.parametrize("how", ["subscription", "plan"])
def test_closed_periods_that_begin_at_the_moment_or_later_are_rated_anew_when_told(
    connection: Connection, invoiced: Invoiced, database_url: str, tmp_path: Any, how: str
) -> None:
    # Given June, July and August, invoiced at 1 each
    assert [made[2] for made in invoiced("--at", "2025-09-01T00:00:00Z")] == ["1.00", "1.00", "1.00"]
    # When the plan that costs a hundred times as much has been in force since the middle of June
    if how == "subscription":
        arguments = ["subscriptions", "change", "a/pro", "--plan", "dear", "--at", "2025-06-15", "--into-closed"]
    else:
        (tmp_path / "dear.toml").write_text(PLAN.replace('"0.01"', '"1"'))
        arguments = ["apply", str(tmp_path / "dear.toml"), "--effective", "2025-06-15", "--into-closed"]
    assert main([*arguments, "--database-url", database_url]) == 0
    # Then June stays, the others are adjusted once, and what follows is by the new terms
    first, second = invoiced()
    assert first[2:] == (
        "298.00",
        [
            ("usage", "100.00", "2025-09-01"),
            ("adjustment", "99.00", "2025-07-01"),
            ("adjustment", "99.00", "2025-08-01"),
        ],
    )
    assert second[2:] == ("100.00", [("usage", "100.00", "2025-10-01")])
    assert invoiced() == []
