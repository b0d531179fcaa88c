"""Processes that are killed, stopped past every timeout, or work by a wrong clock."""

import signal

from tests.faults.processes import Program, wait_until
from tests.faults.world import PATIENCE_S, World

HOUR_S = 3600.0


def _one(world: World, programs: dict[str, Program]) -> Program:
    return programs[world.rng.choice(sorted(programs))]


def kill_sidecar(world: World) -> str:
    """kill -9; it is started again at once."""
    program = _one(world, world.sidecars)
    program.kill()
    world.rest(world.rng.uniform(0.1, 0.6))
    return program.name


def kill_flusher(world: World) -> str:
    """kill -9; it is started again at once."""
    program = _one(world, world.flushers)
    program.kill()
    world.rest(world.rng.uniform(0.1, 0.6))
    return program.name


def kill_redis(world: World) -> str:
    """kill -9; it is started on what it has on disk: its append-only file, or nothing."""
    world.redis.kill()
    world.rest(world.rng.uniform(0.1, 0.6))
    return "with a file" if world.redis.durable else "without a file"


def kill_postgres(world: World) -> str:
    """kill -9; it is started on what it has on disk, and recovers."""
    world.postgres.kill()
    world.rest(world.rng.uniform(0.1, 0.6))
    return ""


def kill_client(world: World) -> str:
    """kill -9 of an app; another one goes on."""
    for client in world.clients:
        client.kill()
    world.clients.clear()
    world.start_clients(prefix="after")
    return ""


def stop_sidecar(world: World) -> str:
    """SIGSTOP past its answers' deadline, then SIGCONT."""
    program = _one(world, world.sidecars)
    world.pause(program, 1.5)
    world.rest(1.6)
    return program.name


def stop_flusher(world: World) -> str:
    """SIGSTOP for some cycles, then SIGCONT; another one works meanwhile."""
    program = _one(world, world.flushers)
    world.pause(program, 1.5)
    world.rest(1.6)
    return program.name


def stop_flusher_with_work(world: World) -> str:
    """SIGSTOP of a flusher that holds a shard's row and has not committed; another one is there."""
    program = _one(world, world.flushers)
    point = world.rng.choice(["entries read", "usage added", "token stored", "epoch committed"])
    program.arm(point, "before", "stop")
    world.wait(lambda: program.has_fired, PATIENCE_S, f"{program.name} comes to {point}")
    world.pause(program, 1.5)
    world.rest(1.7)
    return f"{program.name} before {point}"


def stop_redis(world: World) -> str:
    """SIGSTOP past the sidecar's deadline of 5 s for a reply, then SIGCONT."""
    return _stop_redis(world, 6.0)


def stop_redis_for_long(world: World) -> str:
    """SIGSTOP past the flusher's deadline of 15 s too, then SIGCONT."""
    return _stop_redis(world, 16.5)


def _stop_redis(world: World, seconds: float) -> str:
    server = world.redis.server
    world.redis.signal(signal.SIGSTOP)
    try:
        world.rest(seconds)
    finally:
        world.redis.signal(signal.SIGCONT)
    return f"{server.data_dir.name} for {seconds:g} s"


def stop_postgres(world: World) -> str:
    """SIGSTOP of the server and all its children, then SIGCONT."""
    world.postgres.signal_all(signal.SIGSTOP)
    try:
        world.rest(2.0)
    finally:
        world.postgres.signal_all(signal.SIGCONT)
    return ""


def bend_sidecar_clock(world: World) -> str:
    """A sidecar's clock is an hour wrong for a while."""
    return _bend(world, _one(world, world.sidecars))


def bend_flusher_clock(world: World) -> str:
    """A flusher's clock is an hour wrong for a while, and it has to open a generation by it."""
    program = _one(world, world.flushers)
    world.held_down = {one for one in world.flushers.values() if one is not program}
    for other in world.held_down:
        other.kill()
    try:
        return _bend(world, program, wipe=True)
    finally:
        world.held_down = set()


def _bend(world: World, program: Program, *, wipe: bool = False) -> str:
    seconds = world.rng.choice([-HOUR_S - 5, HOUR_S + 5])
    world.skew_s = HOUR_S + 5
    program.bend_clock(seconds)
    try:
        world.rest(0.2)
        if wipe:
            world.redis.command("FLUSHALL")
            wait_until(
                lambda: bool(world.redis.command("HGET", "{t1:0}", "generation")), PATIENCE_S, "a new generation"
            )
        world.rest(1.0)
    finally:
        program.bend_clock(0)
    return f"{program.name} by {seconds:+g} s"
