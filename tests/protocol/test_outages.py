"""Outages are survivable for as long as the disk lasts: Redis away, stopped or full, Postgres away, a full journal."""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from flusher.database import connect, migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer
from flusher.proof import verify
from flusher.worker import Worker
from sidecar import sender
from sidecar.app import Sidecar
from sidecar.config import settings_from
from sidecar.contract.codes import TryAgainError
from sidecar.memory import MemoryWatch, Reading, memory_ratio

ACK_DEADLINE_S = "5"
AT_ONCE_S = 4.0  # less than that deadline, and much for a machine that is busy
MIB = 1 << 20


class Running:
    """A whole sidecar and a flusher's worker, over a Redis and a Postgres of their own."""

    def __init__(self, redis_url: str, database_url: str, client: aiohttp.ClientSession) -> None:
        self.redis_url = redis_url
        self.database_url = database_url
        self.client = client
        self.worker = Worker.connect(redis_url, database_url)
        self.accepted = 0
        self._now = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime())

    async def send(self, events: int = 200) -> tuple[int, dict[str, Any], str | None]:
        """Sends new events; returns status, answer and Retry-After."""
        first = self.accepted
        body = [
            {"id": f"e-{first + number}", "user_id": "cus_1", "event_type": "api_call", "timestamp": self._now}
            for number in range(events)
        ]
        async with self.client.post("/v1/events", json=body) as response:
            answer = await response.json(content_type=None)
            self.accepted += answer.get("accepted") or 0
            return response.status, answer, response.headers.get("Retry-After")

    async def metric(self, name: str) -> float:
        """Returns a metric."""
        async with self.client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return next(float(line.partition(" ")[2]) for line in lines if line.startswith(name + " "))

    async def readiness(self) -> str:
        """Returns why the sidecar is not ready, or `ready`."""
        async with self.client.get("/readyz") as response:
            answer = await response.json(content_type=None)
        return str(answer["code"] if response.status == 503 else answer["status"])

    async def cycle(self) -> None:
        """Lets the flusher cycle; what it can't reach it tries again the next time."""
        try:
            await asyncio.to_thread(self.worker.run_once)
        except TryAgainError:
            await asyncio.to_thread(self.worker._reconnect)
        await asyncio.sleep(0.02)

    async def until(self, name: str, wanted: Callable[[float], bool]) -> None:
        """Cycles until a metric is as wanted."""
        async with asyncio.timeout(60):
            while not wanted(await self.metric(name)):
                await self.cycle()

    async def is_counted_once(self) -> None:
        """Waits until everything is drained; then every accepted event counts once, live too, and it is proven."""
        await self.until("taximeter_redis_lag_batches", lambda lag: lag == 0)
        await asyncio.to_thread(self.worker.flush)
        with connect(self.database_url) as connection:
            rows = connection.execute("SELECT sum(units), sum(events)::bigint FROM usage").fetchall()
        assert rows == [(Decimal(self.accepted), self.accepted)]
        async with self.client.get("/v1/usage?user_id=cus_1") as response:
            (live,) = (await response.json())["usage"]
        assert live["events"] == self.accepted
        proof = await asyncio.to_thread(verify, self.redis_url, self.database_url, answer_timeout_s=10.0)
        assert proof.ok, proof.as_json()


@asynccontextmanager
async def running(redis_address: str, database: str, directory: Path, **flags: str) -> AsyncIterator[Running]:
    """Runs a sidecar with these settings until the end of the block."""
    path = directory / "api.sock"
    given = {"redis_url": redis_address, "journal_dir": str(directory / "journal"), "socket": str(path), "http": ""}
    program = Sidecar(settings_from(given | flags, {}))
    await program.start()
    try:
        async with aiohttp.ClientSession("http://sidecar", connector=aiohttp.UnixConnector(str(path))) as client:
            system = Running(redis_address, database, client)
            for name in ("taximeter_redis_shards_connected", "taximeter_ready"):
                await system.until(name, lambda found: found == 1)
            yield system
            system.worker.close()
    finally:
        await program.stop()


