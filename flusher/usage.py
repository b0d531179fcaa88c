"""What was counted, read for people and programs: by customer, meter and dimensions, over a range of time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

import psycopg
from psycopg.rows import TupleRow, dict_row

from flusher.catalog_store import load_customer
from flusher.ledger import unavailable
from flusher.pricing.line import rfc3339
from flusher.sql import query
from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import WINDOW_S
from sidecar.contract.units import format_units, from_decimal

Connection = psycopg.Connection[TupleRow]

_WINDOW: Final = timedelta(seconds=WINDOW_S)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FETCHED_AT_ONCE: Final = 2_000


class Part(StrEnum):
    """What a range is divided into, by UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open range of time in UTC. `usage_range` makes one that usage can be read over."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What a customer used of a meter under some dimensions within `span`, in units and in events."""

    customer: str
    meter: str
    dimensions: dict[str, str]
    span: Range
    units: Decimal
    events: int

    def as_json(self) -> dict[str, object]:
        """Return the row in the shape of `taximeter usage`: decimals are strings, times RFC 3339 in UTC."""
        return {
            "customer": self.customer,
            "meter": self.meter,
            "dimensions": self.dimensions,
            "from": rfc3339(self.span.start),
            "to": rfc3339(self.span.end),
            "units": format_units(from_decimal(self.units)),
            "events": self.events,
        }


def usage_range(start: datetime | None, end: datetime | None, now: datetime) -> Range:
    """Return the range from `start` to `end`; one that is None is an end of the UTC month.

    With neither it is the month of `now`. Raises TaximeterError `usage_invalid` for a range that is empty, or whose
    ends are not on full quarters of an hour: usage is kept in windows of that length.
    """
    if end is None:
        end = _next_month(_month(now if start is None or start < now else start))
    if start is None:
        start = _month(end - timedelta(microseconds=1))
    for flag, instant in (("--from", start), ("--to", end)):
        past = (instant - _EPOCH) % _WINDOW
        if past:
            around = f"{rfc3339(instant - past)} or {rfc3339(instant - past + _WINDOW)}"
            raise TaximeterError(
                "usage_invalid",
                f"{flag}: expected a full quarter of an hour, as usage is kept in windows of 15 minutes, got "
                f"{rfc3339(instant)}; use {around}",
            )
    if start >= end:
        raise TaximeterError(
            "usage_invalid", f"--from: expected a time before --to ({rfc3339(end)}), got {rfc3339(start)}"
        )
    return Range(start, end)


def users_of(connection: Connection, customer: str) -> list[str]:
    """Return the users of a customer. Raises TryAgainError `database_unavailable`."""
    try:
        return list(load_customer(connection, customer).user_ids)
    except psycopg.OperationalError as error:
        raise unavailable(error) from error


def read_usage(
    connection: Connection,
    span: Range,
    *,
    users: Sequence[str] | None = None,
    meters: Sequence[str] | None = None,
    part: Part | None = None,
) -> Iterator[UsageRow]:
    """Yield what was used within `span` as of the last drain: by time, customer, meter and dimensions.

    Of some users and meters, or of all. Only rows with usage are there: events, or a level that goes on. Raises
    TryAgainError `database_unavailable`.
    """
    try:
        with connection.transaction():
            values = {"start": span.start, "end": span.end, "part": part, "meters": meters, "users": users}
            with connection.cursor(name="usage", row_factory=dict_row) as cursor:
                cursor.itersize = _FETCHED_AT_ONCE
                cursor.execute(query("report_usage"), values)
                for row in cursor:
                    part_span = Range(row["part_start"].astimezone(UTC), row["part_end"].astimezone(UTC))
                    counted = (part_span, row["units"], row["events"])
                    yield UsageRow(row["customer"], row["meter"], row["dimensions"], *counted)
    except psycopg.OperationalError as error:
        raise unavailable(error) from error


def _month(instant: datetime) -> datetime:
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(month: datetime) -> datetime:
    return _month(month + timedelta(days=31))
