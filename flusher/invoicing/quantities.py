"""What meters show for customers over periods, read for rating: a few statements for hundreds of them.

Usage is kept in 15-minute windows. For sum, count and avg the whole windows of a period are summed from `usage`; where
a period begins or ends inside a window (an anniversary starts at any second), that part is folded from single events.
Everything else, and what is priced per event, is read from the values that are kept of single events, at any boundary.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, localcontext
from itertools import groupby
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row

from flusher.invoicing.cut import CutEvents, SummedWindow
from flusher.invoicing.windows import whole_windows
from flusher.pricing.line import Dimensions, dimensions_of
from flusher.pricing.measure import Measure, Need, Reading, Run
from flusher.pricing.money import EXACT, round_to
from flusher.pricing.period import Period
from flusher.sql import query

__all__ = ["SummedWindow", "read_usage"]

Connection = psycopg.Connection[TupleRow]

Wanted = Mapping[int, tuple[Sequence[str], Need]]
"""What is asked, by its number: what a meter showed for some users together."""

Found = Iterator[tuple[int, Measure | SummedWindow]]

_STEP: Final = Decimal("1e-9")
"""Quotients have 9 fractional digits, half up: as many as the units of an event."""
_MICROSECOND: Final = timedelta(microseconds=1)


def read_usage(connection: Connection, wanted: Sequence[tuple[Sequence[str], Need]]) -> list[Reading | SummedWindow]:
    """Return what a meter shows for some users together, for each that is wanted, in their order.

    Measures are by group where `per_group`; else one holds all groups. None is there where nothing was counted. A
    SummedWindow stands where a period begins or ends inside a window of which some events are known by their sum alone.
    Reads in the caller's transaction, so that what is billed can be stored with what was read (rule 16).
    """
    meters = sorted({need.meter for _, need in wanted})
    aggregations = {
        row["name"]: row["aggregation"] for row in _rows(connection, "list_aggregations", {"meters": meters})
    }
    kinds: dict[str, dict[int, tuple[Sequence[str], Need]]] = {}
    for number, (users, need) in enumerate(wanted):
        if users and need.period.start < need.period.end:
            kind = aggregations.get(need.meter, "sum") if need.free_events is None else "runs"
            kinds.setdefault(kind, {})[number] = users, need
    measures: dict[int, list[Measure]] = {}
    summed: dict[int, SummedWindow] = {}
    for kind, some in kinds.items():
        for number, found in _READERS[kind](connection, some):
            if isinstance(found, SummedWindow):
                summed[number] = found
            else:
                measures.setdefault(number, []).append(found)
    return [summed.get(number) or _reading(measures.get(number, ())) for number in range(len(wanted))]


def _reading(measures: Sequence[Measure]) -> Reading:
    ordered = sorted(measures, key=lambda measure: measure.dimensions)
    return Reading(tuple(ordered), sum(measure.events for measure in ordered))


def _read_sums(connection: Connection, wanted: Wanted) -> Found:
    """Yield sums and counts: of whole windows from usage, and of what is left of others from single events."""
    whole = {number: whole_windows(need.period) for number, (_, need) in wanted.items()}
    found: dict[tuple[int, Dimensions], tuple[Decimal, int]] = {}
    for row in _rows(connection, "read_sums", _columns(wanted, whole)):
        found[row["number"], dimensions_of(row["dimensions"])] = row["units"], row["events"]
    cut = CutEvents(connection)
    with localcontext(EXACT):
        for number, group, units, events in cut.amounts(wanted):
            before = found.get((number, group), (Decimal(0), 0))
            found[number, group] = before[0] + units, before[1] + events
    yield from cut.summed.items()
    for (number, group), (units, events) in found.items():
        yield number, Measure(units, group, events)


def _read_averages(connection: Connection, wanted: Wanted) -> Found:
    for number, found in _read_sums(connection, wanted):
        if isinstance(found, Measure):
            average = round_to(found.quantity, _STEP, divisor=found.events)
            yield number, Measure(average, found.dimensions, found.events)
        else:
            yield number, found


def _read_extremes(column: str) -> Callable[[Connection, Wanted], Found]:
    def read(connection: Connection, wanted: Wanted) -> Found:
        return _measures(_rows(connection, "read_extremes", _columns(wanted)), column)

    return read


def _read_uniques(connection: Connection, wanted: Wanted) -> Found:
    return _measures(_rows(connection, "read_uniques", _columns(wanted)), "labels")


def _read_latest(connection: Connection, wanted: Wanted) -> Found:
    return _measures(_rows(connection, "read_latest", _columns(wanted)), "units")


def _measures(rows: Iterable[DictRow], column: str) -> Found:
    for row in rows:
        yield row["number"], Measure(Decimal(row[column]), dimensions_of(row["dimensions"]), row["events"])


def _read_levels(connection: Connection, wanted: Wanted) -> Found:
    """Yield levels averaged over the period, by time."""
    for row in _rows(connection, "read_levels", _columns(wanted)):
        period = wanted[row["number"]][1].period
        with localcontext(EXACT):
            area = row["area"] * 1_000_000  # unit-seconds, to unit-microseconds
        level = round_to(area, _STEP, divisor=(period.end - period.start) // _MICROSECOND)
        yield row["number"], Measure(level, dimensions_of(row["dimensions"]), row["events"])


def _read_runs(connection: Connection, wanted: Wanted) -> Found:
    """Yield the values of single events: the free ones first, equal ones as one run."""
    rows = _rows(connection, "read_runs", _columns(wanted))
    for (number, group), of_group in groupby(rows, lambda row: (row["number"], row["dimensions"])):
        runs = tuple(Run(row["value"], row["events"]) for row in of_group)
        with localcontext(EXACT):
            quantity = sum((run.units * run.events for run in runs), Decimal(0))
        yield number, Measure(quantity, dimensions_of(group), sum(run.events for run in runs), runs)


_READERS: Final[Mapping[str, Callable[[Connection, Wanted], Found]]] = {
    "sum": _read_sums,
    "count": _read_sums,
    "avg": _read_averages,
    "max": _read_extremes("greatest"),
    "min": _read_extremes("least"),
    "unique": _read_uniques,
    "latest": _read_latest,
    "weighted_sum": _read_levels,
    "runs": _read_runs,
}


def _columns(wanted: Wanted, periods: Mapping[int, Period] | None = None) -> dict[str, list[Any]]:
    """Return what is asked as columns, a row for each user; over other periods than the needs' where they are given."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("numbers", "users", "meters", "starts", "ends", "per_group", "free")
    }
    for number, (users, need) in wanted.items():
        period = need.period if periods is None else periods[number]
        for user in users:
            values = (number, user, need.meter, period.start, period.end, need.per_group, need.free_events or 0)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return columns


def _rows(connection: Connection, name: str, values: Mapping[str, object]) -> list[DictRow]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), values).fetchall()