def fill(url: str, ratio: float) -> None:
    """Fills a Redis to so much of its maxmemory with what no drain takes away."""
    with redis.Redis.from_url(url) as client:
        while memory_ratio(client.info("memory")) < ratio:
            client.rpush("filler", bytes(1 << 16))


async def test_with_postgres_away_batches_wait_in_the_journal_before_redis_is_full(
    start_valkey: Callable[..., ValkeyServer], start_postgres: Callable[..., PostgresServer], server_dir: Path
) -> None:
    # given a small Redis, and Postgres killed
    valkey = start_valkey(appendonly="no", maxmemory=str(12 * MIB))
    postgres = start_postgres(durable=True)
    await asyncio.to_thread(migrate, postgres.url, shards=1)
    flags = {"redis_memory_high": "60", "ack_deadline_s": ACK_DEADLINE_S}
    async with running(valkey.url, postgres.url, server_dir, **flags) as system:
        assert (await system.send())[0] == 200
        postgres.kill()
        # when events go on coming
        while not await system.metric("taximeter_sending_paused"):
            status, _, _ = await system.send()
            assert status in {200, 202}
            assert system.accepted < 100_000
        # then from the mark on they are journaled, at once, and Redis is never full
        for _ in range(20):
            began = time.monotonic()
            assert (await system.send())[0] == 202
            assert time.monotonic() - began < AT_ONCE_S
            await system.cycle()
        assert 0.5 < await system.metric("taximeter_redis_memory_ratio") < 1
        assert await system.metric("taximeter_redis_lag_batches") >= 20
        assert await system.metric("taximeter_ready") == 1
        with redis.Redis.from_url(valkey.url) as client:
            assert "errorstat_OOM" not in client.info("errorstats")
        # and with Postgres back everything is drained, and answers are exact again
        postgres.restart()
        await system.until("taximeter_sending_paused", lambda paused: paused == 0)
        await system.is_counted_once()
        assert (await system.send(1))[0] == 200
        assert await system.metric("taximeter_sending_paused") == 0


async def test_what_only_expires_does_not_hold_batches_back(
    start_valkey: Callable[..., ValkeyServer], database_url: str, server_dir: Path
) -> None:
    # given a Redis that is above the mark with what no drain takes away
    valkey = start_valkey(appendonly="no", maxmemory=str(12 * MIB))
    fill(valkey.url, 0.65)
    async with running(valkey.url, database_url, server_dir, redis_memory_high="60") as system:
        for _ in range(5):
            # when events come, over and over
            await system.send()
            await asyncio.sleep(0.6)
            await system.until("taximeter_sending_paused", lambda paused: paused == 0)
        # then they all arrive, although Redis never was below it
        assert await system.metric("taximeter_redis_memory_ratio") > 0.6
        await system.is_counted_once()


