"""Fills servers with what years leave behind: keys that recognise repeats in Redis, events and usage in PostgreSQL."""

import os
import secrets
from collections import deque
from datetime import datetime, timedelta
from typing import Any, Final

import redis
from psycopg import Connection

from flusher.bench.requests import USERS
from flusher.bench.servers import Stand
from flusher.database import connect
from flusher.partitions import end_of_month, ensure_partitions, start_of_month
from flusher.sql import query
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.identity import FINGERPRINT_BYTES, KEY_BYTES

EVENTS_A_DAY: Final = 1_000_000
TTL_S: Final = 86_400  # what the sidecar gives a key by default
_CHUNK_KEYS: Final = 2_000
_CHUNKS_UNDER_WAY: Final = 8
_CHUNK_EVENTS: Final = 1_000_000
_OK: Final = b"+OK\r\n"


def fill_keys(stand: Stand, count: int) -> None:
    """Set so many keys as ingest does, with random identities, of which some expire at any moment of the next day.

    Raises TaximeterError `server_failed` when Redis does not take them.
    """
    prefix = _prefix(stand)
    under_way: deque[int] = deque()
    with stand.valkey_socket.connect() as connection, connection.makefile("rb") as replies:
        for first in range(0, count, _CHUNK_KEYS):
            size = min(_CHUNK_KEYS, count - first)
            connection.sendall(_commands(prefix, size))
            under_way.append(size)
            if len(under_way) == _CHUNKS_UNDER_WAY:
                _taken(replies, under_way.popleft())
        for size in under_way:
            _taken(replies, size)


def fill_events(stand: Stand, count: int, behind: int) -> None:
    """Store so many events, and what they add up to, of the time before the last `behind` ones.

    `EVENTS_A_DAY` of them are of a day, so more of them are a longer past, over as many months.
    """
    step = timedelta(days=1) / EVENTS_A_DAY
    with connect(stand.postgres.url, autocommit=True) as connection:
        end = _one(connection, "growth_start") - behind * step
        start = end - count * step
        ensure_partitions(stand.postgres.url, _months(start, end))
        for first in range(0, count, _CHUNK_EVENTS):
            size = min(_CHUNK_EVENTS, count - first)
            part = {"start": start + first * step, "end": start + (first + size) * step}
            known = part | {"count": size, "step_s": step.total_seconds(), "users": USERS}
            connection.execute(query("growth_events"), known)
            connection.execute(query("growth_usage"), part)
        for name in ("growth_settle", "growth_settle_usage", "growth_checkpoint"):
            connection.execute(query(name))


def without_vacuum(stand: Stand) -> None:
    """Keep autovacuum out of the rounds; `fill_events` vacuums."""
    with connect(stand.postgres.url, autocommit=True) as connection:
        connection.execute(query("growth_quiet"))
        connection.execute(query("growth_reload"))


def kept(stand: Stand) -> tuple[int, int]:
    """Return how many keys Redis has, and how many bytes events take in PostgreSQL with their key."""
    with redis.Redis(unix_socket_path=stand.valkey_socket.path, socket_timeout=30) as client:
        there: Any = client.dbsize()
    with connect(stand.postgres.url, autocommit=True) as connection:
        taken: Any = connection.execute(query("growth_bytes")).fetchall()[0][0]
    return int(there), int(taken)


def _prefix(stand: Stand) -> bytes:
    with redis.Redis(unix_socket_path=stand.valkey_socket.path, socket_timeout=30) as client:
        generation: Any = client.hget(keys.state(0), "generation")
    if generation is None:
        raise TaximeterError("server_failed", "Redis has no generation to fill")
    return keys.identity_prefix(0, generation.decode())


def _commands(prefix: bytes, count: int) -> bytes:
    """Return so many times SET key value EX seconds; all of a chunk live equally long."""
    ttl = b"%d" % (1 + secrets.randbelow(TTL_S))
    head = b"*5\r\n$3\r\nSET\r\n$%d\r\n" % (len(prefix) + KEY_BYTES) + prefix
    middle = b"\r\n$%d\r\n" % FINGERPRINT_BYTES
    tail = b"\r\n$2\r\nEX\r\n$%d\r\n%b\r\n" % (len(ttl), ttl)
    width = KEY_BYTES + FINGERPRINT_BYTES
    some = os.urandom(width * count)
    return b"".join(
        [
            head + some[at : at + KEY_BYTES] + middle + some[at + KEY_BYTES : at + width] + tail
            for at in range(0, width * count, width)
        ]
    )


def _taken(replies: Any, count: int) -> None:
    answer = replies.read(len(_OK) * count)
    if answer != _OK * count:
        raise TaximeterError("server_failed", f"Redis takes no more keys: {answer[:200]!r}")


def _months(start: datetime, end: datetime) -> list[str]:
    months = [f"{start:%Y%m}"]
    while (following := end_of_month(start_of_month(months[-1]))) <= end:
        months.append(f"{following:%Y%m}")
    return months


def _one(connection: Connection[Any], name: str) -> Any:
    return connection.execute(query(name)).fetchall()[0][0]
