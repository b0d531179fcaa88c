"""A Redis that forgets: all, some, or the latest; and one that has no memory left."""

from tests.faults.world import World

KEYS_MAX = 4


def wipe(world: World) -> str:
    """FLUSHALL."""
    world.redis.command("FLUSHALL")
    world.rest(world.rng.uniform(0.2, 0.8))
    return ""


def wipe_undrained(world: World) -> str:
    """FLUSHALL behind flushers that are stopped: what only Redis and the journals had is in the journals alone."""
    for program in world.flushers.values():
        world.pause(program, 1.4)
    world.rest(1.2)
    world.redis.command("FLUSHALL")
    world.rest(0.5)
    return ""


def replace(world: World) -> str:
    """A fresh empty server in its place."""
    world.redis.replace()
    world.point_proxies()
    world.rest(world.rng.uniform(0.2, 0.8))
    return world.redis.server.data_dir.name


def truncate(world: World) -> str:
    """Killed, and the end of its append-only file is gone."""
    gone = world.redis.truncate(world.rng)
    world.rest(world.rng.uniform(0.2, 0.8))
    return f"{gone} bytes of its file are gone"


def promote_stale_replica(world: World) -> str:
    """Killed, and a replica takes over that has not heard the latest."""
    link = world.proxy("replica")
    link.heal()
    replica = world.redis.start_replica(link)
    world.rest(0.5)
    link.refusing = True
    link.cut()
    world.rest(1.0)
    world.redis.promote(replica)
    world.point_proxies()
    world.rest(0.5)
    return f"{replica.data_dir.name} lacks the last second"


def fill(world: World) -> str:
    """No memory left: what takes memory is denied."""
    world.redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        world.rest(1.2)
    finally:
        world.redis.command("CONFIG", "SET", "maxmemory", "0")
    world.rest(0.2)
    return ""


def evict(world: World) -> str:
    """Some keys of ours vanish, one by one."""
    gone = []
    for _ in range(world.rng.randint(1, KEYS_MAX)):
        found = sorted(world.redis.command("KEYS", "*t1:*"))
        states = [name for name in found if name.endswith((b":stream", b":counters", b":index", b"}"))]
        chosen = world.rng.choice(world.rng.choice([one for one in (found, states) if one] or [[b"none"]]))
        world.redis.command("DEL", chosen)
        gone.append(repr(chosen)[2:-1][:40])
        world.rest(world.rng.uniform(0.0, 0.3))
    return ", ".join(gone)
