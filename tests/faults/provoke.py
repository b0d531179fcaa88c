"""Makes the system come to a named point that it passes rarely."""

import contextlib
from collections.abc import Callable
from typing import Final

from tests.faults.processes import Program
from tests.faults.world import World

FOREIGN: Final = "f" * 32  # the digest of nobody's chain


def provoke(world: World, point: str, program: Program) -> None:
    """Does what leads a program to a point. Where nothing stands here, the traffic alone does."""
    if point in _PROVOKERS:
        _PROVOKERS[point](world, program)


def _spoil_tokens(world: World, program: Program) -> None:
    """What Redis says follows something else than PostgreSQL: every shard gets a new generation."""
    for shard in range(world.shape.shards):
        world.redis.command("HSET", f"{{t1:{shard}}}", "token", "0" * 16)


def _spoil_chains(world: World, program: Program) -> None:
    """Redis has positions that are in nobody's journal: every sidecar goes on under a new id (rule 7)."""
    for shard in range(world.shape.shards):
        state = f"{{t1:{shard}}}"
        for field in world.redis.command("HKEYS", state):
            if field.startswith(b"p:"):
                world.redis.command("HSET", state, field, f"7:{FOREIGN}")


def _restart(world: World, program: Program) -> None:
    program.kill()


def _cut_redis(world: World, program: Program) -> None:
    world.proxies[f"{program.name}-redis"].cut()


def _declare_a_meter(world: World, program: Program) -> None:
    world.declare_a_meter()


_PROVOKERS: Final[dict[str, Callable[[World, Program], None]]] = {
    "journal loaded": _restart,
    "partition made": _restart,
    "link made": _cut_redis,
    "position asked": _cut_redis,
    "reconnected": _cut_redis,
    "meters adopted": _declare_a_meter,
    "ledger told": _restart,
    **dict.fromkeys(
        ("generation fenced", "state staged", "totals staged", "generation swapped", "generation committed"),
        _spoil_tokens,
    ),
    **dict.fromkeys(
        (
            "chain renumbered",
            "registration asked",
            "registration noted",
            "asking read",
            "producer registered",
            "registration committed",
            "position opened",
        ),
        _spoil_chains,
    ),
}


def calm(world: World) -> None:
    """Waits until the traffic goes all the way again."""
    with contextlib.suppress(TimeoutError):
        world.wait_for_traffic(10.0)
