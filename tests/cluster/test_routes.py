"""Each command goes to the primary that has its key, from the sidecar and from the flusher."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from redis.exceptions import MovedError

from flusher.clock import Clock
from flusher.janitor import Janitor
from flusher.nodes import Nodes
from flusher.proof import verify
from flusher.source import Source
from flusher.watch import Watch
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.slots import slot_of
from sidecar.link import RedisServer
from tests.cluster.servers import PRIMARIES, Cluster
from tests.faults.processes import wait_until
from tests.protocol.system import System, an_event

SHARDS = 8


@pytest.fixture
def tagged(cluster: Cluster) -> Cluster:
    """A cluster on which the state of every shard says which one it is."""
    for shard in range(SHARDS):
        cluster.home(shard).client.hset(keys.state(shard), "generation", str(shard))
    return cluster


@pytest.fixture
async def system(cluster: Cluster, make_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[System]:
    """Sidecars and a flusher in this process, on the cluster."""
    one = System(cluster.url, make_database(shards=SHARDS), tmp_path)
    yield one
    await one.close()


@pytest.mark.parametrize("named", ["one host", "all hosts", "a socket"])
async def test_a_link_goes_to_the_primary_of_its_shard(tagged: Cluster, named: str) -> None:
    first = tagged.primaries[0]
    urls = {"one host": f"redis://{first.address}", "all hosts": tagged.url, "a socket": first.server.url}
    server = RedisServer(urls[named])
    for shard in range(SHARDS):
        link = await server.connect(keys.state(shard))
        assert await link.request("HGET", keys.state(shard), "generation") == str(shard).encode()
        await link.close()


async def test_single_commands_go_where_their_keys_are_and_after_an_error_it_is_asked_where_that_is(
    tagged: Cluster,
) -> None:
    # given clients that know the cluster
    clients = RedisServer(tagged.url).clients()
    names = [keys.state(shard) for shard in range(SHARDS)]
    homes = await clients.homes(names)
    assert len(homes) == PRIMARIES
    for client, mine in homes:
        for name in mine:
            assert await client.hget(name, "generation") == name.removeprefix("{t1:").removesuffix("}").encode()
    # when a command goes to one that does not have the key any more
    client, _ = homes[0]
    with pytest.raises(MovedError):
        await client.hget(homes[1][1][0], "generation")
    # then the redirection is not followed, but looked up
    assert clients._servers is None
    assert await (await clients.at(names[0])).hget(names[0], "generation") == b"0"
    await clients.aclose()


def test_the_flusher_finds_every_shard_and_does_not_follow_redirections(tagged: Cluster) -> None:
    nodes = Nodes(f"redis://{tagged.primaries[0].address}")
    with closing(Source(nodes)) as source:
        assert [source.state(shard).generation for shard in range(SHARDS)] == [str(shard) for shard in range(SHARDS)]
        assert len(source.infos("memory", "server")) == PRIMARIES
        # when a slot is elsewhere than it knows
        servers = nodes.servers()
        nodes._servers = servers._replace(ranges=tuple(one._replace(url=servers.urls[0]) for one in servers.ranges))
        away = next(shard for shard in range(SHARDS) if tagged.home(shard) is not tagged.primaries[0])
        with pytest.raises(TryAgainError, match=f"a slot moved: {slot_of(keys.state(away))}"):
            source.state(away)
        # then it is right the next time
        assert source.state(away).generation == str(away)


def test_the_janitor_looks_through_every_primary(tagged: Cluster) -> None:
    # given keys of replaced generations, many of each shard
    for shard in range(SHARDS):
        client = tagged.home(shard).client
        client.hset(keys.state(shard), "generation", "opened00")
        for number in range(100):
            client.set(keys.identity_prefix(shard, "replaced") + bytes([number]), b"1")
    # when it cleans
    with closing(Source.connect(tagged.url)) as source:
        janitor = Janitor(source, Clock(), grace_s=0.0, interval_s=0.0)
        removed = sum(janitor.clean() for _ in range(PRIMARIES))
    # then they are gone
    assert removed == 100 * SHARDS
    assert sum(node.run("DBSIZE") for node in tagged.primaries) == SHARDS


def test_a_cluster_of_which_no_primary_has_a_slot_says_so(tagged: Cluster) -> None:
    nodes = Nodes(tagged.url)
    nodes._servers = nodes.servers()._replace(ranges=())
    with closing(Source(nodes)) as source, pytest.raises(TryAgainError, match="no primary of the cluster has the slot"):
        source.state(0)


def test_hosts_of_which_one_is_no_cluster_are_refused(redis_url: str, cluster: Cluster) -> None:
    nodes = Nodes(cluster.url)
    with closing(nodes), pytest.raises(TaximeterError, match="config_invalid"):
        nodes._finder.learn(redis_url, nodes._ask(redis_url))


async def test_only_the_shards_of_a_primary_without_memory_are_held_back(cluster: Cluster, system: System) -> None:
    # given events on every shard that wait to be drained
    sidecar = await system.sidecar()
    events = [an_event(f"e-{number}", user_id=f"cus_{number}") for number in range(100)]
    await system.send(events)
    # when a primary's memory is nearly used up
    tight = cluster.primaries[1]
    tight.run("CONFIG", "SET", "maxmemory", tight.client.info("memory")["used_memory"] + 300_000)
    try:
        mine = {shard for shard in range(SHARDS) if cluster.home(shard) is tight}
        await asyncio.to_thread(wait_until, lambda: sidecar.memory.paused == mine, 10, "its shards are held back")
        # then the senders of its shards hold back, those of the others don't, and the flusher says how full it is
        assert {shard for shard, sender in enumerate(sidecar.senders) if sender.paused} == mine
        assert sidecar.memory.ratio > 0.85
        with closing(Source.connect(cluster.url)) as source:
            seen = Watch(source, Clock()).look(range(SHARDS))
        assert seen is not None
        assert seen.memory_bytes_max == tight.client.info("memory")["maxmemory"]
    finally:
        tight.run("CONFIG", "SET", "maxmemory", 0)
    # and go on when there is room
    await system.until(lambda: not sidecar.memory.paused)
    await system.flush()
    assert system.usage() == {(f"cus_{number}", "api_call"): (Decimal(1), 1) for number in range(100)}
    proof = await asyncio.to_thread(verify, cluster.url, system.database_url, answer_timeout_s=10.0)
    assert proof.ok, proof.as_json()


async def test_a_primary_that_is_wiped_is_written_anew_and_a_rebuild_reaches_all_of_them(
    cluster: Cluster, system: System
) -> None:
    # given events on every shard, some of them drained
    users = [f"cus_{number}" for number in range(24)]
    now_us = time.time_ns() // 1000
    first, second = (
        [an_event(f"{name}-{user}", user_id=user, time_us=now_us) for user in users] for name in ("a", "b")
    )
    await system.send(first)
    await system.flush()
    await system.send(second)
    # when the primary that has the ledger is wiped
    cluster.home_of(keys.LEDGER).client.flushall()
    # then every event counts, and a repeat is still one
    await system.send(first)
    await system.flush()
    assert system.usage() == {(user, "api_call"): (Decimal(2), 2) for user in users}
    # and Redis is restored by hand on all of them
    rebuilt = await asyncio.to_thread(system.worker.rebuild, range(SHARDS), lambda *_: None)
    assert rebuilt.totals == len(users)
