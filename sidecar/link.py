"""One ordered connection to the Redis of a shard: commands go out in order, replies come back in order.

Nothing here repeats a command (a repeated increment counts twice); whoever uses a link resumes from a position.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from sidecar.contract.scripts import Call

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


class _Client(Redis):
    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        with _as_link_errors():
            return await cast("Any", super()).execute_command(*arguments, **options)


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


class RedisServer:
    """The Redis of a sidecar, by its address: where all its connections come from."""

    def __init__(self, url: str) -> None:
        self._url = url

    def client(self) -> Redis:
        """Return a client for reads beside the ordered links: bounded connections, deadlines, no retry of its own."""
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=READERS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return _Client.from_pool(pool)

    async def connect(self) -> Link:
        """Return a new link. Raises one of LINK_ERRORS."""
        options: dict[str, Any] = dict(parse_url(self._url))
        kind = options.pop("connection_class", Connection)
        connection = kind(
            **options,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        with _as_link_errors():
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
        return Link(connection)


async def evaluate(redis: Redis, call: Call) -> Any:
    """Run a script that may be repeated and return its reply. Raises one of LINK_ERRORS."""
    arguments: tuple[Any, ...] = (*call.keys, *call.args)
    try:
        return await redis.evalsha(call.script.sha1, len(call.keys), *arguments)
    except NoScriptError:
        return await redis.eval(call.script.text.decode(), len(call.keys), *arguments)
