"""Journals that get a new producer, and producers that are let go: nothing lost, nothing twice (rules 7 and 14)."""

import asyncio
import contextlib
import errno
import os
import shutil

import psycopg
import pytest
import redis
from psycopg import sql

from flusher.database import connect
from flusher.embedded.postgres import PostgresServer
from flusher.worker import Worker
from sidecar.contract import keys
from sidecar.contract.event import Event
from sidecar.disk import Disk
from sidecar.errors import Unavailable
from sidecar.ingest import Ingest, Receipt
from tests.contract.values import shares
from tests.protocol.system import System, an_event
from tests.protocol.test_faults import total
from tests.protocol.test_proof import prove


def producer(ingest: Ingest) -> str:
    """Returns the id under which a sidecar journals now."""
    assert ingest.journal.manifest is not None
    return ingest.journal.manifest.producer


async def test_a_journal_that_was_cloned_goes_on_under_a_new_id_and_everything_counts_once(system: System) -> None:
    # given a journal that was copied, with records that are not drained, and both copies running
    await system.send([an_event(f"e-{number}") for number in range(5)], to="a")
    await system.send([an_event(None, user_id="made") for _ in range(3)], to="a")
    first = producer(system.sidecars["a"])
    await system.stop("a")
    shutil.copytree(system.directory / "a", system.directory / "b")
    a, b = await system.sidecar("a"), await system.sidecar("b")
    assert producer(a) == producer(b) == first
    # when both take events
    for number in range(10):
        await system.send([an_event(f"a-{number}"), an_event("e-1")], to="a")
        await system.send([an_event(f"b-{number}")], to="b")
    await system.until(lambda: producer(a) != producer(b) and a.unready() is None and b.unready() is None)
    # then one of them has a new id that names the old one, and every event counts once
    assert first in {producer(a), producer(b)}
    assert await total(system) == 5 + 3 + 10 + 10
    (row,) = system.rows("SELECT producer, predecessor FROM producers WHERE predecessor IS NOT NULL")
    assert row == (({producer(a), producer(b)} - {first}).pop(), first)
    assert system.rows("SELECT count(*) FROM holes") == [(0,)]
    proof = await prove(system)
    assert proof.ok, proof.as_json()


async def submitted(ingest: Ingest, events: list[Event]) -> Receipt:
    """Submit as an app does, which is told to try again while records are being numbered."""
    for _ in range(500):
        with contextlib.suppress(Unavailable):
            return await ingest.submit(shares(events, len(ingest.lanes)))
        await asyncio.sleep(0.02)
    raise AssertionError("the journal was not numbered anew within 10 s")


async def test_it_keeps_journaling_while_nobody_registers_the_new_id(system: System) -> None:
    # given a journal restored from an older copy, and no flusher
    await system.send([an_event("e-1")])
    await system.stop("a")
    shutil.copytree(system.directory / "a", system.directory / "older")
    await system.sidecar()
    await system.send([an_event("e-2")])
    await system.stop("a")
    shutil.rmtree(system.directory / "a")
    (system.directory / "older").rename(system.directory / "a")
    ingest = await system.sidecar(ack_deadline_s=0.1, registered=False)
    old = producer(ingest)
    for _ in range(500):
        if producer(ingest) != old:
            break
        await asyncio.sleep(0.02)
    # when events come in, once its records have their new numbers
    receipt = await submitted(ingest, [an_event("e-3"), an_event("e-2")])
    # then they are on disk, and count once as soon as a flusher runs
    assert not receipt.applied
    assert await total(system) == 3
    assert (await prove(system)).ok


