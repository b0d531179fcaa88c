"""Committed usage read as totals, by day and user: what a new generation is written from, and compared with."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.sql import query
from flusher.totals import day_totals_of_text
from sidecar.contract.scripts import DayTotals

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
USERS_AT_ONCE: Final = 200


def read_days(connection: psycopg.Connection[TupleRow], shard: int, since: datetime) -> Iterator[list[DayTotals]]:
    """Yield the usage of a shard from a day on, in an open transaction.

    A day is one statement, and no statement takes longer because more days are kept; a few users' are in memory.
    """
    connection.execute(query("plan_for_all_rows"))
    while (start := _next_day(connection, shard, since)) is not None:
        since = start + timedelta(days=1)
        with connection.cursor(name="day_totals") as cursor:
            cursor.execute(query("read_day_totals"), {"shard": shard, "start": start, "end": since})
            while rows := cursor.fetchmany(USERS_AT_ONCE):
                yield [day_totals_of_text(user_id, (start - EPOCH).days, text) for user_id, text in rows]


def _next_day(connection: psycopg.Connection[TupleRow], shard: int, since: datetime) -> datetime | None:
    row = connection.execute(query("next_day_with_usage"), (shard, since)).fetchone()
    start: datetime | None = row[0] if row else None
    return start
