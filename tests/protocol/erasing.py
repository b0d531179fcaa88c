"""A customer that leaves traces wherever there can be some, and how to find them again: for `taximeter erase`."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import redis
from psycopg import sql
from psycopg.rows import TupleRow

from flusher.cli.main import main
from flusher.database import connect
from flusher.erasure import Eraser
from flusher.invoicing.credit_store import grant
from flusher.invoicing.credits import Grant, GrantKind
from flusher.invoicing.run import Options, make_invoices
from flusher.source import Source
from flusher.worker import Worker
from sidecar.contract.codec import decode_batch
from sidecar.contract.event import Event
from sidecar.contract.identity import event_key, shard_of
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event
from tests.protocol.voiding import a_void

SHARDS = 3
DAY_US = 86_400_000_000
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
BEGAN = TODAY - timedelta(days=20)  # Redis holds totals of days as recent as that
BEGAN_US = int(BEGAN.timestamp()) * 1_000_000
NEEDLE = "needle"
CUSTOMER = "needle-acme"
USERS = ("needle-1", "needle-2")
# On the shard of the first user: some records hold events of both.
OTHER = next(
    name for name in map("other-{}".format, range(100)) if shard_of(name, SHARDS) == shard_of(USERS[0], SHARDS)
)
CATALOG = f"""
[[meters]]
name = "calls"
event_type = "api_call"
group_by = ["region"]
[[meters]]
name = "people"
event_type = "api_call"
aggregation = "unique"
field = "properties.email"
[[plans]]
name = "pro"
currency = "usd"
[[plans.prices]]
name = "calls"
meter = "calls"
model = "per_unit"
unit_price = "0.5"
per_group = true
[[plans.prices]]
name = "regions"
meter = "calls"
model = "matrix"
prices = [{{match = {{region = "eu"}}, unit_price = "3"}}, {{match = {{}}, unit_price = "0.1"}}]
[[customers]]
id = "needle-acme"
user_ids = ["needle-1", "needle-2"]
[[subscriptions]]
customer = "needle-acme"
plan = "pro"
start = {(BEGAN - timedelta(days=5)).isoformat()}
end = {(TODAY - timedelta(days=3)).isoformat()}
[[subscriptions]]
customer = "{OTHER}"
plan = "pro"
start = {(BEGAN - timedelta(days=5)).isoformat()}
end = {(TODAY - timedelta(days=3)).isoformat()}
"""


# What is rare: a row each, where the history of the test leaves none.
MARKS = """
INSERT INTO late_releases (subscription, reason) VALUES ('needle-acme/pro', 'late');
INSERT INTO reratings (subscription, since, reason) VALUES ('needle-acme/pro', '2020-01-01', 'again');
INSERT INTO subscription_changes (subscription, at, plan) VALUES ('needle-acme/pro', '2190-01-01', 'pro');
INSERT INTO boundary_events (event_time, event_key, revision, events, user_id, event_type, units, properties)
VALUES ('2020-01-01', '1234567890123456', 1, 1, 'needle-1', 'api_call', 1, '{"email": "needle"}');
INSERT INTO discrepancies (shard, epoch, user_id, meter, dimensions, window_start, counter_units, counter_events,
                           stream_units, stream_events, resolved_at)
