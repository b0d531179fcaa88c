"""Checks of what Redis and PostgreSQL say together: the ledger, generations, producers, backlog, clocks."""

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.doctor.finding import Finding, Level, finding
from flusher.source import ShardState, Source
from flusher.sql import query
from flusher.watch import waiting_batches
from sidecar.contract import keys

SKEW_MAX_S: Final = 1.0
STALLED_S: Final = 60
SILENT_S: Final = 60
WINDOW_S: Final = 3_600

_RUN_A_FLUSHER: Final = "run a flusher (`taximeter flusher`) on this Redis and this PostgreSQL, and look at its log"
_Connection = psycopg.Connection[TupleRow]


class Shard(NamedTuple):
    """A shard as both sides have it: its row's token and the age of its last commit, and its state in Redis."""

    number: int
    token: str
    committed_ago_s: int
    state: ShardState
    waiting: int


class Producer(NamedTuple):
    """A registered, unretired producer; `behind_s` is how far its watermark lies back, None where there is none."""

    name: str
    host: str
    behind_s: int | None


def check_ledger(source: Source, connection: _Connection) -> list[Finding]:
    """Return what is found. Raises TryAgainError `redis_unavailable`, psycopg.Error when Postgres can't be asked."""
    row = connection.execute(query("read_ledger")).fetchone()
    if row is None:
        return [finding("ledger", "identity", "Postgres holds no ledger", Level.FAIL, "run `taximeter migrate`")]
    identifier, shards = row[:2]
    told = source.ledger_fields()
    found = [_ledger(identifier, shards, told)]
    seen = list(_shards(source, connection))
    found += [judge_shard(shard) for shard in seen]
    producers = [Producer(*row) for row in connection.execute(query("doctor_producers")).fetchall()]
    found += judge_producers(producers, len(source.asking()))
    found += _open(connection)
    return found


def check_clocks(source: Source, connection: _Connection) -> list[Finding]:
    """Return how far the clocks of Redis and Postgres are from this machine's (rule 10)."""
    before = time.time()
    seconds, microseconds = source.command("TIME", at=keys.LEDGER)
    middle = time.time()
    (row,) = connection.execute(query("doctor_clock")).fetchall()
    after = time.time()
    redis_s = int(seconds) + int(microseconds) / 1_000_000 - (before + middle) / 2
    postgres_s = float(Decimal(row[0])) - (middle + after) / 2
    return [judge_clock("redis", redis_s), judge_clock("postgres", postgres_s)]


def judge_clock(part: str, ahead_s: float) -> Finding:
    """Say whether a clock goes right that is `ahead_s` seconds ahead of this machine's."""
    level = Level.OK if abs(ahead_s) <= SKEW_MAX_S else Level.WARN
    detail = f"{abs(ahead_s):.3f} s {'ahead of' if ahead_s >= 0 else 'behind'} this machine's clock"
    return finding(part, "clock", detail, level, "synchronise the clocks (NTP): periods close by them")


def judge_shard(shard: Shard) -> Finding:
    """Say whether events of a shard flow from Redis to Postgres."""
    name, state = f"shard_{shard.number}", shard.state
    if state.generation is None:
        return finding("ledger", name, "Redis has no generation of it; sidecars journal", Level.FAIL, _RUN_A_FLUSHER)
    if state.fenced:
        detail = "its generation is closed and no new one is open; sidecars journal"
        return finding("ledger", name, detail, Level.FAIL, _RUN_A_FLUSHER)
    tokens = {state.token, state.sealed.token if state.sealed else None}
    if shard.token not in tokens:
        detail = "Redis is not at what Postgres committed last; the next cycle of a flusher rebuilds it"
        return finding("ledger", name, detail, Level.WARN, _RUN_A_FLUSHER)
    waits = f"{shard.waiting} batches wait in Redis, the last commit was {shard.committed_ago_s} s ago"
    if shard.waiting and shard.committed_ago_s > STALLED_S:
        return finding("ledger", name, waits, Level.FAIL, _RUN_A_FLUSHER)
    return finding("ledger", name, f"generation {state.generation} is open; {waits}")


def judge_producers(producers: list[Producer], asking: int) -> Iterator[Finding]:
    """Yield one finding a sidecar, and one of those that wait to be registered."""
    if not producers and not asking:
        remedy = "start one (`taximeter sidecar`) on this Redis"
        yield finding("sidecars", "registered", "none is known", Level.WARN, remedy)
    if asking:
        detail = f"{asking} wait to be registered and accept nothing until then"
        yield finding("sidecars", "registered", detail, Level.FAIL, _RUN_A_FLUSHER)
    for producer in producers:
        where = producer.host or "an unknown host"
        if producer.behind_s is None:
            detail = f"on {where}: a shard has no position of it"
            yield finding("sidecars", producer.name, detail, Level.WARN, _RUN_A_FLUSHER)
            continue
        detail = f"on {where}: all of its events up to {max(0, producer.behind_s)} s ago are in PostgreSQL"
        level = Level.OK if producer.behind_s <= SILENT_S else Level.WARN
        remedy = "start it again, or let it reach Redis"
        if producer.behind_s > WINDOW_S:
            remedy += "; if it will never come back: `taximeter producers retire`. Periods close without it"
        yield finding("sidecars", producer.name, detail, level, remedy)


def _ledger(identifier: str, shards: int, told: dict[str, str]) -> Finding:
    if not told:
        return finding("ledger", "identity", "Redis has not been told of the ledger", Level.FAIL, _RUN_A_FLUSHER)
    in_redis, in_postgres = (told.get("ledger"), told.get("shards")), (identifier, str(shards))
    if in_redis != in_postgres:
        detail = f"Redis has ledger {in_redis[0]} with {in_redis[1]} shards, Postgres {identifier} with {shards}"
        remedy = "name the Redis and the PostgreSQL that belong together, each ledger needs a Redis of its own"
        return finding("ledger", "identity", detail, Level.FAIL, remedy)
    return finding("ledger", "identity", f"{identifier}, shards: {shards}")


def _shards(source: Source, connection: _Connection) -> Iterator[Shard]:
    for number, token, ago_s in connection.execute(query("doctor_shards")).fetchall():
        state = source.state(number)
        yield Shard(number, token, ago_s, state, waiting_batches(source, number, state))


def _open(connection: _Connection) -> Iterator[Finding]:
    discrepancies, quarantined, holes = connection.execute(query("doctor_open")).fetchall()[0]
    level = Level.FAIL if discrepancies else Level.OK
    remedy = "see `taximeter verify`; what is invoiced waits until usage, recounted from events, agrees"
    yield finding("ledger", "discrepancies", f"{discrepancies} open", level, remedy)
    level = Level.WARN if quarantined else Level.OK
    yield finding(
        "ledger", "quarantine", f"{quarantined} events", level, "see `taximeter quarantine`, then retry or discard"
    )
    level = Level.FAIL if holes else Level.OK
    remedy = "records of a journal are lost; see `taximeter holes`, and accept what can't be brought back"
    yield finding("ledger", "holes", f"{holes} not accepted", level, remedy)
