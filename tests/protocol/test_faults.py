"""Replies lost, processes killed between two steps, Redis wiped or taken back in time: counted once."""

import asyncio
import shutil
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from flusher.embedded.valkey import ValkeyServer
from flusher.source import Source
from flusher.worker import Worker
from sidecar.contract import keys, scripts
from sidecar.contract.codec import Position, encode_batch
from sidecar.contract.columns import Columns
from sidecar.contract.identity import chain_start
from sidecar.contract.units import NANO
from sidecar.journal import Journal
from sidecar.link import Link
from tests.protocol.system import System, an_event, indexed
from tests.protocol.test_proof import prove

DAY_US = 86_400_000_000
TODAY_US = time.time_ns() // 1000 // DAY_US * DAY_US  # live usage holds recent days; the same in every repeat


async def live_events(system: System) -> int:
    """Returns how many events live usage shows of today."""
    live = await system.live(start_us=TODAY_US, end_us=TODAY_US + DAY_US)
    return live["api_call"] // NANO


async def total(system: System) -> Decimal:
    """Returns all units in Postgres."""
    await system.flush()
    return sum((units for units, _ in system.usage().values()), Decimal(0))


async def test_a_batch_whose_reply_is_lost_is_applied_once(system: System) -> None:
    # given a sidecar whose link loses one reply: the script ran, the answer never came
    ingest = await system.sidecar()
    sender = ingest.senders[0]
    lost = asyncio.Event()
    receive = Link.receive

    async def losing(link: Link) -> object:
        reply = await receive(link)
        if isinstance(reply, list) and reply[:1] == [b"applied"] and not lost.is_set():
            lost.set()
            raise ConnectionResetError("the reply was lost")
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "receive", losing)
        # when events are sent through it
        receipt = await system.send([an_event("e-1"), an_event("e-2")])
    # then they are known to be applied by their position, their duplicates are not, and they count once
    assert lost.is_set()
    assert not receipt.applied
    assert await total(system) == 2
    assert (await prove(system)).ok
    assert sender.streaming


async def test_the_same_batch_sent_twice_is_applied_once(system: System) -> None:
    # given the call of one batch of a registered producer
    ingest = await system.sidecar()
    manifest = ingest.journal.manifest
    assert manifest is not None
    source = Source.connect(system.redis_url)
    generation = source.state(0).generation
    assert generation is not None
    batch = Columns.of([an_event("e-1")]).batch(0, 0, 1, 1)
    step = await asyncio.to_thread(ingest.journal.shards[0].append, encode_batch(batch), 1, NANO)
    shard = scripts.Shard(manifest.ledger, 1, 0, generation)
    call = scripts.ingest(shard, manifest.producer, step, batch, ingest.revision, 60)
    assert step.before == Position(0, chain_start(manifest.ledger, manifest.producer, 0))
    # when it is made twice
    first = scripts.ingest_reply(source.run(call))
    second = scripts.ingest_reply(source.run(call))
    source.close()
    # then the second one writes nothing and tells the position
    assert first == scripts.IngestReply("applied", "")
    assert second == scripts.IngestReply("position", step.after.encode())
    await system.send([an_event("e-2")])
    assert await total(system) == 2


async def test_a_flusher_killed_after_commit_and_before_publishing_counts_once(system: System) -> None:
    # given a flusher that dies between its commit and its publishing
    await system.send([an_event("e-1"), an_event("e-2")])

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    doomed = Worker.connect(system.redis_url, system.database_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "publish", dies)
        with pytest.raises(Killed):
            await asyncio.to_thread(doomed.run_once)
    doomed.close()
    assert system.usage() == {("cus_1", "api_call"): (Decimal(2), 2)}
    # when another one goes on, with new events and old ones repeated
    await system.send([an_event("e-2"), an_event("e-3")])
    # then every event counts once and Redis shows what Postgres has
    assert await total(system) == 3
    proof = await prove(system)
    assert proof.ok, proof.as_json()


async def test_what_an_epoch_added_is_published_after_a_kill_though_its_counters_are_gone(system: System) -> None:
    # given a flusher that dies between its commit and its publishing, and counters that are evicted then
    await system.send([an_event("e-1", time_us=None), an_event("e-2", user_id="cus_2", time_us=None)])
    doomed = Worker.connect(system.redis_url, system.database_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "publish", lambda *_: None)
        await asyncio.to_thread(doomed.run_once)
    doomed.close()
    client = redis.Redis.from_url(system.redis_url)
    for name in client.scan_iter("*:counters"):
        client.delete(name)
    client.close()
    # when another one publishes what was committed
    await system.flush()
    # then live totals are what Postgres has
    proof = await prove(system)
    assert proof.ok, proof.as_json()


