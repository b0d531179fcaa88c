"""Windows that a period cuts off, counted from single events: each under the revision of the meters that it was counted
under, with the code that counted it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import msgspec
import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.windows import partial_windows
from flusher.pricing.line import Dimensions, dimensions_of, rfc3339
from flusher.pricing.measure import Need
from flusher.pricing.period import Period
from flusher.sql import query
from sidecar.contract.meters import Revision, decode_revision
from sidecar.contract.units import from_decimal, to_decimal


@dataclass(frozen=True, slots=True)
class SummedWindow:
    """Why a period can't be rated: `code` and a sentence. `part` is what it has of a window with summed rows."""

    period: Period
    part: Period
    code: str = "boundary_summed"

    @property
    def message(self) -> str:
        """What is wrong, for the operator."""
        return (
            f"events between {rfc3339(self.part.start)} and {rfc3339(self.part.end)} can't be told from others of "
            "their quarter of an hour: requests of it are summed rows; a subscription may not begin or end inside it"
        )


class _Part(NamedTuple):
    """A part of a window, for a user and a number of what is wanted."""

    number: int
    user: str
    need: Need
    part: Period


class CutEvents:
    """Counts the parts of windows at the ends of periods. `summed` has the numbers where that can't be done."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self._connection = connection
        self._revisions: dict[int, Revision] = {}
        self.summed: dict[int, SummedWindow] = {}

    def amounts(
        self, wanted: Mapping[int, tuple[Sequence[str], Need]]
    ) -> Iterator[tuple[int, Dimensions, Decimal, int]]:
        """Yield what to add to each number: units and events, by group where the need is."""
        parts = [
            _Part(number, user, need, part)
            for number, (users, need) in wanted.items()
            for part in partial_windows(need.period)
            for user in users
        ]
        for part in self._with_usage(parts):
            yield from self._count(part)

    def _with_usage(self, parts: Sequence[_Part]) -> list[_Part]:
        """Leave out the parts of windows in which nothing was counted."""
        if not parts:
            return []
        known = {
            "users": [part.user for part in parts],
            "meters": [part.need.meter for part in parts],
            "starts": [part.part.start for part in parts],
        }
        rows = self._connection.execute(query("find_cut_windows"), known).fetchall()
        return [parts[place - 1] for (place,) in rows]

    def _count(self, part: _Part) -> Iterator[tuple[int, Dimensions, Decimal, int]]:
        known = {"user": part.user, "start": part.part.start, "end": part.part.end}
        rows = self._connection.execute(query("list_cut_events"), known).fetchall()
        self._load_revisions({row[2] for row in rows})
        for _, _, revision, event_type, units, properties, events in rows:
            nanos = from_decimal(Decimal(units))
            for share in self._revisions[revision].shares(event_type, properties or "", nanos, events):
                if share.meter != part.need.meter:
                    continue
                if events > 1:
                    self.summed[part.number] = SummedWindow(part.need.period, part.part)
                group = msgspec.json.decode(share.dimensions, type=dict[str, str]) if part.need.per_group else {}
                yield part.number, dimensions_of(group), to_decimal(share.nanos), events

    def _load_revisions(self, numbers: set[int]) -> None:
        missing = sorted(numbers - self._revisions.keys())
        if missing:
            rows = self._connection.execute(query("read_meters_of_revisions"), {"revisions": missing}).fetchall()
            self._revisions |= {number: decode_revision(number, meters) for number, meters in rows}
