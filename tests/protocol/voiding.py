"""Voids as reading would make them, and what is looked at around them."""

import asyncio
import json
import time
from contextlib import suppress

import msgspec
import pytest
import redis

from flusher.source import Source
from flusher.worker import Worker
from sidecar.contract.event import VOID_TYPE, Event, Identity
from sidecar.contract.identity import fingerprint, void_key
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event
from tests.protocol.test_proof import prove

DAY_US = 86_400_000_000
NOW_US = time.time_ns() // 1000 // DAY_US * DAY_US  # live usage holds recent days


def a_void(event: Event, reason: str = "a mistake", *, time_us: int | None = None) -> Event:
    """Returns the void of an event, as reading would make it."""
    time_us = event.time_us if time_us is None else time_us
    properties = json.dumps({"reason": reason}, separators=(",", ":"))
    return Event(
        void_key(event.key, time_us),
        fingerprint(f"{properties}|{time_us}".encode()),
        Identity.TIMED,
        0,
        time_us,
        event.user_id,
        event.source,
        event.id,
        VOID_TYPE,
        0,
        properties,
    )


def recent(
    name: str, *, user_id: str = "cus_1", event_type: str = "api_call", nanos: int = NANO, properties: str = ""
) -> Event:
    """Returns an event of today."""
    known = an_event(name, user_id=user_id, event_type=event_type, nanos=nanos, properties=properties)
    return msgspec.structs.replace(known, time_us=NOW_US)


async def settle(system: System) -> None:
    """Drains, and proves that everything is right."""
    await system.flush()
    proof = await prove(system)
    assert proof.ok, proof.as_json()


async def live_nanos(system: System, user_id: str = "cus_1") -> int:
    """Returns what live usage shows of today."""
    live = await system.live(user_id, start_us=NOW_US, end_us=NOW_US + DAY_US)
    return live.get("api_call", 0)


def forget(system: System) -> None:
    """Empties Redis."""
    client = redis.Redis.from_url(system.redis_url)
    client.flushall()
    client.close()


async def die_before_publishing(system: System) -> None:
    """Lets a flusher commit what is there, and die before it publishes any of it."""

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    doomed = Worker.connect(system.redis_url, system.database_url)
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(Source, "publish", dies)
        await asyncio.to_thread(doomed.run_once)
    doomed.close()
