"""Backfills: files of events of the past, each remembered with what it brought, so that all of it can be undone."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.entry import Entry
from flusher.insert import Inserter
from flusher.law import Tally, tally
from flusher.ledger import Ledger
from flusher.sql import query
from sidecar.contract.codec import Batch, Position, Running
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event

BROUGHT_AT_ONCE: Final = 1_000

Connection = psycopg.Connection[TupleRow]


class Backfill(NamedTuple):
    """A backfill. Its id is the digest of its file; counts are of when that was sent last, `events` is what it brought.

    `sent_at` is None until all of it was answered, `undone_at` until every void was.
    """

    id: str
    name: str
    reason: str
    started_at: datetime
    sent: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    sent_at: datetime | None
    undo_reason: str | None
    undone_at: datetime | None
    events: int


class Brought(NamedTuple):
    """An event that a backfill brought, as a void names it."""

    time: datetime
    key: bytes
    user_id: str
    source: str
    id: str


def source_of(digest: str) -> str:
    """Return the source of the events of a file that have no id of their own."""
    return f"backfill-{digest}"


def list_backfills(connection: Connection) -> list[Backfill]:
    """Return every backfill, the newest first."""
    return [Backfill(*row) for row in connection.execute(query("list_backfills"), {"backfill": None}).fetchall()]


def find_backfill(connection: Connection, backfill: str) -> Backfill:
    """Return one backfill. Raises TaximeterError `backfill_unknown`."""
    rows = connection.execute(query("list_backfills"), {"backfill": backfill}).fetchall()
    if not rows:
        raise TaximeterError("backfill_unknown", f"no backfill is {backfill!r}; `taximeter backfill` lists them")
    return Backfill(*rows[0])


def begin(connection: Connection, backfill: str, name: str, reason: str) -> None:
    """Remember a file before it is sent. Raises TaximeterError `already_decided` for one that was undone."""
    with connection.transaction():
        connection.execute(query("begin_backfill"), {"backfill": backfill, "name": name[-256:], "reason": reason})
        _hold(connection, backfill)


def note(connection: Connection, backfill: str, events: Iterable[Event]) -> None:
    """Remember which of some events, that are going to be sent, PostgreSQL does not have: undoing voids those.

    Raises TaximeterError `already_decided` where undoing has begun.
    """
    named = [event for event in events if event.id is not None]
    columns = {
        "times_us": [event.time_us for event in named],
        "keys": [event.key for event in named],
        "users": [event.user_id for event in named],
        "sources": [event.source for event in named],
        "ids": [event.id for event in named],
    }
    with connection.transaction():
        _hold(connection, backfill)
        connection.execute(query("note_backfilled"), {"backfill": backfill, **columns})


def _hold(connection: Connection, backfill: str) -> None:
    """Keep undoing from beginning until the transaction ends. Raises TaximeterError `already_decided` where it has."""
    ((undo_reason,),) = connection.execute(query("hold_backfill"), {"backfill": backfill}).fetchall()
    if undo_reason is not None:
        raise TaximeterError(
            "already_decided",
            f"{backfill} was undone ({undo_reason}), and a voided id stays used; "
            "a file with other bytes, an empty line more for example, is another backfill",
        )


def finish(connection: Connection, backfill: str, counts: dict[str, int]) -> None:
    """Remember what became of a file's events: `sent`, `accepted`, `duplicates`, `conflicts`, `rejected`."""
    connection.execute(query("finish_backfill"), {"backfill": backfill, **counts})


def begin_undo(connection: Connection, backfill: str, reason: str) -> None:
    """Decide that a backfill is undone; from now on its file is not sent any more.

    Raises TaximeterError: backfill_unknown; already_decided where it was undone, or is being undone for another reason.
    """
    with connection.transaction():
        connection.execute(query("begin_undo"), {"backfill": backfill, "reason": reason})
        known = find_backfill(connection, backfill)
        if known.undone_at is not None:
            raise TaximeterError("already_decided", f"{backfill} was undone at {known.undone_at:%Y-%m-%dT%H:%M:%SZ}")
        if known.undo_reason != reason:
            raise TaximeterError(
                "already_decided", f"{backfill} is being undone; go on with --reason {known.undo_reason!r}"
            )


def finish_undo(connection: Connection, backfill: str) -> None:
    """Remember that every event of a backfill is voided."""
    connection.execute(query("finish_undo"), {"backfill": backfill})


def brought(connection: Connection, backfill: str) -> Iterator[list[Brought]]:
    """Yield what a backfill brought, a page at a time."""
    last = Brought(datetime(1, 1, 1, tzinfo=UTC), b"", "", "", "")
    while True:
        known = {"backfill": backfill, "time": last.time, "key": last.key, "limit": BROUGHT_AT_ONCE}
        page = [Brought(*row) for row in connection.execute(query("list_backfilled"), known).fetchall()]
        if not page:
            return
        yield page
        last = page[-1]


def count_now(ledger: Ledger, batch: Batch, into: Tally) -> None:
    """Count a batch that is in no journal as a drain would, in a transaction that the caller takes back."""
    nowhere = Position(0, b"")
    entry = Entry("", "", nowhere, nowhere, Running(0, 0), (), (), b"")
    inserter = Inserter(ledger, batch.shard, ledger.read())
    cases = inserter.insert([(entry, batch)])
    inserter.count(cases)
    tally(cases, {"": into})
