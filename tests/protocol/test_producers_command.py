"""`taximeter producers`: sidecars are listed, and one that will not come back is given up, with a trace."""

import asyncio
import json

import pytest
import redis

from flusher.cli.main import main
from flusher.database import connect
from flusher.proof import Proof, verify
from sidecar.contract import keys
from tests.protocol.system import System, an_event


def _producers(system: System, *arguments: str) -> int:
    target = ("--redis-url", system.redis_url, "--database-url", system.database_url)
    return main(["producers", *arguments, *target])


async def _prove(system: System, wait_s: float = 0.3) -> Proof:
    return await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=wait_s)


def _only_producer(system: System) -> str:
    ((producer,),) = system.rows("SELECT producer FROM producers")
    return str(producer)


def _silence(system: System) -> None:
    """Lets the last sign of every sidecar be two minutes old."""
    with connect(system.database_url) as connection:
        connection.execute("UPDATE producers SET registered_at = now() - interval '2 minutes'")
        connection.execute("UPDATE positions SET watermark = now() - interval '2 minutes'")


def test_no_sidecar_is_said_in_a_line(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["producers", "--database-url", database_url]) == 0
    assert capsys.readouterr().out == "no sidecar is registered yet\n"


async def test_sidecars_are_listed_with_how_far_they_were_taken(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    await system.send([an_event("e-1"), an_event("e-2")])
    await system.flush()
    capsys.readouterr()
    assert _producers(system, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["producers"]
    assert listed["producer"] == _only_producer(system)
    assert (listed["retired_at"], listed["reason"], listed["events"]) == (None, None, 2)
    (shard,) = listed["shards"]
    assert (shard["shard"], shard["events"]) == (0, 2)
    assert shard["position"] >= 1
    assert 0 <= shard["behind_s"] < 60
    assert _producers(system) == 0
    assert listed["producer"] in capsys.readouterr().out


async def test_a_sidecar_that_was_heard_of_a_moment_ago_is_retired_by_force_alone(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a sidecar that is registered and runs
    await system.sidecar()
    producer = _only_producer(system)
    # when it is retired, it is refused and nothing changes
    assert await asyncio.to_thread(_producers, system, "retire", producer) == 1
    assert "error: producer_active: " in capsys.readouterr().err
    assert system.rows("SELECT retired_at FROM producers") == [(None,)]
    # but not with --force, and then not again
    assert await asyncio.to_thread(_producers, system, "retire", producer, "--force") == 0
    assert await asyncio.to_thread(_producers, system, "retire", producer, "--force") == 1
    assert "error: already_decided: " in capsys.readouterr().err


async def test_what_redis_has_of_a_lost_sidecar_is_drained_and_the_proof_waits_for_it_no_longer(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a sidecar that is gone, and left an event in Redis
    await system.send([an_event("e-1")])
    await system.flush()
    await system.send([an_event("e-2")])
    producer = _only_producer(system)
    await system.stop("a")
    _silence(system)
    assert (await _prove(system)).undecided
    # when it is retired (by force: its last event is younger than a minute)
    capsys.readouterr()
    arguments = ("retire", producer, "--reason", "its node was scrapped", "--force", "--json")
    assert await asyncio.to_thread(_producers, system, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "retired": producer,
        "reason": "its node was scrapped",
        "holes": [],
    }
    # then both events count and the proof holds, and shows why
    proof = await _prove(system)
    assert proof.ok, proof.as_json()
    assert proof.postgres.events == 2
    (trace,) = [check.detail for check in proof.checks if check.name == "given_up"]
    assert trace == f"1 sidecars given up on: {producer} (its node was scrapped)"


async def test_a_silent_sidecar_is_retired_without_force(system: System) -> None:
    await system.send([an_event("e-1")])
    await system.flush()
    producer = _only_producer(system)
    await system.stop("a")
    await asyncio.to_thread(system.worker.flush)
    _silence(system)
    assert await asyncio.to_thread(_producers, system, "retire", producer) == 0
    assert system.rows("SELECT retired_at IS NOT NULL, retired_reason FROM producers") == [(True, "no reason given")]


@pytest.mark.parametrize("replaced", [False, True], ids=["same_generation", "new_generation"])
async def test_records_that_redis_saw_and_nobody_has_become_a_hole(
    replaced: bool, system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a sidecar that is gone, and a stream that was evicted before it was drained
    await system.send([an_event("e-1")])
    await system.flush()
    ((taken,),) = system.rows("SELECT sequence FROM positions")
    await system.send([an_event("e-2")])
    await system.send([an_event("e-3")])
    producer = _only_producer(system)
    await system.stop("a")
    with redis.Redis.from_url(system.redis_url) as client:
        generation = client.hget(keys.state(0), "generation")
        assert isinstance(generation, bytes)
        epoch = keys.open_epoch(0, generation.decode())
        client.delete(*epoch)
    if replaced:  # the drain of the retirement opens a new generation, which knows Postgres's positions alone
        with connect(system.database_url) as connection:
            connection.execute("UPDATE shards SET token = 'another'")
    # when it is retired
    capsys.readouterr()
    assert await asyncio.to_thread(_producers, system, "retire", producer, "--force") == 0
    hole = f"{producer}/0/{taken + 1}"
    assert f"  {hole} to " in capsys.readouterr().out
    # then the proof fails over the hole, until it is accepted
    ((first, last),) = system.rows("SELECT first_sequence, last_sequence FROM holes")
    assert (first, last >= taken + 2) == (taken + 1, True)
    assert [check.name for check in (await _prove(system)).checks if check.ok is False] == ["holes"]
    assert main(["holes", "accept", hole, "--reason", "gone", "--database-url", system.database_url]) == 0
    proof = await _prove(system)
    assert proof.ok, proof.as_json()


async def test_a_new_generation_knows_the_other_sidecars_after_one_is_retired(system: System) -> None:
    # given two sidecars, one of them retired
    await system.send([an_event("e-1")], to="a")
    producer = _only_producer(system)
    await system.send([an_event("e-2")], to="b")
    await system.flush()
    await system.stop("a")
    assert await asyncio.to_thread(_producers, system, "retire", producer, "--force") == 0
    # when Redis is wiped
    with redis.Redis.from_url(system.redis_url) as client:
        client.flushall()
    # then the other one goes on
    await system.sidecar("b")
    await system.send([an_event("e-3")], to="b")
    await system.flush()
    with redis.Redis.from_url(system.redis_url) as client:
        assert client.hget(keys.state(0), keys.position_field(producer)) is None
    proof = await _prove(system, wait_s=5.0)
    assert proof.ok, proof.as_json()
    assert proof.postgres.events == 3


async def test_a_sidecar_that_nobody_knows_is_refused(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(_producers, system, "retire", "nobody") == 1
    assert "error: producer_unknown: no sidecar 'nobody'" in capsys.readouterr().err


async def test_a_retired_sidecar_that_returns_is_reinstated_and_replays(system: System) -> None:
    # given a sidecar that was retired while its journal had something that Redis never got
    await system.send([an_event("e-1")])
    await system.flush()
    ingest = await system.sidecar()
    with redis.Redis.from_url(system.redis_url) as client:
        client.hset(keys.state(0), "fence", "1")
    await system.send([an_event("e-2")])
    producer = ingest.journal.manifest.producer if ingest.journal.manifest else ""
    await system.stop("a")
    assert await asyncio.to_thread(_producers, system, "retire", producer, "--force") == 0
    await asyncio.to_thread(system.worker.flush)
    with redis.Redis.from_url(system.redis_url) as client:
        assert client.hget(keys.state(0), keys.position_field(producer)) is None
    # when it returns
    await system.sidecar("a")
    await system.send([an_event("e-3")])
    await system.flush()
    # then it is registered again under its name, and everything counts once
    assert system.rows("SELECT retired_at FROM producers") == [(None,)]
    proof = await _prove(system, wait_s=5.0)
    assert proof.ok, proof.as_json()
    assert proof.postgres.events == 3