async def test_a_sidecar_killed_between_journal_and_redis_is_replayed_once(system: System) -> None:
    # given a sidecar that journaled events that Redis never got, and was killed
    await system.send([an_event("e-1")])
    await system.stop("a")
    journal = Journal(system.directory / "a", bytes_max=1 << 26, segment_bytes=1 << 20)
    batch = Columns.of([an_event("e-1"), an_event("e-2")]).batch(0, 0, 1, 1)
    journal.shards[0].append(encode_batch(batch), 2, 2 * NANO)
    journal.close()
    # when it starts again
    await system.sidecar()
    # then they are applied, and what was a repeat is none
    assert await total(system) == 2
    assert (await prove(system)).ok


async def test_two_flushers_at_once_count_once(system: System) -> None:
    rival = Worker.connect(system.redis_url, system.database_url)
    for number in range(20):
        await system.send([an_event(f"e-{number}"), an_event(f"e-{number // 2}")])
        await asyncio.gather(asyncio.to_thread(system.worker.run_once), asyncio.to_thread(rival.run_once))
    rival.close()
    assert await total(system) == 20
    assert (await prove(system)).ok


async def load(system: System, batches: int, first: int = 0) -> set[str]:
    """Sends batches of 20 with every fifth event a repeat; returns the ids that were acknowledged."""
    acknowledged: set[str] = set()
    for batch in range(first, first + batches):
        ids = [f"e-{max(0, batch * 20 + place - (37 if place % 5 == 0 else 0))}" for place in range(20)]
        await system.send([an_event(one, time_us=TODAY_US) for one in ids])
        acknowledged.update(ids)
        await asyncio.sleep(0.005)
    return acknowledged


async def test_redis_wiped_under_load_counts_once_and_live_usage_is_right_again(
    start_valkey: Callable[..., ValkeyServer], database_url: str, tmp_path: Path
) -> None:
    # given load on a Redis of its own, drained now and then
    server = start_valkey()
    system = System(server.url, database_url, tmp_path)
    await system.sidecar(ack_deadline_s=0.2)
    acknowledged: set[str] = set()
    client = redis.Redis.from_url(server.url)
    for round_ in range(4):
        running = asyncio.create_task(load(system, 15, round_ * 15))
        await asyncio.sleep(0.03)
        if round_ % 2:
            # when it is wiped while events come in
            client.flushall()
        else:
            await asyncio.to_thread(system.worker.run_once)
        acknowledged |= await running
    client.close()
    # then every acknowledged event counts once, live too
    assert await total(system) == len(acknowledged)
    assert await live_events(system) == len(acknowledged)
    proof = await prove(system)
    assert proof.ok, proof.as_json()
    await system.close()


async def test_redis_taken_back_to_an_older_snapshot_under_load_counts_once(
    start_valkey: Callable[..., ValkeyServer], database_url: str, tmp_path: Path
) -> None:
    # given a Redis whose append-only file was copied in the middle of the load
    server = start_valkey(appendfsync="always")
    system = System(server.url, database_url, tmp_path / "sidecars")
    await system.sidecar(ack_deadline_s=0.2)
    acknowledged = await load(system, 10)
    await asyncio.to_thread(system.worker.run_once)
    acknowledged |= await load(system, 5, 10)
    copy = tmp_path / "copy"
    shutil.copytree(server.data_dir, copy, ignore=shutil.ignore_patterns("*.sock", "*.pid"))
    acknowledged |= await load(system, 10, 15)
    await asyncio.to_thread(system.worker.run_once)
    running = asyncio.create_task(load(system, 20, 25))
    await asyncio.sleep(0.05)
    # when it is killed and comes back with that copy, while events come in
    _take_back(server, copy)
    acknowledged |= await running
    # then every acknowledged event counts once, live too
    assert await total(system) == len(acknowledged)
    assert await live_events(system) == len(acknowledged)
    proof = await prove(system)
    assert proof.ok, proof.as_json()
    await system.close()


