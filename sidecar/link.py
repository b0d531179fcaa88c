"""The ways to Redis: ordered connections for batches, and clients for single commands beside them.

Nothing here repeats a command (a repeated increment counts twice), and nothing follows a cluster's redirections: after
any error it is looked up anew which server has the key, and whoever uses a link resumes from a position.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from sidecar.contract.scripts import Call
from sidecar.contract.slots import QUESTION, Finder, Servers

CONNECT_TIMEOUT_S: Final = 3
REPLY_TIMEOUT_S: Final = 5
READERS_MAX: Final = 16

LINK_ERRORS: Final = (RedisError, OSError, asyncio.TimeoutError)


@contextmanager
def _as_link_errors() -> Iterator[None]:
    """Say what a connection that goes away under a command means.

    One that another task, or the transport, has closed meanwhile makes the client fail on its own closed objects.
    """
    try:
        yield
    except (AttributeError, RuntimeError) as error:
        raise ConnectionResetError(f"the connection went away: {error}") from error


class Link:
    """A connection that carries many commands at once. Every wait has a deadline; after any error it is closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open = True

    async def send(self, command: Sequence[bytes | str | int]) -> None:
        """Send a command; its reply is the next one after those of all commands sent before."""
        if not self._open or not self._connection.is_connected:
            raise ConnectionResetError("the link is closed")  # the library would connect anew and mix up the replies
        packed = hiredis.pack_command(cast("tuple[bytes]", tuple(command)))  # its types know only tuples of one
        try:
            with _as_link_errors():
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    await self._connection.send_packed_command((packed,), check_health=False)
        except BaseException:
            self._open = False
            raise

    async def receive(self) -> Any:
        """Return the next reply. Raises ResponseError for one that is an error, else one of LINK_ERRORS."""
        try:
            with _as_link_errors():
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    return await self._connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            self._open = False  # a reply that is still to come would be taken for that of the next command
            raise

    async def request(self, *command: bytes | str | int) -> Any:
        """Send a command and return its reply; only while none is under way."""
        await self.send(command)
        return await self.receive()

    async def close(self) -> None:
        """Close the connection at once."""
        self._open = False
        with suppress(*LINK_ERRORS), _as_link_errors():
            await self._connection.disconnect()


async def _open(url: str) -> Connection:
    """Return a new connection to a server. Raises one of LINK_ERRORS."""
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    connection: Any = kind(
        **options,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=REPLY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    with _as_link_errors():
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
    return cast("Connection", connection)


class RedisServer:
    """The Redis of a sidecar, by its URL: where all its connections come from. It may be a cluster."""

    def __init__(self, url: str) -> None:
        self._finder = Finder(url)

    def clients(self) -> "Clients":
        """Return what runs single commands beside the ordered links."""
        return Clients(self)

    async def connect(self, key: str) -> Link:
        """Return a new link to the server that has the key. Raises one of LINK_ERRORS."""
        return Link(await _open(_home(key, await self.look_up())))

    async def look_up(self) -> Servers:
        """Ask where the keys are. Raises one of LINK_ERRORS when nobody answers, TaximeterError `config_invalid`."""
        *others, last = self._finder.candidates()
        for url in others:
            with suppress(*LINK_ERRORS):
                return self._finder.learn(url, await _ask(url))
        return self._finder.learn(last, await _ask(last))


async def _ask(url: str) -> Any:
    """Return what a server says of its cluster, None where it is in none, or does not tell us."""
    connection = await _open(url)
    try:
        with _as_link_errors():
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await connection.send_command(*QUESTION, check_health=False)
                return await connection.read_response()
    except ResponseError:
        return None
    finally:
        await connection.disconnect(nowait=True)


def _home(key: bytes | str, servers: Servers) -> str:
    """Return the address of the server that has the key. Raises one of LINK_ERRORS while there is none."""
    url = servers.url_of(key)
    if url is None:
        raise ConnectionRefusedError(f"no primary of the cluster has the slot of {key!r}")
    return url


class _Client(Redis):
    """A client of one server that says when something went wrong."""

    lost: Callable[[], None]

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            with _as_link_errors():
                return await cast("Any", super()).execute_command(*arguments, **options)
        except LINK_ERRORS:
            self.lost()
            raise


class Clients:
    """Single commands beside the ordered links, each for the server that has its key.

    Connections are bounded, waits have deadlines, and nothing is retried. All methods raise one of LINK_ERRORS.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._servers: Servers | None = None
        self._clients: dict[str, _Client] = {}
        self._looking = asyncio.Lock()

    async def at(self, key: bytes | str) -> Redis:
        """Return a client of the server that has the key."""
        return self._clients[_home(key, await self._where())]

    async def homes(self, keys: Sequence[str]) -> list[tuple[Redis, list[str]]]:
        """Return a client of each server that has some of the keys, and which."""
        servers = await self._where()
        homes: dict[str, list[str]] = {}
        for key in keys:
            homes.setdefault(_home(key, servers), []).append(key)
        return [(self._clients[url], found) for url, found in homes.items()]

    async def _where(self) -> Servers:
        async with self._looking:
            if (servers := self._servers) is None:
                servers = await self._server.look_up()
                for url in self._clients.keys() - set(servers.urls):
                    await self._clients.pop(url).aclose()
                for url in set(servers.urls) - self._clients.keys():
                    self._clients[url] = self._make(url)
                self._servers = servers
            return servers

    def _make(self, url: str) -> _Client:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=READERS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        client = cast("_Client", _Client.from_pool(pool))
        client.lost = self._forget
        return client

    def _forget(self) -> None:
        self._servers = None

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()


async def evaluate(redis: Redis, call: Call) -> Any:
    """Run a script that may be repeated and return its reply. Raises one of LINK_ERRORS."""
    arguments: tuple[Any, ...] = (*call.keys, *call.args)
    try:
        return await redis.evalsha(call.script.sha1, len(call.keys), *arguments)
    except NoScriptError:
        return await redis.eval(call.script.text.decode(), len(call.keys), *arguments)
