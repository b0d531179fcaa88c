"""A sidecar whose clock is not Redis's says so (rule 10)."""

import logging
import time
from pathlib import Path

import pytest

from sidecar.directory import SKEW_MAX_S, Directory
from sidecar.journal import Journal
from sidecar.link import RedisServer
from sidecar.memory import MemoryWatch


@pytest.mark.parametrize(("ahead_s", "alarms"), [(0.0, 0), (-3600.0, 1), (90.0, 1)])
async def test_a_clock_that_is_wrong_is_measured_and_alarmed_once(
    redis_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    ahead_s: float,
    alarms: int,
) -> None:
    # given a machine whose clock is so far ahead of Redis's
    def wall_us() -> int:
        return time.time_ns() // 1000 + int(ahead_s * 1_000_000)

    redis = RedisServer(redis_url).clients()
    journal = Journal(tmp_path, bytes_max=1 << 20, segment_bytes=1 << 16)
    directory = Directory(
        redis, journal, hold_s=0.0, wall_us=wall_us, bound=lambda: None, memory=MemoryWatch(1.0, lambda: None)
    )
    # when it compares them, twice
    with caplog.at_level(logging.ERROR, "sidecar.directory"):
        await directory._compare_clocks()
        await directory._compare_clocks()
    # then the difference is known, and a wrong one is said once
    assert abs(directory.clock_skew_s - ahead_s) < SKEW_MAX_S / 2
    assert len(caplog.records) == alarms
    await redis.aclose()
    journal.close()
