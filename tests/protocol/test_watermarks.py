"""Watermarks: no event is given a time before one that went out, whatever the clock does (rule 10)."""

import asyncio
import time

from sidecar.ingest import Ingest
from tests.protocol.system import System, an_event

HOUR_US = 3_600_000_000


class Clock:
    """This machine's clock, and how wrong it is."""

    def __init__(self) -> None:
        self.off_us = 0

    def __call__(self) -> int:
        """The time that it shows."""
        return time.time_ns() // 1000 + self.off_us


async def watermark_us(ingest: Ingest) -> int:
    """Journals a watermark and returns it."""
    (lane,) = ingest.lanes
    before = lane.journal.head
    lane.want_watermark(-1.0)
    for _ in range(1000):
        if lane.journal.head != before and lane.idle:
            break
        await asyncio.sleep(0.005)
    return lane.watermark_us


async def test_a_clock_that_is_set_back_gives_no_time_before_a_watermark_that_went_out(system: System) -> None:
    # given a watermark by a clock that is an hour ahead
    clock = Clock()
    ingest = await system.sidecar(clock=clock)
    clock.off_us = HOUR_US
    sent = await watermark_us(ingest)
    assert sent > time.time_ns() // 1000 + HOUR_US // 2
    # when it is set right, then no time is given before it, also after a restart
    clock.off_us = 0
    assert ingest.now_us() >= sent
    await system.send([an_event("e-1", time_us=ingest.now_us())])
    await system.stop("a")
    again = await system.sidecar(clock=clock)
    assert again.now_us() >= sent
    assert await watermark_us(again) >= sent
