"""The months of `events`: made when the first event of a month comes, without blocking anybody who inserts."""

from collections.abc import Iterable
from datetime import UTC, datetime

from psycopg import sql

from flusher.database import connect
from flusher.sql import query


def start_of_month(month: str) -> datetime:
    """Return when a month (`YYYYMM`) begins."""
    return datetime.strptime(month, "%Y%m").replace(tzinfo=UTC)


def end_of_month(start: datetime) -> datetime:
    """Return the beginning of the month after the one that begins at `start`."""
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def ensure_partitions(url: str, months: Iterable[str]) -> set[str]:
    """Make the partitions of these months (`YYYYMM`) that are missing; return all months that there are.

    On a connection of its own, so that a transaction that is under way does not hold up others on a partition.
    """
    with connect(url) as connection:
        connection.execute(query("lock_partitions"))
        there = {row[0] for row in connection.execute(query("list_partitions")).fetchall()}
        for month in sorted(set(months) - there):
            start = start_of_month(month)
            parts = {
                "table": sql.Identifier(f"events_{month}"),
                "start": sql.Literal(start.isoformat()),
                "end": sql.Literal(end_of_month(start).isoformat()),
            }
            connection.execute(sql.SQL(query("create_partition")).format(**parts))
            connection.execute(sql.SQL(query("attach_partition")).format(**parts))
            there.add(month)
        return there
