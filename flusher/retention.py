"""What is forgotten: floors move up, and only what is below them is dropped (rule 15).

In this order, each step in a transaction of its own:

1. a floor of events is told to the sidecars, which refuse what is at or below it;
2. it is committed once everything that they accepted before they knew is in Postgres;
3. every shard is free once: whoever judged by the older floor is done;
4. claims go in chunks; a month is counted again from its events, hour by hour, and then dropped whole.

Any step may be repeated by anyone. Whoever is killed between two leaves nothing half done: the next flusher begins at
step 3 again, and goes on with a month where it was counted to.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from flusher.clock import Clock
from flusher.ledger import Ledger
from flusher.partitions import end_of_month, start_of_month
from flusher.recount import Recount
from flusher.sql import query

INTERVAL_S: Final = 60.0  # between looks, when there was nothing to drop
BUSY_INTERVAL_S: Final = 2.0  # when there is more to drop
BUDGET_S: Final = 0.25  # what a look may take from the drain, give or take a step
CLAIMS_CHUNK: Final = 5_000
# A batch of a producer that was given up is judged by claims when it comes back within this time.
LATE: Final = timedelta(days=3)
# Sidecars poll twice a second; the rest is for clocks that differ.
HEARD: Final = timedelta(hours=1)

_log = logging.getLogger(__name__)


class Keep(NamedTuple):
    """For how many days claims are kept, and events, None for ever."""

    claims_days: int
    events_days: int | None


@dataclass(slots=True)
class Dropped:
    """What was dropped."""

    claims: int = 0
    events: int = 0


class _Limits(NamedTuple):
    """Claims that were accepted, and events that happened, at or before these may be dropped; None for none."""

    claims: datetime | None
    events: datetime | None


class Retention:
    """Drops what need not be kept, a little at a time, from a flusher's cycle. Any number may run at once."""

    def __init__(self, ledger: Ledger, shards: int, keep: Keep, clock: Clock) -> None:
        self._ledger = ledger
        self._shards = shards
        self._keep = keep
        self._clock = clock
        self._due_s = clock.monotonic_s()
        self._limits = _Limits(None, None)
        self._unsettled: set[int] = set()

    def clean(self) -> Dropped:
        """Go on if it is time; return what was dropped. Raises TryAgainError when Postgres is gone."""
        dropped = Dropped()
        started_s = self._clock.monotonic_s()
        if started_s < self._due_s:
            return dropped
        self._due_s = started_s + INTERVAL_S
        limits = self._move_floors()
        if limits != self._limits:
            self._limits, self._unsettled = limits, set(range(self._shards))
        if not self._settle():
            self._due_s = started_s + BUSY_INTERVAL_S
            return dropped
        while self._drop_claims(dropped) or self._drop_events(dropped):
            if self._clock.monotonic_s() - started_s >= BUDGET_S:
                self._due_s = started_s + BUSY_INTERVAL_S
                break
        return dropped

    def _run(self, name: str, **parameters: object) -> int:
        """Run a statement and return how many rows it touched."""
        return self._ledger.connection.execute(query(name), parameters).rowcount

    def _is_alone(self) -> bool:
        """Return whether no other flusher moves floors or drops until the transaction ends."""
        return bool(self._ledger.connection.execute(query("lock_retention")).fetchall()[0][0])

    def _move_floors(self) -> _Limits:
        """Move the floors as far as nothing needs what is below, and return what may be dropped since."""
        with self._ledger.transaction():
            if self._is_alone():
                self._run("move_claim_floor", keep=timedelta(days=self._keep.claims_days), late=LATE)
                self._run("move_event_floor", heard=HEARD)
                if self._keep.events_days is not None:
                    self._run("announce_event_floor", keep=timedelta(days=self._keep.events_days))
        with self._ledger.transaction():
            return _Limits(*self._ledger.connection.execute(query("read_drop_floors")).fetchall()[0])

    def _settle(self) -> bool:
        """Return whether every shard was free since the floors were committed.

        Whoever counts an event holds its shard's row and read the floors after it had it. So once the row was ours,
        nobody judges by the older floors any more.
        """
        for shard in sorted(self._unsettled):
            with self._ledger.transaction():
                if self._ledger.lock(shard, wait=False) is not None:
                    self._unsettled.discard(shard)
        return not self._unsettled

    def _drop_claims(self, dropped: Dropped) -> bool:
        """Drop a chunk of claims; return whether there was any."""
        if self._limits.claims is None:
            return False
        with self._ledger.transaction():
            count = self._run("drop_claims", to=self._limits.claims, limit=CLAIMS_CHUNK) if self._is_alone() else 0
        dropped.claims += count
        return count > 0

    def _drop_events(self, dropped: Dropped) -> bool:
        """Count a part of the oldest month that may go, or drop it; return whether that went well."""
        with self._ledger.transaction():
            month = self._next_month() if self._limits.events is not None and self._is_alone() else None
            if month is None:
                return False
            start = start_of_month(month)
            known = {"month": start, "end": end_of_month(start)}
            self._run("begin_counting", month=start)
            row = self._ledger.connection.execute(query("next_uncounted"), known).fetchone()
            if row is not None:
                return self._count(start, *row)
            events = self._drop_month(month)
        if events is None:
            return False
        dropped.events += events
        _log.info("dropped the events of %s", month, extra={"events": events})
        return True

    def _next_month(self) -> str | None:
        names = (row[0] for row in self._ledger.connection.execute(query("list_partitions")).fetchall())
        for month in sorted(name for name in names if name.isdigit()):
            last = end_of_month(start_of_month(month)) - timedelta(microseconds=1)
            return month if self._limits.events is not None and last <= self._limits.events else None
        return None

    def _count(self, month: datetime, shard: int, start: datetime, end: datetime) -> bool:
        """Remember a part of a month on a shard, if usage is what its events add up to; return whether it is."""
        differing = next(Recount(self._ledger.connection).differences_between(shard, start, end), None)
        if differing is not None:
            _log.error("usage is not what its events add up to, so they stay: %s; see `taximeter verify`", differing)
            return False
        self._run("keep_boundary_events", shard=shard, start=start, end=end)
        self._run("count_dropped", month=month, shard=shard, start=start, end=end)
        return True

    def _drop_month(self, month: str) -> int | None:
        """Drop a month that is counted; return how many events it had, None when it is being read now."""
        connection = self._ledger.connection
        statement = sql.SQL(query("drop_month")).format(table=sql.Identifier(f"events_{month}"))
        try:
            with connection.transaction():
                connection.execute(query("hurry_lock"))
                connection.execute(statement)
        except psycopg.errors.LockNotAvailable:
            return None
        rows = connection.execute(query("note_dropped"), {"month": start_of_month(month)}).fetchall()
        return sum(int(events) for (events,) in rows)