async def test_what_a_lying_disk_lost_is_still_counted_once_and_the_chain_goes_on(system: System) -> None:
    # given a journal whose last records were lost with the machine, after Redis had them
    for number in range(6):
        await system.send([an_event(f"e-{number}")])
    await system.stop("a")
    (segment,) = (system.directory / "a").glob("*.segment")
    os.truncate(segment, segment.stat().st_size // 2)
    # when it starts again and goes on
    await system.send([an_event("e-6")])
    # then nothing is missing: Redis had it
    assert await total(system) == 7
    assert (await prove(system)).ok


class FailingDisk(Disk):
    """A disk on which one sync fails when asked to."""

    fails = False

    def sync(self, descriptor: int) -> None:
        """Fails once, or syncs."""
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


async def test_after_a_failed_sync_it_refuses_until_it_goes_on_in_another_file_under_a_new_id(system: System) -> None:
    # given events on disk, some of them in Redis, and a disk whose next sync fails
    disk = FailingDisk()
    ingest = await system.sidecar(disk=disk)
    old = producer(ingest)
    await system.send([an_event(f"e-{number}") for number in range(3)])
    disk.fails = True
    # when more comes in, then it is refused, and so is everything until the journal is mended
    with pytest.raises(Unavailable) as caught:
        await system.send([an_event("lost")])
    assert caught.value.code == "journal_failed"
    unready = ingest.unready()
    assert unready is not None
    assert unready.code == "journal_failed"
    await system.until(lambda: ingest.unready() is None)
    # then it goes on under a new id, and only what was acknowledged counts
    await system.send([an_event("e-3"), an_event("e-1")])
    assert producer(ingest) != old
    assert await total(system) == 4
    assert (await prove(system)).ok


async def test_a_predecessor_is_let_go_when_it_was_silent_for_long(system: System) -> None:
    # given a sidecar that goes on under a new id
    disk = FailingDisk()
    ingest = await system.sidecar(disk=disk)
    old = producer(ingest)
    disk.fails = True
    with pytest.raises(Unavailable):
        await system.send([an_event("lost")])
    await system.until(lambda: ingest.unready() is None and all(sender.streaming for sender in ingest.senders))
    await system.send([an_event("e-1")])
    await system.flush()
    assert system.rows("SELECT count(*) FROM producers WHERE retired_at IS NULL") == [(2,)]
    # when nothing is heard of the old one for longer than the window
    with connect(system.database_url) as connection:
        connection.execute("UPDATE producers SET registered_at = now() - interval '2 hours'")
        connection.execute("UPDATE positions SET watermark = now() - interval '2 hours' WHERE producer = %s", (old,))
    await asyncio.to_thread(system.worker.run_once)
    # then no period waits for it, and everything goes on in the same generation
    assert system.rows("SELECT producer FROM producers WHERE retired_at IS NOT NULL") == [(old,)]
    await system.send([an_event("e-2")])
    assert await total(system) == 2
    assert (await prove(system)).ok


async def test_a_sidecar_that_stops_with_everything_in_postgres_is_let_go_and_registers_anew(system: System) -> None:
    # given a sidecar whose events are all in Postgres
    ingest = await system.sidecar()
    name = producer(ingest)
    await system.send([an_event("e-1")])
    await system.flush()
    client = redis.Redis.from_url(system.redis_url, decode_responses=True)
    generation = client.hget(keys.state(0), "generation")
    # when it stops
    await system.sidecars.pop("a").stop(leave=True)
    await asyncio.to_thread(system.worker.run_once)
    # then it is retired, and Redis knows it no longer
    assert system.rows("SELECT producer, retired_reason FROM producers WHERE retired_at IS NOT NULL") == [(name, None)]
    assert client.hget(keys.state(0), keys.position_field(name)) is None
    assert (await prove(system)).ok
    # and when it comes back, it accepts nothing before it is registered, and then goes on where it was
    again = await system.sidecar(registered=False)
    unready = again.unready()
    assert unready is not None
    assert unready.code == "not_registered"
    await system.send([an_event("e-1"), an_event("e-2")])
    assert producer(again) == name
    assert await total(system) == 2
    assert system.rows("SELECT count(*) FROM producers WHERE retired_at IS NULL") == [(1,)]
    assert client.hget(keys.state(0), "generation") == generation
    assert (await prove(system)).ok
    client.close()


async def test_a_sidecar_that_is_back_before_it_was_let_go_is_not_let_go(system: System) -> None:
    # given a sidecar that stopped, and no flusher
    await system.sidecar()
    await system.send([an_event("e-1")])
    await system.flush()
    await system.sidecars.pop("a").stop(leave=True)
    # when it is back before a flusher answers, then it goes on
    await system.sidecar()
    await system.send([an_event("e-2")])
    assert await total(system) == 2
    assert system.rows("SELECT count(*) FROM producers WHERE retired_at IS NOT NULL") == [(0,)]


async def test_a_sidecar_with_something_that_postgres_lacks_stays_registered(system: System) -> None:
    # given events that are in Redis alone
    await system.sidecar()
    await system.send([an_event("e-1")])
    # when it stops
    await system.sidecars.pop("a").stop(leave=True)
    # then closing waits for it
    await asyncio.to_thread(system.worker.run_once)
    assert system.rows("SELECT count(*) FROM producers WHERE retired_at IS NOT NULL") == [(0,)]


async def test_records_that_postgres_lost_after_the_journal_gave_them_up_become_a_hole(
    system: System, postgres_server: PostgresServer
) -> None:
    # given a journal that deletes what Postgres confirms, and a standby that lacks the last commits
    ingest = await system.sidecar()
    shard = ingest.journal.shards[0]
    ingest.journal.segment_bytes = 1
    await system.send([an_event("e-1")])
    await system.flush()
    standby = copy_database(system, postgres_server)
    for number in range(2, 7):
        await system.send([an_event(f"e-{number}")])
        await system.flush()
    await system.until(lambda: shard.first.position.sequence >= 5)
    # when the standby takes over
    system.worker.close()
    system.database_url = postgres_server.url_of(standby)
    system.worker = Worker.connect(system.redis_url, system.database_url)
    old = producer(ingest)
    await asyncio.to_thread(system.worker.run_once)
    sending = asyncio.create_task(system.send([an_event("e-7")]))
    await system.until(lambda: producer(ingest) != old and all(sender.streaming for sender in ingest.senders))
    await sending
    # then what only Postgres had is known to be missing, the proof says so, and everything else counts
    kept = await total(system)
    (hole,) = system.rows("SELECT producer, events, accepted_at FROM holes")
    assert hole == (old, 7 - kept, None)
    assert kept < 7
    proof = await prove(system)
    assert [check.name for check in proof.checks if check.ok is False] == ["holes"]


def copy_database(system: System, server: PostgresServer) -> str:
    """Copies the ledger as it is now; returns the name of the copy."""
    ((name,),) = system.rows("SELECT current_database()")
    system.worker.close()
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(statement.format(sql.Identifier(f"{name}_standby"), sql.Identifier(name)))
    system.worker = Worker.connect(system.redis_url, system.database_url)
    return f"{name}_standby"