VALUES (0, 'e', 'needle-1', 'calls', '{"region": "needle-land"}', '2020-01-01', 1, 1, 2, 2, now());
INSERT INTO backfills (backfill, name, reason) VALUES ('12345678', 'file', 'mended');
INSERT INTO backfill_events VALUES ('12345678', '2020-01-01', '1234567890123456', 'needle-1', 'needle', 'needle');
INSERT INTO stripe_intents (invoice, step, attempt, idempotency_key, params, error)
SELECT id, 'create_invoice', 1, id, '{"customer": "needle"}', 'no such customer: needle'
FROM invoices WHERE customer = 'needle-acme' LIMIT 1;
INSERT INTO small_amounts (invoice, customer, currency, amount)
SELECT id, customer, currency, 0.1 FROM invoices WHERE customer = 'needle-acme' LIMIT 1;
INSERT INTO stripe_customers (customer, invoice, stripe_customer)
SELECT customer, id, 'cus_needle' FROM invoices WHERE customer = 'needle-acme' LIMIT 1;
INSERT INTO credit_notes (id, invoice, amount, reason, paid_as, status, decided_at, problem)
SELECT id, id, 1, 'needle', 'refund', 'issued', now(), 'no such customer: needle'
FROM invoices WHERE customer = 'needle-acme' LIMIT 1;
INSERT INTO invoice_voids (invoice, reason, rebilled_at)
SELECT id, 'needle', now() FROM invoices WHERE customer = 'needle-acme' LIMIT 1;
INSERT INTO metered_hours VALUES ('needle-acme', 'calls', '2020-01-01', 1);
INSERT INTO metered_carries VALUES ('needle-acme', 'calls', 0, 1);
INSERT INTO metered_events (identifier, customer, meter, hour, units, state, detail, event_name, stripe_customer,
                            ended_at)
VALUES ('12345678', 'needle-acme', 'calls', '2020-01-01', 1, 'sent', 'needle', 'calls', 'cus_needle', now());
UPDATE credit_grants SET voided = remaining, remaining = 0, voided_at = now(), void_reason = 'needle is leaving';
"""


def call(name: str, user_id: str, *, region: str = "eu", email: str = "x@example.org", units: int = 1) -> Event:
    properties = json.dumps({"email": email, "region": region}, separators=(",", ":"))
    made = an_event(f"{user_id}/{name}", user_id=user_id, nanos=units * NANO, properties=properties)
    return msgspec.structs.replace(made, source=user_id, key=event_key(user_id, user_id, made.id or ""))


def history() -> list[Event]:
    """Returns what the customer did, and somebody else, on the first days."""
    events = [
        call("a", USERS[0], email="needle@example.org", region="needle-land"),
        call("b", USERS[0], email="needle@example.org", units=2),
        call("c", USERS[1], email="other-needle@example.org", units=4),
        call("d", USERS[1], units=8),
        call("e", OTHER, units=16),
    ]
    return [msgspec.structs.replace(event, time_us=BEGAN_US + place * DAY_US) for place, event in enumerate(events)]


async def live_through(system: System) -> None:
    """Lets everything of the customer happen that leaves a trace, until it is billed and its sidecar is gone."""
    events = history()
    await system.send(events)
    # a conflict, a void, and one that is quarantined beside somebody else's and discarded
    await system.send([msgspec.structs.replace(events[1], fingerprint=b"12345678", units=99)])
    await system.send([a_void(events[3], "needle asked for it")])
    await system.flush()
    execute(system, f"UPDATE ledger SET event_floor = '{BEGAN - timedelta(days=1)}'")
    old = [call("old", user, email="needle" if user in USERS else "x", units=32) for user in (USERS[0], OTHER)]
    old = [msgspec.structs.replace(event, time_us=BEGAN_US - 40 * DAY_US) for event in old]
    await system.send(old)
    await system.flush()
    execute(system, "UPDATE ledger SET event_floor = '-infinity'")
    discard = ("discard", quarantined(system)[USERS[0]], "--reason", "needle asked for it")
    assert main(["quarantine", *discard, *database(system)]) == 0
    make_bills(system)
    execute(system, MARKS)
    await system.sidecars.pop("a").stop(leave=True)


def quarantined(system: System) -> dict[str, str]:
    """Returns the ids of what is in quarantine, by the user whose event it is."""
    rows = system.rows("SELECT quarantined, place, record FROM quarantine")
    return {decode_batch(bytes(record)).events[place].user_id: str(number) for number, place, record in rows}


def make_bills(system: System) -> None:
    with connect(system.database_url, autocommit=True) as connection:
        amount = Decimal(100)
        gift = Grant("needle-gift", CUSTOMER, "usd", "Gift", GrantKind.PREPAID, amount, amount, 1, BEGAN, BEGAN)
        grant(connection, [gift])
        made = make_invoices(connection, Options())
    assert {invoice.customer for invoice in made.invoices} == {CUSTOMER, OTHER}
    assert made.waiting == []


def execute(system: System, text: str) -> None:
    with connect(system.database_url) as connection:
        connection.execute(text.encode())


def database(system: System) -> tuple[str, str]:
    return "--database-url", system.database_url


async def erase(system: System, *arguments: str, customer: str = CUSTOMER, asked: bool = False) -> int:
    """Runs `taximeter erase`, with `--yes` unless somebody is `asked`."""
    target = ("--redis-url", system.redis_url, *database(system))
    sure = () if asked else ("--yes",)
    return await asyncio.to_thread(main, ["erase", "--customer", customer, *sure, *target, *arguments])


@contextmanager
def an_eraser(system: System, customer: str = CUSTOMER) -> Iterator[Eraser]:
    """Gives an eraser that waits for nobody."""
    with (
        connect(system.database_url, autocommit=True) as connection,
        closing(Worker.connect(system.redis_url, system.database_url)) as worker,
        closing(Source.connect(system.redis_url)) as source,
    ):
        yield Eraser(connection, worker, source, customer, wait_s=0.0)


def tables(connection: psycopg.Connection[TupleRow]) -> dict[str, list[str]]:
    """Returns every row of every table as text, bytes as the text that they are."""
    found = {}
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'taximeter'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    ).fetchall()
    connection.execute("SET bytea_output = 'escape'")
    for (name,) in names:
        text = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(name))
        found[name] = [row[0] for row in connection.execute(text).fetchall()]
    return found


def keys_and_values(client: "redis.Redis") -> list[bytes]:
    """Returns every key of Redis with what it holds, as bytes."""
    read: dict[bytes | str, Callable[[bytes], Any]] = {
        b"hash": client.hgetall,
        b"stream": client.xrange,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"string": client.get,
    }
    return [key + b" " + repr(read[client.type(key)](key)).encode() for key in client.scan_iter()]


def named_tables(system: System) -> set[str]:
    """Returns the tables that have a column for somebody's name, or for what somebody sent."""
    names = ("user_id", "customer", "subscription", "grant_id", "properties", "dimensions", "record", "params")
    with connect(system.database_url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE relnamespace = 'taximeter'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
            " AND attname = ANY(%s)",
            (list(names),),
        ).fetchall()
    return {name for (name,) in rows} - {"erasing"}


