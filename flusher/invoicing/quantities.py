"""What meters show for a customer over periods, read for rating.

Usage is kept in 15-minute windows. The whole windows of a period are summed from `usage`; where a period begins or
ends inside a window (an anniversary starts at any second), that part is folded from single events, each under the
revision of the meters that it was counted under, with the code that counted it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final

import msgspec
import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row

from flusher.invoicing.adjust import Reading, Readings
from flusher.pricing.line import Dimensions, dimensions_of, rfc3339
from flusher.pricing.money import EXACT
from flusher.pricing.period import Period
from flusher.pricing.rate import Measure
from flusher.sql import query
from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import WINDOW_S, Revision, decode_revision
from sidecar.contract.units import from_decimal, to_decimal

Connection = psycopg.Connection[TupleRow]

_WINDOW: Final = timedelta(seconds=WINDOW_S)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Sums:
    """Sums of one meter over one period, by group."""

    units: dict[Dimensions, Decimal] = field(default_factory=dict)
    events: int = 0

    def add(self, dimensions: Dimensions, units: Decimal, events: int) -> None:
        with localcontext(EXACT):
            self.units[dimensions] = self.units.get(dimensions, Decimal(0)) + units
        self.events += events

    def reading(self) -> Reading:
        measures = (Measure(units, dimensions) for dimensions, units in sorted(self.units.items()))
        return Reading(tuple(measures), self.events)


class SummedWindow(TaximeterError):
    """A period can't be rated: `boundary_summed`."""

    def __init__(self, period: Period, part: Period) -> None:
        super().__init__(
            "boundary_summed",
            f"events between {rfc3339(part.start)} and {rfc3339(part.end)} can't be told from others of their "
            "quarter of an hour: requests of it are summed rows; a subscription may not begin or end inside it",
        )
        self.period = period


def read_usage(
    connection: Connection, users: Sequence[str], meters: Iterable[str], periods: Sequence[Period]
) -> list[Readings]:
    """Return what each meter shows for the users together, for each period, in the order of the periods.

    Reads in the caller's transaction, so that what is billed can be stored with what was read (rule 16). Raises
    SummedWindow where a period begins or ends inside a window of which some events are known by their sum alone.
    """
    wanted = sorted(meters)
    sums: list[dict[str, _Sums]] = [{} for _ in periods]
    if users and wanted:
        _add_windows(connection, users, wanted, periods, sums)
        for number, period in enumerate(periods):
            for part in partial_windows(period):
                if _add_events(connection, users, wanted, part, sums[number]):
                    raise SummedWindow(period, part)
    return [{meter: found.reading() for meter, found in by_meter.items()} for by_meter in sums]


def whole_windows(period: Period) -> Period:
    """Return the part of a period that consists of whole windows; empty, at its start, where there is none."""
    start = _EPOCH - (_EPOCH - period.start) // _WINDOW * _WINDOW  # rounded up
    end = _EPOCH + (period.end - _EPOCH) // _WINDOW * _WINDOW  # rounded down
    return Period(start, end) if start < end else Period(period.start, period.start)


def partial_windows(period: Period) -> list[Period]:
    """Return what is left of a period when its whole windows are taken out: none, one or two parts."""
    whole = whole_windows(period)
    if whole.start == whole.end:
        return [period] if period.start < period.end else []
    parts = (Period(period.start, whole.start), Period(whole.end, period.end))
    return [part for part in parts if part.start < part.end]


def _add_windows(
    connection: Connection,
    users: Sequence[str],
    meters: Sequence[str],
    periods: Sequence[Period],
    sums: Sequence[dict[str, _Sums]],
) -> None:
    whole = [whole_windows(period) for period in periods]
    values = {
        "users": list(users),
        "meters": list(meters),
        "starts": [period.start for period in whole],
        "ends": [period.end for period in whole],
    }
    for row in _rows(connection, "sum_usage", values):
        found = sums[row["number"] - 1].setdefault(row["meter"], _Sums())
        found.add(dimensions_of(row["dimensions"]), row["units"], row["events"])


def _add_events(
    connection: Connection, users: Sequence[str], meters: Sequence[str], part: Period, sums: dict[str, _Sums]
) -> bool:
    """Add what single events come to; return whether there were others."""
    rows = _rows(connection, "list_events_between", {"users": list(users), "start": part.start, "end": part.end})
    revisions = _load_revisions(connection, {row["revision"] for row in rows})
    for row in rows:
        nanos = from_decimal(Decimal(row["units"]))
        shares = revisions[row["revision"]].shares(row["event_type"], row["properties"] or "", nanos, row["events"])
        for meter, dimensions, share in shares:
            if meter in meters:
                group = dimensions_of(msgspec.json.decode(dimensions, type=dict[str, str]))
                sums.setdefault(meter, _Sums()).add(group, to_decimal(share), row["events"])
    return any(row["events"] > 1 for row in rows)


def _load_revisions(connection: Connection, numbers: Iterable[int]) -> Mapping[int, Revision]:
    rows = _rows(connection, "list_revisions", {"revisions": sorted(numbers)})
    return {row["revision"]: decode_revision(row["revision"], row["meters"]) for row in rows}


def _rows(connection: Connection, name: str, values: Mapping[str, object]) -> list[DictRow]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), values).fetchall()
