"""Serves API and stream: bounded connections, no decompression, and a stop that finishes what it began.

aiohttp reads and answers HTTP, but for the usual request (`sidecar.direct`).
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import aiohttp.http_parser
from aiohttp import web

from sidecar import answers
from sidecar.api import Api
from sidecar.contract.codes import TaximeterError
from sidecar.direct import Desk, wire
from sidecar.guard import Guard
from sidecar.stream import Stream
from sidecar.taking import Submission

KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 2.0  # how long an unread body is thrown away before its connection is closed
FINISH_S: Final = 10.0
_CLOSE_S: Final = 1.0

_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "keepalive_timeout": KEEPALIVE_S,
    "lingering_time": LINGER_S,
    "auto_decompress": False,
}

_log = logging.getLogger(__name__)


def check_parser() -> None:
    """Raise TaximeterError `config_invalid` unless aiohttp's parser in C, which is the strict one, is in use."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise TaximeterError(
            "config_invalid", "aiohttp runs without its C parser; unset AIOHTTP_NO_EXTENSIONS, install its wheel"
        )


class Serving:
    """The listeners of one API and of the stream, at most `connections_max` connections over all of them."""

    def __init__(self, api: Api, stream: Stream, connections_max: int) -> None:
        self._api = api
        self._stream = stream
        self._connections_max = connections_max
        self._servers: list[web.Server] = []
        self._listeners: list[asyncio.Server] = []

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._stream.connections + sum(len(server.connections) for server in self._servers)

    def _may_accept(self) -> bool:
        return self.connections < self._connections_max

    async def listen_stream(self, bound: socket.socket) -> None:
        """Serve the stream on a listening Unix socket."""
        await self._stream.listen(bound, self._may_accept)

    async def listen(self, bound: socket.socket, guard: Guard | None) -> None:
        """Serve a listening socket."""
        server = _Server(partial(self._api.handle, guard=guard), Desk(self._api, guard))
        self._servers.append(server)
        loop = asyncio.get_running_loop()
        accept = partial(self._accept, server)
        if bound.family == socket.AF_UNIX:
            self._listeners.append(await loop.create_unix_server(accept, sock=bound))
        else:
            self._listeners.append(await loop.create_server(accept, sock=bound))

    def _accept(self, server: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        return server() if self._may_accept() else _Refuser()

    async def stop(self) -> None:
        """Accept no more connections, answer what is being worked on, and close the rest."""
        for listener in self._listeners:
            listener.close()
        await asyncio.gather(self._api.finish(FINISH_S), self._stream.stop(FINISH_S))
        for server in self._servers:
            server.pre_shutdown()
            await server.shutdown(_CLOSE_S)


class _Connection(web.RequestHandler):
    """A connection that takes usual requests to the desk, and leaves all other HTTP to aiohttp.

    What can't be read is answered with a problem that repeats nothing of it, and neither does the log.
    """

    __slots__ = ("_answering", "_desk", "_held", "_is_usual")

    def __init__(self, server: "_Server", desk: Desk) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **_OPTIONS)
        self._desk = desk
        self._is_usual = True
        self._answering: asyncio.Task[None] | None = None
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Take what came: one usual request, or something for aiohttp, which gets the connection for good then."""
        if self._answering is not None:
            self._held += data
            if self.transport is not None:
                self.transport.pause_reading()
            return
        usual = self._desk.understand(data) if self._is_usual and not self.writing_paused else None
        if usual is None:
            self._is_usual = False
            super().data_received(data)
        else:
            self._answering = self._loop.create_task(self._answer(*usual))

    def _keep(self) -> None:
        """Count from now on how long the connection is idle; aiohttp knows only of requests that it was given."""
        self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_S

    def _process_keepalive(self) -> None:
        if self._answering is not None:
            self._keep()
        super()._process_keepalive()

    async def _answer(self, submission: Submission, body: bytes) -> None:
        answer = await self._desk.api.take(submission, body)
        self._answering = None
        if self.transport is None:
            return  # the client has left
        self.transport.write(wire(answer))
        if answer.close:
            self.transport.close()
            return
        self._keep()
        if self._held:
            held, self._held = self._held, b""
            self.transport.resume_reading()
            self.data_received(held)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that could not be read, or that no handler answered."""
        del message  # it repeats what was sent
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: another one can't be sent")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("a request failed", exc_info=exc)
            fault = answers.problem("internal", "a fault of the sidecar; its log says more")
            return fault._replace(close=True).response()
        _log.debug("a request is no HTTP that can be read")
        detail = "request: expected HTTP/1.1 that can be read in one way only"
        return answers.problem("body_invalid", detail, status=status)._replace(close=True).response()


class _Server(web.Server):
    """A server of such connections."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], desk: Desk) -> None:
        super().__init__(handler)
        self._desk = desk

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._desk)


class _Refuser(asyncio.Protocol):
    """Answers a connection above the limit and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        answer = answers.problem("overloaded", "too many connections; try again", status=503)
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        )
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(head.encode() + answer.body)
        transport.close()
