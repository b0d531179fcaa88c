"""Holes: records of a producer that are known to be missing, until an operator accepts it (rules 7 and 14)."""

from datetime import datetime
from typing import NamedTuple, Self

import psycopg
from psycopg.rows import TupleRow

from flusher.sql import query
from sidecar.contract.codes import TaximeterError


class HoleId(NamedTuple):
    """What names a hole: its producer, the shard, and the number of its first record."""

    producer: str
    shard: int
    first_sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the name that `PRODUCER/SHARD/FIRST` means. Raises ValueError for another form."""
        producer, shard, first = text.rsplit("/", 2)
        return cls(producer, int(shard), int(first))

    def __str__(self) -> str:
        return f"{self.producer}/{self.shard}/{self.first_sequence}"


class Hole(NamedTuple):
    """A hole: records `id.first_sequence` to `last_sequence`, with so many events; 0 where that is not known."""

    id: HoleId
    last_sequence: int
    events: int
    found_at: datetime
    accepted_at: datetime | None
    reason: str | None


def list_holes(connection: psycopg.Connection[TupleRow]) -> list[Hole]:
    """Return every hole, those that nobody has accepted first."""
    rows = connection.execute(query("list_holes")).fetchall()
    return [Hole(HoleId(*row[:3]), *row[3:]) for row in rows]


def accept_hole(connection: psycopg.Connection[TupleRow], hole: HoleId, reason: str) -> None:
    """Record that an operator knows of the hole, so that the proof holds and invoices are finalized again.

    Raises TaximeterError: hole_unknown; already_decided, and then the first reason stays.
    """
    known = {"producer": hole.producer, "shard": hole.shard, "first": hole.first_sequence, "reason": reason}
    with connection.transaction():
        row = connection.execute(query("lock_hole"), known).fetchone()
        if row is None:
            raise TaximeterError("hole_unknown", f"no hole {hole}; `taximeter holes` lists them")
        if row[0] is not None:
            raise TaximeterError("already_decided", f"hole {hole} was accepted at {row[0]:%Y-%m-%dT%H:%M:%SZ}")
        connection.execute(query("accept_hole"), known)
