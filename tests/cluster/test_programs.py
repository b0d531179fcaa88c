"""Real sidecars and flushers, two of each, on a real cluster, whose primaries die and whose slots move."""

from collections.abc import Callable
from functools import partial

import pytest

from flusher.doctor.examine import SetUp, examine
from flusher.doctor.finding import Level
from sidecar.contract import keys
from tests.cluster.servers import Cluster, Moving
from tests.cluster.system import App, System, total
from tests.faults.processes import wait_until

SHARDS = 8
USERS = 40
SIDECARS = ("sidecar a", "sidecar b")
Made = tuple[Cluster, System, list[App]]


@pytest.fixture
def make_loaded(
    make_cluster: Callable[..., Cluster],
    make_system: Callable[[str, str], System],
    make_database: Callable[..., str],
) -> Callable[..., Made]:
    """`make_loaded(replicas_of=(1,))`: a cluster, two sidecars and two flushers on it, and two apps that send."""

    def make(replicas_of: tuple[int, ...] = ()) -> Made:
        cluster = make_cluster(replicas_of)
        system = make_system(cluster.url, make_database(shards=SHARDS))
        for name in ("flusher a", "flusher b"):
            system.start_flusher(name)
        for name in SIDECARS:
            system.start_sidecar(name)
        system.wait_ready()
        apps = [App(name, system.addresses[name], USERS) for name in SIDECARS]
        for app in apps:
            app.start()
        return cluster, system, apps

    return make


def _stop(apps: list[App]) -> dict[str, int]:
    for app in apps:
        app.stop()
    return total(apps)


def _is_live(system: System, sidecar: str, sent: dict[str, int]) -> bool:
    return {user: system.live(sidecar, user) for user in sent} == sent


def _until_sent(apps: list[App], answers: int) -> None:
    """Waits until every app has got so many more answers."""
    wanted = [len(app.answers) + answers for app in apps]
    wait_until(
        lambda: all(len(app.answers) >= count for app, count in zip(apps, wanted, strict=True)), 30, "events are taken"
    )


def test_events_of_many_users_are_billed_once_while_a_shard_moves_and_live_usage_is_right(
    make_loaded: Callable[..., Made],
) -> None:
    # given apps that send events of many users to two sidecars
    cluster, system, apps = make_loaded()
    source, target = cluster.home(0), cluster.primaries[2]
    _until_sent(apps, 20)
    # when the slot of a shard moves, key by key, and some of them are there and some here for a while
    moving = Moving(cluster, 0, target)
    moving.move(source.run("CLUSTER", "COUNTKEYSINSLOT", moving.slot) // 2)
    torn = {"errorstat_ASK", "errorstat_TRYAGAIN"}
    wait_until(
        lambda: bool(torn & source.client.info("errorstats").keys()), 20, "somebody misses the keys that are gone"
    )
    moving.finish()
    before = target.run("HGETALL", keys.state(0))
    wait_until(lambda: target.run("HGETALL", keys.state(0)) != before, 20, "the shard goes on in its new home")
    _until_sent(apps, 20)
    sent = _stop(apps)
    # then every sidecar says at once what each user has used, on whichever primary it is
    some = {user: sent[user] for user in list(sent)[:12]}
    for sidecar in SIDECARS:
        wait_until(partial(_is_live, system, sidecar, some), 20, "live usage is right")
    # and it is billed, once
    proof = system.drain(sent)
    assert proof.duplicates.events > 0
    # and every primary had its part of it, which doctor tells
    found = examine(SetUp(redis=cluster.url))
    assert not [one for one in found if one.level is Level.FAIL]
    details = {one.name: one.detail for one in found}
    assert details["cluster"] == "primaries: 3; they cover all slots"
    assert details["spread"].startswith(f"shards: {SHARDS}; ")
    assert {one.part for one in found} >= {f"redis {node.address}" for node in cluster.primaries}


def test_a_primary_that_dies_under_load_and_a_replica_without_the_last_second_lose_nothing(
    make_loaded: Callable[..., Made],
) -> None:
    # given a primary with the most shards, and its replica
    cluster, system, apps = make_loaded(replicas_of=(1,))
    primary, replica = cluster.primaries[1], cluster.replicas[1]
    mine = [shard for shard in range(SHARDS) if cluster.home(shard) is primary]
    _until_sent(apps, 20)
    # when the replica loses its way to the primary, events come in and are drained, and the primary is killed
    primary.run("CONFIG", "SET", "requirepass", "nobody may connect any more")
    primary.run("CLIENT", "KILL", "TYPE", "replica")
    before = {shard: primary.run("HGET", keys.state(shard), "token") for shard in mine}
    wait_until(
        lambda: all(primary.run("HGET", keys.state(shard), "token") != before[shard] for shard in mine), 20, "drained"
    )
    primary.end()
    # then the replica takes over, behind what PostgreSQL has, and events flow again
    wait_until(lambda: replica.is_primary, 20, "the replica takes over")
    _until_sent(apps, 30)
    sent = _stop(apps)
    # and every acknowledged event is billed once
    system.drain(sent)
    assert "Redis did not match" in system.log("flusher a") + system.log("flusher b")
    user = next(iter(sent))
    assert {system.live(sidecar, user) for sidecar in SIDECARS} == {sent[user]}
