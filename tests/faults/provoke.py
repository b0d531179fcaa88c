"""Makes the system come to a named point that it passes rarely."""

import signal
from collections.abc import Callable
from typing import Final

from tests.faults.processes import Program
from tests.faults.world import World

FOREIGN: Final = "f" * 32  # the digest of nobody's chain


def provoke(world: World, point: str, program: Program) -> None:
    """Does what leads a program to a point. Where nothing stands here, the traffic alone does."""
    if point in _PROVOKERS:
        _PROVOKERS[point](world, program)


def phase(point: str) -> str:
    """Returns the name of what leads to a point: those with the same one are best looked for together."""
    return _PROVOKERS[point].__name__ if point in _PROVOKERS else ""


def where(point: str, program: Program) -> str:
    """Returns what is provoked: one program, or, with the same name for everybody, the whole system."""
    return program.name if _PROVOKERS.get(point) in {_restart, _cut_redis} else "everybody"


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


def _leave(world: World, program: Program) -> None:
    """A sidecar stops in order and retires (rule 14); it is started again and registers anew."""
    world.sidecars[world.rng.choice(sorted(world.sidecars))].signal(signal.SIGTERM)


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
            "hole noted",
        ),
        _spoil_chains,
    ),
    **dict.fromkeys(("position withdrawn", "producer let go"), _leave),
}
