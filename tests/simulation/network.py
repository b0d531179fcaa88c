"""The ways to the in-memory Redis: what can happen to a command and to its reply, and clients for both programs."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flusher.nodes import Place
from tests.simulation.mini_redis import MiniRedis
from tests.simulation.world import Process, World

LATENCY_S: Final = (0.0002, 0.004)
SLOW_S: Final = (0.05, 1.5)
TIMEOUT_S: Final = 5.0
ZOMBIE_S: Final = 12.0  # a command may still be run so long after its client gave up


class Weather:
    """What the ways are like now. Chances are per command."""

    def __init__(self) -> None:
        self.down = False  # nobody gets through
        self.unreachable: set[str] = set()  # names of processes that don't get through
        self.lose = 0.0  # the connection breaks, before or after the command was run
        self.slow = 0.0

    def clear(self) -> None:
        """All is well."""
        self.down, self.lose, self.slow = False, 0.0, 0.0
        self.unreachable.clear()


class RedisNet:
    """The server and the ways to it."""

    def __init__(self, world: World, server: MiniRedis) -> None:
        self.world = world
        self.server = server
        self.weather = Weather()
        self.cuts = 0  # grows when every connection breaks

    def latency_s(self) -> float:
        """Returns how long one way takes now."""
        rng = self.world.rng
        slow = self.weather.slow and rng.random() < self.weather.slow
        return rng.uniform(*(SLOW_S if slow else LATENCY_S))

    def reaches(self, process: Process) -> bool:
        """Returns whether a process gets through."""
        return not (self.weather.down or process.name in self.weather.unreachable)

    def fate(self, process: Process) -> str:
        """Returns what becomes of a command: ok, refused, lost (with it or without its effect), late."""
        if not self.reaches(process):
            return "refused"
        if self.weather.lose and self.world.rng.random() < self.weather.lose:
            kind = self.world.rng.choice(("lost before", "reply lost", "late"))
            self.world.counts[f"redis: {kind}"] += 1
            return kind
        return "ok"

    def run_later(self, command: Sequence[Any]) -> None:
        """Runs a command whose client gave up, some time."""
        self.world.after(self.world.rng.uniform(0.0, ZOMBIE_S), None, self._run_unheard, tuple(command))

    def _run_unheard(self, command: Sequence[Any]) -> None:
        self.world.log(f"redis runs late: {_short(command)}")
        try:
            self.server.execute(*command)
        except ResponseError:
            self.world.counts["redis: late command refused"] += 1


def _short(command: Sequence[Any]) -> str:
    return " ".join(str(word)[:24] for word in command[:4])


def hear(reply: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    """Gives an answer to whoever still waits for it."""
    if reply.done():
        return
    if error is None:
        reply.set_result(answer)
    else:
        reply.set_exception(error)


class BlockingClient:
    """The flusher's client: each command lets other processes run before and behind it."""

    def __init__(self, net: RedisNet, process: Process) -> None:
        self._net = net
        self._process = process

    def _call(self, *command: Any) -> Any:
        net, world = self._net, self._net.world
        fate = net.fate(self._process)
        world.sleep(self._process, net.latency_s())
        if fate == "refused" or not net.reaches(self._process):
            raise RedisConnectionError("connection refused")
        if fate == "lost before":
            raise RedisConnectionError("connection reset")
        if fate == "late":
            net.run_later(command)
            world.sleep(self._process, TIMEOUT_S)
            raise RedisTimeoutError("timed out")
        try:
            reply = net.server.execute(*command)
        finally:
            world.sleep(self._process, net.latency_s())
        if fate == "reply lost":
            raise RedisConnectionError("connection reset by peer")
        return reply

    def at(self, _: str | bytes) -> "BlockingClient":
        """Returns the client of the server that has a key: there is one."""
        return self

    def scan(self, place: Place, pattern: str, count: int) -> tuple[Place, list[bytes]]:
        """Returns all keys."""
        return Place(), self._call("SCAN", place.cursor, "MATCH", pattern, "COUNT", count)[1]

    def forget(self) -> None:
        """There is nothing to look up."""

    def execute_command(self, *command: Any) -> Any:
        """Runs a command; its reply has the client library's form."""
        reply = self._call(*command)
        if command[0] == "HGETALL":
            return dict(zip(reply[::2], reply[1::2], strict=True))
        return reply

    def evalsha(self, sha: str, count: int, *arguments: Any) -> Any:
        """Runs a script that is loaded."""
        return self._call("EVALSHA", sha, count, *arguments)

    def eval(self, text: str, count: int, *arguments: Any) -> Any:
        """Runs a script."""
        return self._call("EVAL", text, count, *arguments)

    def pipeline(self, *, transaction: bool) -> "Pipeline":
        """Returns commands that are run at once."""
        return Pipeline(self)

    def close(self) -> None:
        """There is nothing to close."""


