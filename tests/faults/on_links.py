"""Links that are cut at any byte, lose replies, stall, or are refused."""

from collections.abc import Callable
from typing import Final

from tests.faults.proxy import Direction, Proxy
from tests.faults.world import World

BYTES: Final = (1, 3, 17, 100, 1_000, 4_000, 20_000)
WAIT_S: Final = 1.0


def _proxy(world: World, kind: str) -> Proxy:
    start, _, end = kind.partition("*")
    names = [name for name in sorted(world.proxies) if name.startswith(start) and name.endswith(end)]
    return world.proxies[world.rng.choice(names)]


def cut(kind: str) -> Callable[[World], str]:
    """Returns the fault that cuts a connection of a kind of link behind an arbitrary byte of either direction."""

    def fault(world: World) -> str:
        direction: Direction = world.rng.choice(["up", "down"])
        return _cut(world, _proxy(world, kind), direction, world.rng.randint(0, world.rng.choice(BYTES)))

    fault.__doc__ = f"A connection of {kind} is cut behind an arbitrary byte."
    return fault


def lose_reply(kind: str) -> Callable[[World], str]:
    """Returns the fault that lets the server do what it is asked and cuts the connection before its reply."""

    def fault(world: World) -> str:
        return _cut(world, _proxy(world, kind), "down", 0)

    fault.__doc__ = f"A reply of {kind} is lost: what was asked is done, and nobody hears it."
    return fault


def _cut(world: World, proxy: Proxy, direction: Direction, count: int) -> str:
    before = proxy.cuts
    proxy.cut_after(direction, count)
    try:
        world.wait(lambda: proxy.cuts > before, WAIT_S, "so many bytes pass")
    except TimeoutError:  # an idle link: it is cut all the same
        proxy.heal()
        proxy.cut()
    world.rest(world.rng.uniform(0.02, 0.2))
    return f"{proxy.name} {direction} behind {count} bytes"


def stall(kind: str) -> Callable[[World], str]:
    """Returns the fault that lets nothing pass for a while; nobody is told."""

    def fault(world: World) -> str:
        proxy = _proxy(world, kind)
        proxy.stall()
        world.rest(1.5)
        proxy.heal()
        return proxy.name

    fault.__doc__ = f"Nothing passes through a link of {kind} for a while."
    return fault


def refuse(kind: str) -> Callable[[World], str]:
    """Returns the fault that cuts a link and lets nobody connect for a while."""

    def fault(world: World) -> str:
        proxy = _proxy(world, kind)
        proxy.refusing = True
        proxy.cut()
        world.rest(1.5)
        proxy.heal()
        return proxy.name

    fault.__doc__ = f"A link of {kind} is cut, and connections are refused for a while."
    return fault
