"""Events into Postgres: copied where they are new, compared where they may be repeats."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher import rows
from flusher.database import first_line
from flusher.law import Case, Stored
from flusher.partitions import ensure_partitions
from flusher.sql import query
from sidecar.contract.codec import numbers
from sidecar.contract.codes import TaximeterError

DAY_US: Final = 86_400_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAYS_CACHED: Final = 4_096


class DataRefused(TaximeterError):
    """Postgres can't store some data, now or ever: `data_refused`."""

    def __init__(self, message: str) -> None:
        super().__init__("data_refused", message)


class Store:
    """Stores the events of one ledger, in the transactions of its connection."""

    def __init__(self, url: str, connection: psycopg.Connection[TupleRow]) -> None:
        self._url = url
        self._connection = connection
        self._months: set[str] = set()

    def insert(self, shard: int, cases: Sequence[Case]) -> dict[Stored, bytes]:
        """Store what counts of these cases; return the fingerprints of what was there, or came before it in them.

        What Redis did not take for a repeat is copied right into `events`, and its primary key says when that was
        wrong: then, and for the rest, each row is compared with what is there. Raises DataRefused for what no column
        takes, and psycopg's errors.
        """
        self._ensure_months(cases)
        certain, doubtful = zip(*map(_parted, cases), strict=True) if cases else ((), ())
        try:
            if any(certain):
                with self._connection.transaction():
                    self._copy("copy_events", rows.copied_events(shard, cases, certain))
        except psycopg.errors.UniqueViolation:
            doubtful = tuple(sorted([*some, *others]) for some, others in zip(certain, doubtful, strict=True))
        return self._compare(shard, cases, doubtful) if any(doubtful) else {}

    def _compare(self, shard: int, cases: Sequence[Case], wanted: Sequence[Sequence[int]]) -> dict[Stored, bytes]:
        stored = [Stored(number, place) for number, places in enumerate(wanted) for place in places]
        self._connection.execute(query("clear_staged"))
        self._copy("copy_staged", rows.copied_staged(shard, cases, wanted))
        there = [number for (number,) in self._connection.execute(query("insert_staged")).fetchall()]
        if not there:
            return {}
        found = self._connection.execute(query("read_fingerprints"), (there,)).fetchall()
        if len(found) != len(there):
            raise TaximeterError("invariant_broken", "an event was neither inserted nor found")
        return {stored[number]: fingerprint for number, fingerprint in found}

    def _copy(self, name: str, parts: Iterable[bytes]) -> None:
        try:
            with self._connection.cursor() as cursor, cursor.copy(query(name)) as copy:
                for part in parts:
                    copy.write(part)
        except ValueError as error:
            raise DataRefused(first_line(error)) from error

    def _ensure_months(self, cases: Sequence[Case]) -> None:
        months: set[str] = set()
        for case in cases:
            times_us = numbers("q", case.batch.times_us)
            if times_us:
                ends = {min(times_us) // DAY_US, max(times_us) // DAY_US}
                days = ends if len(ends) == 1 else {time_us // DAY_US for time_us in times_us}
                months.update(map(_month, days))
        if not months <= self._months:
            self._months = ensure_partitions(self._url, months)


def _parted(case: Case) -> tuple[list[int], list[int]]:
    """Return the places that Redis saw for the first time, and those that it took for repeats; sums by their first."""
    places = [*case.singles(), *case.sums]
    repeats = set(case.entry.duplicates)
    if not repeats:
        return places, []
    return [place for place in places if place not in repeats], [place for place in places if place in repeats]


@lru_cache(DAYS_CACHED)
def _month(day: int) -> str:
    return (EPOCH + timedelta(days=day)).strftime("%Y%m")
