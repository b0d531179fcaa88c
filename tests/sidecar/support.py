"""Reads bodies for the tests under terms that never change."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from sidecar.contract.event import Event
from sidecar.contract.meters import Revision
from sidecar.reading import Reading, Rejection, Terms, read

NOW_US = 1_753_090_461_000_000  # 2025-07-21T09:34:21Z
TERMS = Terms(now_us=NOW_US, floor_us=0, revision=Revision(0, []), shards=4, random_bytes=lambda count: b"r" * count)
MOMENT = datetime(2025, 7, 21, tzinfo=UTC)  # an extension type in msgpack
GOOD = {"user_id": "cus_1", "event_type": "api_call", "id": "good"}

pack = msgspec.msgpack.encode


def read_json(value: object, terms: Terms = TERMS) -> Reading:
    """Returns what JSON is read as."""
    return read("application/json", json.dumps(value).encode(), terms)


def only(reading: Reading) -> Event:
    """Returns the one event, which was accepted."""
    assert reading.rejections == []
    (event,) = reading.events
    return event


def refused(reading: Reading) -> Rejection:
    """Returns why the one event was refused."""
    assert reading.events == []
    (rejection,) = reading.rejections
    return rejection


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits until the condition holds. Raises TimeoutError when it does not come to."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come to hold")
        await asyncio.sleep(0.01)