def traces(system: System) -> list[str]:
    """Returns the places where something of the customer's names is left."""
    with connect(system.database_url) as connection:
        found = [name for name, rows in tables(connection).items() if any(NEEDLE in row for row in rows)]
    with redis.Redis.from_url(system.redis_url) as client:
        found += [text.decode(errors="replace") for text in keys_and_values(client) if NEEDLE.encode() in text]
    return found


def money(system: System) -> list[TupleRow]:
    return system.rows(
        "SELECT invoices.id, total, line.id, line.kind, price, quantity, unit_price, amount"
        " FROM invoices JOIN invoice_line_records AS line ON invoice = invoices.id ORDER BY 1, 3"
    )


def calls(system: System) -> dict[str, Decimal]:
    """Returns the usage of each user."""
    rows = system.rows("SELECT user_id, sum(units) FROM usage WHERE meter = 'calls' GROUP BY 1")
    return dict(rows)


def counted(system: System) -> list[TupleRow]:
    """Returns usage by meter and window, whoever's it is, and how many groups and values it has."""
    usage = system.rows("SELECT meter, window_start, sum(units), sum(events) FROM usage GROUP BY 1, 2 ORDER BY 1, 2")
    return usage + system.rows(
        "SELECT (SELECT count(DISTINCT (user_id, dimensions)) FROM usage), count(DISTINCT label),"
        " count(DISTINCT user_id) FROM usage_values"
    )
