"""A chain that can't be gone on with gets a new producer: nothing is lost or counted twice (rule 7)."""

import asyncio
import os
import shutil

import psycopg
from psycopg import sql

from flusher.embedded.postgres import PostgresServer
from flusher.worker import Worker
from sidecar.ingest import Ingest
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
    # when events come in
    receipt = await ingest.submit([an_event("e-3"), an_event("e-2")])
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