async def test_a_redis_that_does_not_say_how_full_it_is_is_used_and_the_log_says_so_once(
    start_valkey: Callable[..., ValkeyServer], database_url: str, server_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a Redis that is over the mark, and denies INFO to the sidecar
    valkey = start_valkey(appendonly="no", maxmemory=str(12 * MIB))
    fill(valkey.url, 0.65)
    with redis.Redis.from_url(valkey.url) as client:
        may = {"keys": "*", "channels": "*", "categories": ["+@all"], "commands": ["-info"]}
        client.acl_setuser("sidecar", enabled=True, passwords=["+secret"], **may)
    url = valkey.url.replace("unix://", "unix://sidecar:secret@")
    flags = {"redis_url": url, "redis_memory_high": "60"}
    with caplog.at_level(logging.WARNING, "sidecar.directory"):
        async with running(valkey.url, database_url, server_dir, **flags) as system:
            # when it is asked again and again
            for _ in range(4):
                assert (await system.send())[0] == 200
                await asyncio.sleep(0.6)
            # then events are taken, and it is said once
            assert await system.metric("taximeter_redis_memory_ratio") == 0
            await system.is_counted_once()
    assert len([record for record in caplog.records if "+info" in record.getMessage()]) == 1


async def test_a_redis_that_takes_connections_and_never_answers_is_away_after_a_moment(
    start_valkey: Callable[..., ValkeyServer], database_url: str, server_dir: Path
) -> None:
    valkey = start_valkey(appendonly="no")
    async with running(valkey.url, database_url, server_dir, ack_deadline_s=ACK_DEADLINE_S) as system:
        assert (await system.send())[0] == 200
        # given a Redis that is stopped
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            # when events come, then the first answers wait for it
            assert (await system.send())[0] == 202
            # and those after it do not, before and after the first connection was given up
            until = time.monotonic() + sender.GRACE_S + 6
            while time.monotonic() < until:
                began = time.monotonic()
                assert (await system.send(10))[0] == 202
                assert time.monotonic() - began < AT_ONCE_S
                await asyncio.sleep(0.2)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await system.is_counted_once()


async def test_while_redis_catches_up_new_events_do_not_wait_for_the_backlog(
    start_valkey: Callable[..., ValkeyServer],
    database_url: str,
    server_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a backlog of more than is kept in memory, from a time without Redis
    monkeypatch.setattr(sender, "KEPT_EVENTS_MAX", 2_000)
    valkey = start_valkey()
    async with running(valkey.url, database_url, server_dir, ack_deadline_s="20") as system:
        valkey.kill()
        for _ in range(60):
            assert (await system.send(500))[0] == 202
        # when Redis is back and events come
        valkey.start()
        answered = 0
        while await system.metric("taximeter_redis_lag_batches") > sender.IN_FLIGHT_MAX:
            connected = await system.metric("taximeter_redis_shards_connected")
            status, _, _ = await system.send(1)
            lag = await system.metric("taximeter_redis_lag_batches")
            answered += bool(status == 202 and connected and lag > sender.IN_FLIGHT_MAX)
        # then they are answered while it still has much of it to take, and exactly once it has it
        assert answered > 3
        await system.until("taximeter_redis_lag_batches", lambda lag: lag == 0)
        assert (await system.send(1))[0] == 200
        await system.is_counted_once()


async def test_a_full_journal_refuses_and_takes_again_after_a_drain(
    start_valkey: Callable[..., ValkeyServer], database_url: str, server_dir: Path
) -> None:
    valkey = start_valkey(appendonly="no")
    small = {"journal_bytes_max": "1MiB", "journal_segment_bytes": "256KiB"}
    async with running(valkey.url, database_url, server_dir, **small) as system:
        # given a Redis that is killed, and events until the journal is full
        valkey.kill()
        while (answered := await system.send(1000))[0] == 202:
            assert await system.readiness() == "ready"
        # then it is said, with when to come again
        status, answer, retry_after = answered
        assert (status, answer["code"], retry_after) == (503, "journal_full", "5"), json.dumps(answer)
        assert await system.readiness() == "journal_full"
        assert await system.metric("taximeter_ready") == 0
        # and a smaller batch is refused like it
        assert (await system.send(1))[0] == 503
        assert await system.metric("taximeter_journal_bytes") > 0.8 * await system.metric("taximeter_journal_bytes_max")
        # and when Redis is back, and Postgres has had what is in it, it takes again
        valkey.start()
        await system.until("taximeter_ready", lambda ready: ready == 1)
        assert await system.readiness() == "ready"
        await system.until("taximeter_redis_lag_batches", lambda lag: lag == 0)
        assert (await system.send(1000))[0] == 200
        await system.is_counted_once()


def test_batches_stop_above_the_mark_go_on_well_below_it_and_never_wait_for_nothing() -> None:
    told: list[bool] = []
    watch = MemoryWatch(0.85, lambda: told.append(bool(watch.paused)))
    readings = [(0.85, True), (0.86, True), (0.8, True), (0.74, True), (0.9, True), (0.9, False), (0.9, True)]
    for ratio, undrained in readings:
        watch.heard([Reading(ratio, frozenset({0}), undrained)])
    assert told == [True, False, True, False, True]
    assert memory_ratio({"used_memory": 3, "maxmemory": 4}) == 0.75
    assert memory_ratio({"used_memory": 3, "maxmemory": 0}) == 0.0
