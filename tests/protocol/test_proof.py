"""The proof holds while everything is true, and fails when a counter, a row or a record is tampered with."""

import asyncio
from pathlib import Path

import psycopg
import pytest
import redis

from flusher.database import connect
from flusher.proof import Proof, verify
from sidecar.contract import keys
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event, indexed


async def prove(system: System, wait_s: float = 5.0) -> Proof:
    """Returns the proof of a system."""
    return await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=wait_s)


def failed(proof: Proof) -> set[str]:
    """Returns the names of the checks that failed."""
    return {check.name for check in proof.checks if check.ok is False}


async def test_the_proof_holds_with_events_in_postgres_redis_and_as_duplicates(system: System) -> None:
    # given events that are drained, some of them repeats and conflicts
    await system.send([an_event("e-1"), an_event("e-2", nanos=NANO // 3), an_event("e-1")])
    await system.send([an_event("e-2", nanos=NANO)])
    await system.send(indexed([an_event()], "k"), key="k", digest=b"1" * 16)
    await system.flush()
    # and one that is in Redis only
    await system.send([an_event("e-9", nanos=7 * NANO)])
    # when it is proven
    proof = await prove(system)
    # then every event is accounted for
    assert proof.ok, proof.as_json()
    assert proof.accepted.events == 6
    assert (proof.postgres.events, proof.redis.events, proof.journal.events) == (3, 1, 0)
    assert (proof.duplicates.events, proof.conflicts.events) == (1, 1)
    assert proof.redis.nanos == 7 * NANO


async def test_events_that_only_a_journal_has_are_proven_too(system: System) -> None:
    # given a sidecar whose way to Redis is held up
    ingest = await system.sidecar(ack_deadline_s=0.1)
    await system.send([an_event("e-1")])
    await system.flush()
    client = redis.Redis.from_url(system.redis_url)
    state = client.hgetall(keys.state(0))
    client.hset(keys.state(0), "fence", "1")
    receipt = await system.send([an_event("e-2")])
    assert not receipt.applied
    # when it is proven
    proof = await prove(system)
    # then the journal's event is counted
    assert (proof.accepted.events, proof.journal.events, proof.postgres.events) == (2, 1, 1), proof.as_json()
    assert not proof.failed
    client.close()
    assert state
    assert ingest.unready() is None


async def test_a_sidecar_that_does_not_answer_leaves_it_undecided(system: System) -> None:
    await system.send([an_event("e-1")])
    await system.flush()
    await system.stop("a")
    proof = await prove(system, wait_s=0.3)
    assert proof.undecided
    assert not proof.ok


async def test_a_tampered_counter_in_redis_fails_it(system: System) -> None:
    await system.send([an_event("e-1")])
    client = redis.Redis.from_url(system.redis_url)
    generation = client.hget(keys.state(0), "generation")
    assert isinstance(generation, bytes)
    name = keys.open_epoch(0, generation.decode()).counters
    fields = client.hkeys(name)
    assert isinstance(fields, list)
    client.hincrby(name, fields[0], 1)
    client.close()
    assert "counters" in failed(await prove(system))
    # and the drain records it, after which events win
    drained = await system.flush()
    assert drained.discrepancies == 1
    assert system.rows("SELECT resolved_at IS NOT NULL FROM discrepancies") == [(True,)]
    assert (await prove(system)).ok


async def test_tampered_rows_in_postgres_fail_it(system: System) -> None:
    await system.send([an_event("e-1"), an_event("e-2")])
    await system.flush()
    assert (await prove(system)).ok
    for statement, check in (
        ("UPDATE events SET units = 2 WHERE id = 'e-1'", "events"),
        ("UPDATE usage SET units = units + 5", "usage"),
        ("DELETE FROM events WHERE id = 'e-2'", "events"),
    ):
        with connect(system.database_url) as connection:
            connection.execute(statement)
            connection.commit()
        assert check in failed(await prove(system)), statement


async def test_a_position_that_does_not_add_up_is_refused_by_the_database(system: System) -> None:
    await system.send([an_event("e-1")])
    await system.flush()
    with connect(system.database_url) as connection, pytest.raises(psycopg.errors.CheckViolation, match="accounted"):
        connection.execute("UPDATE positions SET inserted_events = inserted_events + 1")


async def test_a_tampered_journal_record_fails_it(system: System) -> None:
    await system.send([an_event("e-1")])
    await system.send([an_event("e-2")])
    await system.flush()
    path = next(Path(system.directory / "a").glob("0000-*.segment"))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(bytes(content))
    proof = await prove(system)
    assert any(check.name.startswith("journal") and check.ok is False for check in proof.checks), proof.as_json()
