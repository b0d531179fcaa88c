"""Sidecars and a flusher in one process, over real servers, driven step by step."""

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import LiteralString

from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.drain import Drained
from flusher.worker import Worker
from sidecar.contract.event import Event, Identity, compact_units
from sidecar.contract.identity import claim_key, event_key, fingerprint, indexed_key, shard_of
from sidecar.contract.units import NANO
from sidecar.disk import Disk
from sidecar.ingest import Ingest, Receipt, wall_us
from sidecar.journal import Journal
from sidecar.link import RedisServer
from sidecar.live import LiveUsage
from tests.contract.values import shares

JULY_US = 1_753_090_461_000_000  # 2025-07-21T09:34:21Z


def an_event(
    event_id: str | None = None,
    *,
    user_id: str = "cus_1",
    event_type: str = "api_call",
    nanos: int = NANO,
    time_us: int | None = JULY_US,
    properties: str = "",
) -> Event:
    """Returns an event as reading would make it: with `time_us` None its time is assigned."""
    payload = f"{event_type}|{compact_units(nanos)}|{properties}|{time_us}".encode()
    if event_id is None:
        key, identity = fingerprint(payload) + time.time_ns().to_bytes(8, "big"), Identity.MADE
    else:
        key = event_key(user_id, "", event_id)
        identity = Identity.CLAIMED if time_us is None else Identity.TIMED
    return Event(
        key,
        fingerprint(payload),
        identity,
        0,
        time.time_ns() // 1000 if time_us is None else time_us,
        user_id,
        "",
        event_id,
        event_type,
        compact_units(nanos),
        properties,
    )


def indexed(events: Sequence[Event], key: str, shards: int = 1) -> list[Event]:
    """Returns the events as they are under an Idempotency-Key, without ids."""
    return [
        Event(
            indexed_key(claim_key(key, shard_of(event.user_id, shards)), index),
            event.fingerprint,
            Identity.INDEXED,
            index,
            event.time_us,
            event.user_id,
            event.source,
            None,
            event.event_type,
            event.units,
            event.properties,
        )
        for index, event in enumerate(events)
    ]


class System:
    """Sidecars by name, each with a journal of its own, and one worker."""

    def __init__(self, redis_url: str, database_url: str, directory: Path) -> None:
        self.redis_url = redis_url
        self.database_url = database_url
        self.directory = directory
        self.worker = Worker.connect(redis_url, database_url)
        self.sidecars: dict[str, Ingest] = {}

    async def sidecar(
        self,
        name: str = "a",
        *,
        ack_deadline_s: float = 5.0,
        registered: bool = True,
        disk: Disk | None = None,
        clock: Callable[[], int] = wall_us,
    ) -> Ingest:
        """Returns the sidecar of this name, started and, if asked for, registered."""
        if name not in self.sidecars:
            journal = Journal(self.directory / name, bytes_max=1 << 26, segment_bytes=1 << 20, disk=disk)
            ingest = Ingest(
                RedisServer(self.redis_url),
                journal,
                ack_deadline_s=ack_deadline_s,
                dedupe_ttl_s=86_400,
                hold_s=0.0,
                watermark_interval_s=3600.0,
                wall_us=clock,
            )
            self.sidecars[name] = ingest
            ingest.start()
        ingest = self.sidecars[name]
        if registered:
            await self.until(lambda: ingest.unready() is None and all(s.streaming for s in ingest.senders))
        return ingest

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Cycles the worker until the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the condition did not come to hold")
            await asyncio.to_thread(self.worker.run_once)
            await asyncio.sleep(0.02)

    async def send(
        self, events: Sequence[Event], *, to: str = "a", key: str | None = None, digest: bytes | None = None
    ) -> Receipt:
        """Submits events to a sidecar."""
        ingest = await self.sidecar(to)
        return await ingest.submit(shares(events, len(ingest.lanes), key), key, digest)

    async def flush(self) -> Drained:
        """Waits until Redis has all that the journals have, then drains it."""
        await self.until(lambda: all(sender.drained for one in self.sidecars.values() for sender in one.senders))
        return await asyncio.to_thread(self.worker.flush)

    def usage(self) -> dict[tuple[str, str], tuple[Decimal, int]]:
        """Returns what Postgres has by user and meter."""
        rows = self.rows("SELECT user_id, meter, sum(units), sum(events)::bigint FROM usage GROUP BY 1, 2")
        return {(user, meter): (units, events) for user, meter, units, events in rows}

    def rows(self, text: LiteralString) -> list[TupleRow]:
        """Returns what a query finds."""
        with connect(self.database_url) as connection:
            return connection.execute(text).fetchall()

    async def live(
        self, user_id: str = "cus_1", meter: str | None = None, start_us: int = 0, end_us: int = 0
    ) -> dict[str, int]:
        """Returns live nanos by meter."""
        ingest = next(iter(self.sidecars.values()))
        reading = await LiveUsage(ingest).read(user_id, meter, start_us, end_us)
        return {row.meter: row.nanos for row in reading.rows}

    async def stop(self, name: str) -> None:
        """Stops a sidecar gracefully."""
        await self.sidecars.pop(name).stop()

    async def close(self) -> None:
        """Stops everything."""
        for name in list(self.sidecars):
            await self.stop(name)
        self.worker.close()