class Pipeline:
    """Commands that are gathered and run one behind the other, with nothing between."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def delete(self, key: str) -> None:
        """Gathers a command."""
        self._commands.append(("DEL", key))

    def hset(self, key: str, mapping: dict[str, str]) -> None:
        """Gathers a command."""
        self._commands.append(("HSET", key, *(part for pair in mapping.items() for part in pair)))

    def execute(self) -> None:
        """Runs them."""
        self._client._call("MULTI", self._commands)


class SidecarRedis:
    """What a sidecar has of its Redis: `RedisServer` without sockets."""

    def __init__(self, net: RedisNet, process: Process) -> None:
        self._net = net
        self._process = process

    def clients(self) -> "AsyncClient":
        """Returns what runs single commands."""
        return AsyncClient(self._net, self._process)

    async def connect(self, _: str) -> "SimLink":
        """Returns an ordered connection."""
        await asyncio.sleep(self._net.latency_s())
        if not self._net.reaches(self._process):
            raise RedisConnectionError("connection refused")
        return SimLink(self._net, self._process)


class AsyncClient:
    """Single commands, each on its own."""

    def __init__(self, net: RedisNet, process: Process) -> None:
        self._net = net
        self._process = process

    async def _call(self, *command: Any) -> Any:
        net, world, process = self._net, self._net.world, self._process
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        fate = net.fate(process)
        if fate == "late":
            net.run_later(command)
            world.after(TIMEOUT_S, process, hear, reply, None, RedisTimeoutError("timed out"))
        else:
            world.after(net.latency_s(), None, self._arrive, command, fate, reply)
        return await reply

    def _arrive(self, command: Sequence[Any], fate: str, reply: asyncio.Future[Any]) -> None:
        net, answer = self._net, None
        error: Exception | None = None
        if fate == "lost before" or not net.reaches(self._process):
            error = RedisConnectionError("connection reset")
        else:
            try:
                answer = net.server.execute(*command)
            except ResponseError as refused:
                error = refused
            if fate == "reply lost":
                error = RedisConnectionError("connection reset by peer")
        net.world.after(net.latency_s(), self._process, hear, reply, answer, error)

    async def at(self, _: str | bytes) -> "AsyncClient":
        """Returns the client of the server that has a key: there is one."""
        return self

    async def homes(self, names: list[str]) -> "list[tuple[AsyncClient, list[str]]]":
        """Returns it with all the keys."""
        return [(self, names)]

    async def hmget(self, key: str, fields: list[str]) -> Any:
        return await self._call("HMGET", key, *fields)

    async def hset(self, key: str, field: str, value: Any) -> Any:
        return await self._call("HSET", key, field, value)

    async def get(self, key: str) -> Any:
        return await self._call("GET", key)

    async def set(self, key: Any, value: Any, *, nx: bool, get: bool, ex: int) -> Any:
        return await self._call("SET", key, value, *(["NX"] * nx), *(["GET"] * get), "EX", ex)

    async def expire(self, key: str, seconds: int) -> Any:
        return await self._call("EXPIRE", key, seconds)

    async def info(self, section: str) -> dict[str, int]:
        await self._call("TIME")  # the way there and back is the same
        return {"used_memory": int(self._net.server.full), "maxmemory": 1}

    async def time(self) -> tuple[int, int]:
        seconds, microseconds = await self._call("TIME")
        return int(seconds), int(microseconds)

    async def evalsha(self, sha: str, count: int, *arguments: Any) -> Any:
        return await self._call("EVALSHA", sha, count, *arguments)

    async def eval(self, text: str, count: int, *arguments: Any) -> Any:
        return await self._call("EVAL", text, count, *arguments)

    async def aclose(self) -> None:
        """There is nothing to close."""


class SimLink:
    """One ordered connection: commands are run in order, replies come in order, until it breaks.

    When it breaks, what was sent and not run yet may still be run later, up to some command: it was in a buffer.
    """

    def __init__(self, net: RedisNet, process: Process) -> None:
        self._net = net
        self._process = process
        self._open = True
        self._cuts = net.cuts
        self._run_at_s = 0.0
        self._heard_at_s = 0.0
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._deaf = False

    async def send(self, command: Sequence[Any]) -> None:
        """Sends a command."""
        net, world = self._net, self._net.world
        fate = net.fate(self._process)
        if not self._open or self._cuts != net.cuts or fate in {"refused", "lost before"}:
            self._break()
            raise ConnectionResetError("the link is closed")
        loop = asyncio.get_running_loop()
        self._replies.append(loop.create_future())
        self._waiting.append(tuple(command))
        if fate in {"reply lost", "late"}:
            self._deaf = True
        self._run_at_s = max(self._run_at_s, world.now_s + net.latency_s())
        world.at(self._run_at_s, None, self._run_one, self._replies[-1])

    def _run_one(self, reply: asyncio.Future[Any]) -> None:
        if not self._waiting:
            return
        net, world = self._net, self._net.world
        if not net.reaches(self._process) or self._cuts != net.cuts:
            self._break()
        if not self._waiting:
            return
        command = self._waiting.popleft()
        try:
            answer, error = net.server.execute(*command), None
        except ResponseError as refused:
            answer, error = None, refused
        if not self._deaf:
            self._heard_at_s = max(self._heard_at_s, world.now_s + net.latency_s())
            world.at(self._heard_at_s, self._process, hear, reply, answer, error)
        elif self._open:
            world.after(
                net.latency_s(), self._process, hear, reply, None, RedisConnectionError("connection reset by peer")
            )

    async def receive(self) -> Any:
        """Returns the next reply."""
        if not self._replies:
            raise ConnectionResetError("the link is closed")
        reply = self._replies.popleft()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await reply
        except ResponseError:
            raise
        except BaseException:
            self._break()
            raise

    async def request(self, *command: Any) -> Any:
        """Sends a command and returns its reply."""
        await self.send(command)
        return await self.receive()

    async def close(self) -> None:
        """Closes the connection."""
        self._break()

    def _break(self) -> None:
        """Ends the connection: of what was not run yet, the server may have the first commands in its buffer."""
        if not self._open:
            return
        self._open = False
        delay_s = 0.0
        while self._waiting:
            command = self._waiting.popleft()
            if not self._net.reaches(self._process) or self._net.world.rng.random() < 0.5:
                self._waiting.clear()
                break
            delay_s += self._net.world.rng.uniform(0.0, ZOMBIE_S / 4)
            self._net.world.counts["redis: command of a broken link run later"] += 1
            self._net.world.after(delay_s, None, self._net._run_unheard, command)
        for reply in self._replies:
            reply.cancel()
        self._replies.clear()
