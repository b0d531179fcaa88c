"""Puts usage, catalogs and producers into a real database, as the flusher and `apply` would have."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog_store import apply_catalog
from flusher.database import connect
from flusher.invoicing.run import Made, Options, make_invoices
from sidecar.contract.identity import event_key

ARTICLE = """
[[meters]]
name = "api_call"
event_type = "api_call"
aggregation = "sum"
field = "units"

[[plans]]
name = "pro"
currency = "usd"
interval = "month"
[[plans.prices]]
name = "calls"
meter = "api_call"
model = "graduated"
tiers = [{up_to = 1000, unit_price = "0"}, {up_to = 10000, unit_price = "0.01"}, {unit_price = "0.005"}]
"""


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, us: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, us, tzinfo=UTC)


class World:
    """A migrated database and what happened in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: psycopg.Connection[TupleRow] = connect(url, autocommit=True)

    def apply(self, catalog: str) -> None:
        apply_catalog(self.connection, catalog)

    def subscribe(self, customer: str, plan: str = "pro", start: str = "2025-07-01T00:00:00Z", end: str = "") -> None:
        until = f"end = {end}\n" if end else ""
        self.apply(f'[[subscriptions]]\ncustomer = "{customer}"\nplan = "{plan}"\nstart = {start}\n{until}')

    def use(
        self,
        user: str,
        units: str | int,
        at: datetime,
        *,
        meter: str = "api_call",
        events: int = 1,
        came: datetime | None = None,
        **dimensions: str,
    ) -> None:
        """Count usage in the window of `at`, which came at that time unless `came` says otherwise."""
        window = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
        self.connection.execute(
            "INSERT INTO usage (shard, user_id, meter, dimensions, window_start, units, events, changed_at)"
            " VALUES (0, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (user_id, meter, window_start, dimensions)"
            " DO UPDATE SET units = usage.units + excluded.units, events = usage.events + excluded.events,"
            " changed_at = excluded.changed_at",
            (user, meter, json.dumps(dimensions), window, Decimal(units), events, came or at),
        )

    def event(self, user: str, units: str | int, at: datetime, event_id: str, event_type: str = "api_call") -> None:
        """Store a single event and count it."""
        month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        name = f"events_{month:%Y%m}"
        after = (month.replace(day=28).timestamp() + 4 * 86400) // 86400 * 86400
        until = datetime.fromtimestamp(after, UTC).replace(day=1)
        self.connection.execute(
            f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF events FOR VALUES FROM ('{month}') TO ('{until}')"
        )
        self.connection.execute(
            "INSERT INTO events (event_time, event_key, fingerprint, shard, revision, received_at, user_id, source, id,"
            " event_type, units) VALUES (%s, %s, %s, 0, 0, %s, %s, '', %s, %s, %s)",
            (at, event_key(user, "", event_id), b"12345678", at, user, event_id, event_type, Decimal(units)),
        )
        self.use(user, units, at, meter=event_type)

    def producer(self, name: str, watermark: datetime) -> None:
        self.connection.execute("INSERT INTO producers (producer, host) VALUES (%s, 'host-a')", (name,))
        self.connection.execute(
            "INSERT INTO positions (producer, shard, sequence, digest, events, units, watermark)"
            " SELECT %s, shard, 0, %s, 0, 0, %s FROM shards",
            (name, b"0" * 16, watermark),
        )

    def discrepancy(self, user: str, window: datetime, meter: str = "api_call") -> None:
        self.connection.execute(
            "INSERT INTO discrepancies (shard, epoch, user_id, meter, dimensions, window_start, counter_units,"
            " counter_events, stream_units, stream_events) VALUES (0, 'e', %s, %s, '{}', %s, 2, 2, 1, 1)",
            (user, meter, window),
        )

    def resolve(self) -> None:
        self.connection.execute("UPDATE discrepancies SET resolved_at = now()")

    def run(self, at: datetime | None = None, **options: Any) -> Made:
        return make_invoices(self.connection, Options(at=at, **options))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of every table that a run writes."""
        tables = ("invoices", "invoice_line_records", "billed", "stripe_intents", "stripe_binding")
        found = {}
        for table in tables:
            row = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            found[table] = row[0] if row else 0
        return found

    def close(self) -> None:
        self.connection.close()
