"""The capacity page says what its figures say."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.measure.capacity import COSTS, MARKS, PAGE, RATES, costs_at, need, page, size

COST: dict[str, Any] = {
    "sidecar_us": 4.0,
    "redis_us": 5.0,
    "flusher_us": 3.0,
    "postgres_us": 6.0,
    "redis_bytes": 100.0,
    "journal_bytes": 60.0,
    "postgres_bytes": 200.0,
    "postgres_log_bytes": 300.0,
    "redis_in_bytes": 120.0,
    "redis_out_bytes": 60.0,
}


def test_what_a_rate_needs_is_the_rate_times_what_an_event_costs() -> None:
    found = need(100_000, COST)
    assert (found.sidecar_cores, found.primaries, found.flusher_cores, found.postgres_cores) == (1, 1, 1, 1)
    assert need(120_001, COST).primaries == 2
    assert found.redis_identities == 100_000 * 86_400 * 100
    assert need(100_000, COST, ttl_s=600).redis_identities == 100_000 * 600 * 100
    assert found.journals == 100_000 * (3_600 + 600) * 60
    assert found.postgres_day == 100_000 * 86_400 * 200


def test_one_server_is_reckoned_with_while_it_is_enough_and_then_the_cluster() -> None:
    rows: list[dict[str, Any]] = [
        {**COST, "servers": servers, "shards": shards, "identity": "ids"}
        for servers in ("cluster", "one server")
        for shards in (8, 1)
    ]
    places = [(row["servers"], row["shards"]) for row in (costs_at(rate, rows, "ids") for rate in RATES)]
    assert places == [("one server", 1), ("one server", 1), ("cluster", 8)]


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1_500, "1.5 kB"), (93e9, "93 GB"), (8.94e12, "8.9 TB"), (2e16, "20,000 TB")]
)
def test_bytes_are_said_with_two_digits(count: float, text: str) -> None:
    assert size(count) == text


def test_the_page_has_what_is_computed_from_the_figures_that_are_kept() -> None:
    text = PAGE.read_text(encoding="utf-8")
    computed = text.partition(MARKS[0])[2].partition(MARKS[1])[0]
    assert computed.strip() == page(json.loads(COSTS.read_text(encoding="utf-8"))).strip()


def test_the_measurement_of_shards_runs_and_tells_what_every_part_costs() -> None:
    command = [sys.executable, "-m", "tests.measure.shards", "--events", "1000", "--row", "cluster/8/keys"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (row,) = report["rows"]
    assert [row["servers"], row["shards"], row["identity"]] == ["cluster", 8, "keys"]
    assert all(row[name] > 0 for name in COST if name.endswith("_bytes") and name != "redis_bytes")
    assert all(
        row[name] >= 0 for name in COST if name.endswith("_us")
    )  # of a thousand events, in hundredths of a second