def _take_back(server: ValkeyServer, copy: Path) -> None:
    server.kill()
    for path in server.data_dir.glob("appendonlydir/*"):
        path.unlink()
    for path in copy.glob("appendonlydir/*"):
        shutil.copy(path, server.data_dir / "appendonlydir" / path.name)
    server.start()


async def test_a_share_of_a_keyed_request_counts_once_over_a_wipe(
    start_valkey: Callable[..., ValkeyServer], database_url: str, tmp_path: Path
) -> None:
    # given a keyed request that was drained, and a Redis that forgot it
    server = start_valkey()
    system = System(server.url, database_url, tmp_path)
    events = indexed([an_event() for _ in range(10)], "k")
    await system.send(events[:6], key="k", digest=b"1" * 16)
    await system.flush()
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    # when it is repeated, with indices that were rejected the first time
    await system.send(events, key="k", digest=b"1" * 16)
    # then only those count
    assert await total(system) == 10
    proof = await prove(system)
    assert (proof.duplicates.events, proof.ok) == (6, True), proof.as_json()
    await system.close()


async def test_an_open_generation_is_kept_over_cycles(system: System) -> None:
    await system.send([an_event("e-1")])
    await system.flush()
    client = redis.Redis.from_url(system.redis_url)
    before = client.hget(keys.state(0), "generation")
    for number in range(3):
        await system.send([an_event(f"f-{number}")])
        await system.flush()
    assert client.hget(keys.state(0), "generation") == before
    client.close()


async def test_junk_in_a_shards_keys_is_replaced_and_everything_counts_once(system: System) -> None:
    # given events in Redis, and somebody who wrote into the stream and over a position
    await system.send([an_event("e-1")])
    client = redis.Redis.from_url(system.redis_url)
    generation = client.hget(keys.state(0), "generation")
    assert isinstance(generation, bytes)
    client.xadd(keys.open_epoch(0, generation.decode()).stream, {"who": "knows"})
    client.set(keys.PROOF_QUESTION, "no question")
    manifest = (await system.sidecar()).journal.manifest
    assert manifest is not None
    client.hset(keys.state(0), keys.position_field(manifest.producer), "junk")
    # when more comes in and is drained
    await system.until(lambda: client.hget(keys.state(0), "generation") != generation)
    await system.send([an_event("e-1"), an_event("e-2")])
    # then a new generation took over, and every event counts once
    assert await total(system) == 2
    client.close()
    assert (await prove(system)).ok


@pytest.mark.parametrize("whole", [False, True])
async def test_junk_among_the_counters_is_recorded_and_everything_counts_once(system: System, *, whole: bool) -> None:
    # given counters in Redis, and somebody who wrote over one of their fields, or over all of them
    await system.send([an_event("e-1"), an_event("e-2", user_id="cus_2")])
    client = redis.Redis.from_url(system.redis_url)
    generation = client.hget(keys.state(0), "generation")
    assert isinstance(generation, bytes)
    counters = keys.open_epoch(0, generation.decode()).counters
    if whole:
        client.set(counters, "junk")
    else:
        fields = client.hkeys(counters)
        assert isinstance(fields, list)
        names: list[object] = [*fields]
        client.hset(counters, next(name for name in names if isinstance(name, bytes) and name.endswith(b"n")), "junk")
        client.hset(counters, "no counter", "junk")
    client.close()
    # when it is drained
    drained = await system.flush()
    # then the difference is recorded, and the events count
    assert drained.discrepancies == (2 if whole else 1)
    assert await total(system) == 2
    assert (await prove(system)).ok


async def test_a_generation_is_replaced_when_redis_has_no_memory_left(
    start_valkey: Callable[..., ValkeyServer], database_url: str, tmp_path: Path
) -> None:
    # given a Redis that is full, with events in it and a ledger that it does not match
    server = start_valkey()
    system = System(server.url, database_url, tmp_path)
    await system.sidecar(ack_deadline_s=0.2)
    await system.send([an_event(f"e-{number}") for number in range(50)])
    client = redis.Redis.from_url(server.url)
    before = client.hget(keys.state(0), "generation")
    client.hset(keys.state(0), "token", "of another ledger")
    client.config_set("maxmemory", "1mb")
    # when the flusher cycles
    await system.until(lambda: client.hget(keys.state(0), "generation") != before)
    # then a new generation is open and, with room again, everything counts once
    client.config_set("maxmemory", "0")
    await system.send([an_event("e-1"), an_event("e-50")])
    assert await total(system) == 51
    client.close()
    await system.close()
