"""What machines a rate of events needs, computed from what an event was measured to cost: `make capacity`.

`costs.json` has the measured costs (`make measure-shards` writes it); the constants below are what is assumed beside
them. Prints the tables of `deploy/CAPACITY.md`; with `--write` puts them there, between its two marks.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COSTS: Final = Path(__file__).with_name("costs.json")
PAGE: Final = Path(__file__).parents[2] / "deploy" / "CAPACITY.md"
MARKS: Final = ("<!-- computed: make capacity -->\n", "<!-- end of what is computed -->\n")

RATES: Final = (10_000, 100_000, 1_000_000)
BUSY: Final = 0.6  # of a core, at most: what comes is not even, and a backlog has to be caught up
DAY_S: Final = 86_400
DEDUPE_TTL_S: Final = DAY_S
HOLD_S: Final = 3_600  # that a journal keeps what PostgreSQL has
OUTAGE_S: Final = 600  # that PostgreSQL may be away: events wait in Redis and in the journals
FILE_FACTOR: Final = 2  # an append-only file is rewritten when it has doubled

CPU: Final = {"sidecar_us": "sidecar", "redis_us": "Redis", "flusher_us": "flusher", "postgres_us": "PostgreSQL"}
BYTES: Final = {
    "redis_bytes": "Redis keeps",
    "journal_bytes": "journal",
    "postgres_bytes": "PostgreSQL keeps",
    "postgres_log_bytes": "its log",
    "redis_in_bytes": "to Redis",
    "redis_out_bytes": "from Redis",
}
TITLES: Final = {
    "ids": "An `id` for each event",
    "keys": "An `Idempotency-Key` for each request, single events in PostgreSQL",
    "sums": "An `Idempotency-Key` for each request, summed rows in PostgreSQL",
}
Costs = Mapping[str, Any]


@dataclass(frozen=True)
class Need:
    """What a rate needs: cores of each part at `BUSY`, and bytes, by what they are for."""

    sidecar_cores: int
    primaries: int
    flusher_cores: int
    postgres_cores: int
    redis_identities: float
    redis_waiting: float
    redis_file: float
    journals: float
    postgres_day: float
    postgres_log_s: float
    redis_in_s: float
    redis_out_s: float


def need(rate: float, costs: Costs, ttl_s: float = DEDUPE_TTL_S) -> Need:
    """Return what so many events a second need at these costs of one."""
    identities = rate * ttl_s * costs["redis_bytes"]
    waiting = rate * OUTAGE_S * costs["journal_bytes"]  # a record is in the stream as it is in the journal
    return Need(
        sidecar_cores=_cores(rate, costs["sidecar_us"]),
        primaries=_cores(rate, costs["redis_us"]),
        flusher_cores=_cores(rate, costs["flusher_us"]),
        postgres_cores=_cores(rate, costs["postgres_us"]),
        redis_identities=identities,
        redis_waiting=waiting,
        redis_file=FILE_FACTOR * (identities + waiting),
        journals=rate * (HOLD_S + OUTAGE_S) * costs["journal_bytes"],
        postgres_day=rate * DAY_S * costs["postgres_bytes"],
        postgres_log_s=rate * costs["postgres_log_bytes"],
        redis_in_s=rate * costs["redis_in_bytes"],
        redis_out_s=rate * costs["redis_out_bytes"],
    )


def costs_at(rate: float, rows: Sequence[Costs], identity: str) -> Costs:
    """Return the costs that hold at a rate: of one server while one is enough, else of the most shards on a cluster."""
    mine = [row for row in rows if row["identity"] == identity]
    alone = min(mine, key=lambda row: (row["servers"] != "one server", row["shards"]))
    if need(rate, alone).primaries == 1:
        return alone
    return max(mine, key=lambda row: (row["servers"] == "cluster", row["shards"]))


def page(report: Mapping[str, Any]) -> str:
    """Return what is computed of the capacity page: the costs, and what the rates need."""
    rows: list[Costs] = report["rows"]
    where = f"on {report['cores']} cores with Python {report['python']}, at a load of {report['load']}"
    how = f"{report['events']:,} events a row, in requests of {report['batch']}, {where}"
    parts = [
        f"Measured on {report['measured']}: {how}. Microseconds of a core that an event costs:\n",
        _cost_table(rows, CPU),
        "Bytes of an event:\n",
        _cost_table(rows, BYTES),
    ]
    for identity, title in TITLES.items():
        parts += [f"### {title}\n", _need_table(rows, identity)]
    parts += ["### A million a second: what is remembered of repeats\n", _ways_out(rows)]
    return "\n".join(parts)


def write_page() -> None:
    """Put the tables into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    behind = rest.partition(MARKS[1])[2]
    computed = page(json.loads(COSTS.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{MARKS[0]}\n{computed}\n{MARKS[1]}{behind}", encoding="utf-8")


def _cores(rate: float, cost_us: float) -> int:
    return max(1, math.ceil(rate * cost_us / 1e6 / BUSY))


def _cost_table(rows: Sequence[Costs], columns: Mapping[str, str]) -> str:
    figures = [
        [f"{row['servers']}, {row['identity']}", str(row["shards"]), *(f"{row[name]:.1f}" for name in columns)]
        for row in rows
    ]
    return _table(["", "shards", *columns.values()], figures)


def _need_table(rows: Sequence[Costs], identity: str) -> str:
    needs = [need(rate, costs_at(rate, rows, identity)) for rate in RATES]
    figures = [
        ["sidecars, cores in all", *(f"{one.sidecar_cores:,}" for one in needs)],
        ["Redis primaries, a core each, and at least as many shards", *(f"{one.primaries:,}" for one in needs)],
        ["flushers, cores in all", *(f"{one.flusher_cores:,}" for one in needs)],
        ["PostgreSQL, cores", *(f"{one.postgres_cores:,}" for one in needs)],
        ["Redis memory: repeats of 24 hours", *(size(one.redis_identities) for one in needs)],
        ["Redis memory: what waits while PostgreSQL is away", *(size(one.redis_waiting) for one in needs)],
        ["Redis disk: append-only files", *(size(one.redis_file) for one in needs)],
        ["journals, disk in all", *(size(one.journals) for one in needs)],
        ["PostgreSQL, disk a day", *(size(one.postgres_day) for one in needs)],
        ["PostgreSQL, log a second", *(size(one.postgres_log_s) for one in needs)],
        ["network into Redis, and to its replicas, a second", *(size(one.redis_in_s) for one in needs)],
        ["network from Redis to flushers, a second", *(size(one.redis_out_s) for one in needs)],
    ]
    return _table(["events a second", *(f"{rate:,}" for rate in RATES)], figures)


def _ways_out(rows: Sequence[Costs]) -> str:
    rate = RATES[-1]
    figures: list[list[str]] = []
    for identity, ttl_s, text in (
        ("ids", DAY_S, "`id`s, remembered for 24 hours"),
        ("ids", 3_600, "`id`s, `--dedupe-ttl-s 3600`"),
        ("ids", 600, "`id`s, `--dedupe-ttl-s 600`"),
        ("keys", DAY_S, "keys, remembered for 24 hours"),
    ):
        found = need(rate, costs_at(rate, rows, identity), ttl_s)
        memory = found.redis_identities + found.redis_waiting
        figures.append([text, size(found.redis_identities), size(memory), size(memory / found.primaries)])
    return _table(["", "repeats", "with what waits", "on each primary"], figures)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def size(count: float) -> str:
    """Return a number of bytes as a person reads it, in powers of 1000, with two digits that mean something."""
    for power, name in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            value = count / 10**power
            return f"{value:,.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{count:.0f} B"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", type=Path, default=COSTS, help="measured costs (default: those that are kept)")
    parser.add_argument("--write", action="store_true", help="put the tables of the kept costs into the page")
    args = parser.parse_args()
    if args.write:
        write_page()
    else:
        sys.stdout.write(page(json.loads(args.costs.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
