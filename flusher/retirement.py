"""Producers as an operator sees them, and giving up on one that will not come back (rule 14)."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.holes import HoleId
from flusher.source import Inspection, ShardState, Source, random_token
from flusher.sql import query
from flusher.worker import Worker
from sidecar.contract.codec import Position
from sidecar.contract.codes import TaximeterError

QUIET_S: Final = 60  # a sidecar sends a watermark every few seconds: one that is silent for so long is not well


class Taken(NamedTuple):
    """How far a producer was taken on a shard; `behind_s` is its watermark's distance from Postgres's clock."""

    shard: int
    sequence: int
    events: int
    watermark: datetime
    behind_s: int


class Known(NamedTuple):
    """A registered producer. `retired_reason` is None where no operator gave up on it."""

    producer: str
    host: str
    predecessor: str | None
    registered_at: datetime
    retired_at: datetime | None
    retired_reason: str | None
    taken: list[Taken]


class Missing(NamedTuple):
    """Records of a producer up to `last` that Redis once had, and neither Redis nor Postgres has now."""

    hole: HoleId
    last: Position

    @property
    def last_sequence(self) -> int:
        """The number of the last one."""
        return self.last.sequence


def list_producers(connection: psycopg.Connection[TupleRow]) -> list[Known]:
    """Return every producer, those that are not retired first."""
    taken: dict[str, list[Taken]] = {}
    for row in connection.execute(query("list_producer_positions")).fetchall():
        taken.setdefault(row[0], []).append(Taken(*row[1:]))
    return [
        Known(producer, host, predecessor, registered_at, retired_at, reason, taken.get(producer, []))
        for producer, host, predecessor, registered_at, retired_at, reason in connection.execute(
            query("list_producers")
        ).fetchall()
    ]


def retire(redis_url: str, database_url: str, producer: str, reason: str, *, force: bool = False) -> list[Missing]:
    """Drain what Redis has, then give up on the producer; return what of it is known to be missing.

    Its journal can't be read, so its head is known as far as Redis saw it. What Redis saw and neither holds nor
    Postgres has becomes a hole. Raises TaximeterError: producer_unknown, already_decided, and producer_active unless
    `force`; TryAgainError when a server does not answer. Nothing is retired then.
    """
    with connect(database_url) as connection:
        _lock(connection, producer, force=force)
        connection.rollback()
        ledger, shards = connection.execute(query("read_ledger")).fetchall()[0][:2]
    with closing(Source.connect(redis_url)) as source:
        # A drain may replace the generation, and what Redis saw before goes with it: it is asked first.
        seen = {shard: _seen(source.state(shard), ledger, producer) for shard in range(shards)}
        with closing(Worker.connect(redis_url, database_url)) as worker:
            worker.flush()
            with connect(database_url) as connection:
                missing = _give_up(connection, source, producer, reason, seen, force=force)
            worker.run_once()  # opens generations without it
    return missing


def _give_up(
    connection: psycopg.Connection[TupleRow],
    source: Source,
    producer: str,
    reason: str,
    seen: Mapping[int, Position | None],
    *,
    force: bool,
) -> list[Missing]:
    """Retire the producer in one transaction, with holes for what is missing of it."""
    ledger = connection.execute(query("read_ledger")).fetchall()[0][0]
    connection.execute(query("wait_for_shard"))
    for shard in seen:
        connection.execute(query("lock_shard"), (shard,))  # no generation is opened with its positions now
    _lock(connection, producer, force=force)
    missing: list[Missing] = []
    for row in connection.execute(query("list_producer_positions")).fetchall():
        if row[0] == producer:
            shard, sequence = row[1], row[2]
            found = _missing(source.inspect(shard), ledger, HoleId(producer, shard, sequence), seen[shard])
            missing += [found] if found else []
    for hole, last in missing:
        # How many events the records had went with them.
        connection.execute(query("insert_hole"), (*hole, last.sequence, 0, last.digest))
    connection.execute(query("retire_producer"), {"producer": producer, "reason": reason})
    for shard in seen:
        # Rule 14: a fresh token has the next generation leave it out, so that it has to register if it returns.
        connection.execute(query("store_token"), (random_token(), shard))
    return missing


def _lock(connection: psycopg.Connection[TupleRow], producer: str, *, force: bool) -> None:
    row = connection.execute(query("lock_producer"), (producer,)).fetchone()
    if row is None:
        raise TaximeterError("producer_unknown", f"no sidecar {producer!r}; `taximeter producers` lists them")
    retired_at, heard_s = row
    if retired_at is not None:
        raise TaximeterError("already_decided", f"{producer} was retired at {retired_at:%Y-%m-%dT%H:%M:%SZ}")
    if heard_s < QUIET_S and not force:
        raise TaximeterError(
            "producer_active",
            f"{producer} was heard of {max(heard_s, 0)} s ago, so it seems to run; stop it, or give --force if it is "
            f"known to be gone ({QUIET_S} s of silence need no --force)",
        )


def _seen(state: ShardState, ledger: str, producer: str) -> Position | None:
    """Return the last position of the producer that Redis says it had; None where it says nothing to be believed."""
    if state.ledger != ledger:
        return None
    said: Iterable[Position | None] = (state.positions.get(producer), state.committed.get(producer))
    return max((position for position in said if position), default=None)


def _missing(inspection: Inspection, ledger: str, committed: HoleId, seen_before: Position | None) -> Missing | None:
    """Return what is missing above Postgres's position, `committed.first_sequence`.

    What came into the stream since the drain is not missing: it is drained although its producer is retired.
    """
    reach = committed.first_sequence
    for entry in inspection.entries:
        if entry.producer == committed.producer and entry.after.sequence == reach + 1:
            reach = entry.after.sequence
    said = (seen_before, _seen(inspection.state, ledger, committed.producer))
    last = max((position for position in said if position), default=None)
    if last is None or last.sequence <= reach:
        return None
    return Missing(committed._replace(first_sequence=reach + 1), last)
