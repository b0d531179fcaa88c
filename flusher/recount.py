"""Usage counted again from single events: what decides where counters disagree (rule 9), and a part of the proof."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.partitions import end_of_month
from flusher.sql import query
from sidecar.contract.meters import Amount, Counter, Revision, canonical_dimensions, decode_revision
from sidecar.contract.units import from_decimal


class Difference(NamedTuple):
    """A counter on which usage and events disagree."""

    counter: Counter
    usage: Amount
    events: Amount


class Recount:
    """Counts again under the revisions that the events were counted under."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self._connection = connection
        rows = connection.execute(query("read_revisions"), (-1,)).fetchall()
        self._revisions: dict[int, Revision] = {number: decode_revision(number, meters) for number, meters in rows}
        meters = [meter for revision in self._revisions.values() for meter in revision.meters]
        self._detailed = sorted({meter.event_type for meter in meters if meter.reads_properties})

    def differences(self, shard: int) -> Iterator[Difference]:
        """Yield every counter of the shard on which usage and events disagree; a month at a time is in memory."""
        months = [row[0] for row in self._connection.execute(query("proof_months"), {"shard": shard}).fetchall()]
        for start in months:
            yield from self.differences_between(shard, start, end_of_month(start))

    def differences_between(self, shard: int, start: datetime, end: datetime) -> Iterator[Difference]:
        """Yield the counters that differ in the windows from `start` until `end`, which begin windows."""
        known = {"shard": shard, "start": start, "end": end, "detailed": self._detailed}
        counted = self._count(self._connection.execute(query("recount_events"), known))
        usage = {
            Counter(user, meter, window, canonical_dimensions(dimensions)): Amount(_nanos(units), events)
            for user, meter, window, dimensions, units, events in self._connection.execute(
                query("recount_usage"), known
            )
        }
        for counter in counted.keys() | usage.keys():
            there, wanted = usage.get(counter, Amount()), counted.get(counter, Amount())
            if there != wanted:
                yield Difference(counter, there, wanted)

    def _count(self, rows: Iterable[TupleRow]) -> dict[Counter, Amount]:
        counters: dict[Counter, Amount] = {}
        for user_id, event_type, revision, window, properties, units, events in rows:
            shares = self._revisions[revision].shares(event_type, properties, _nanos(units), events)
            for meter, dimensions, nanos in shares:
                counter = Counter(user_id, meter, window, dimensions)
                counters.setdefault(counter, Amount()).add(nanos, events)
        return counters

    def resolve(self) -> int:
        """Close every open discrepancy whose counter agrees with its events by now, or whose events were dropped
        since they agreed; return how many."""
        resolved = 0
        for number, user_id, meter, window, dimensions, dropped in self._connection.execute(
            query("open_discrepancies")
        ).fetchall():
            counter = Counter(user_id, meter, window, canonical_dimensions(dimensions))
            wanted = {"user": user_id, "window": window}
            counted = self._count(self._connection.execute(query("recount_one"), wanted)).get(counter, Amount())
            columns = {"users": [user_id], "meters": [meter], "dimensions": [counter.dimensions], "windows": [window]}
            row = self._connection.execute(query("read_totals"), columns).fetchone()
            there = Amount() if row is None else Amount(_nanos(row[4]), row[5])
            if dropped or there == counted:
                self._connection.execute(query("resolve_discrepancy"), (number,))
                resolved += 1
        return resolved


def _nanos(units: str) -> int:
    return from_decimal(Decimal(units))
