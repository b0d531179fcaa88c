"""Takes bodies off the wire: within a size, within a deadline, and within what all of them may hold."""

import asyncio
from collections import deque
from typing import Final

from aiohttp import web

from sidecar.contract.codes import TaximeterError
from sidecar.errors import Unavailable

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Intake:
    """Reads bodies. `waiting_bytes` is what is held by now; what was read is given back with `release`.

    HTTP reads and refuses what is too much, the stream socket waits with `hold` before it reads.
    """

    def __init__(self, *, body_bytes_max: int, waiting_bytes_max: int, read_deadline_s: float) -> None:
        self.waiting_bytes = 0
        self.body_bytes_max = body_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        self._read_deadline_s = read_deadline_s
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the body. The caller releases its size when it is done with it.

        Raises TaximeterError `content_encoding_unsupported`, `body_too_large`, `body_invalid` when it breaks off,
        `read_timeout`, and Unavailable `overloaded`; then nothing is held.
        """
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise TaximeterError(
                "content_encoding_unsupported", f"Content-Encoding: expected none, got {encoding[:40]!r}; send it plain"
            )
        if (request.content_length or 0) > self.body_bytes_max:
            raise self._too_large()
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(_CONTINUE)
            request.writer.output_size = 0
        chunks: list[bytes] = []
        try:
            if request.content.is_eof():  # it came with its head: nothing to wait for
                await self._collect(request, chunks)
            else:
                async with asyncio.timeout(self._read_deadline_s):
                    await self._collect(request, chunks)
        except BaseException as error:
            self.release(sum(map(len, chunks)))
            if isinstance(error, TimeoutError):
                raise TaximeterError(
                    "read_timeout", f"body: expected all of it within {self._read_deadline_s:g} s"
                ) from error
            if isinstance(error, OSError | web.RequestPayloadError):
                raise TaximeterError("body_invalid", "body: expected all of it, but it broke off") from error
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _collect(self, request: web.BaseRequest, chunks: list[bytes]) -> None:
        size = 0
        while chunk := await request.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            self.waiting_bytes += len(chunk)
            if size > self.body_bytes_max:
                raise self._too_large()
            self._check_room()

    def admit(self, size: int) -> None:
        """Take the room of a body that is here already. Raises Unavailable `overloaded`; then nothing is held."""
        self.waiting_bytes += size
        try:
            self._check_room()
        except Unavailable:
            self.release(size)
            raise

    def _check_room(self) -> None:
        if self.waiting_bytes > self._waiting_bytes_max:
            raise Unavailable("overloaded", "too many bodies are being worked on; try again")

    async def hold(self, size: int) -> None:
        """Wait until there is room for so many bytes, first come first served, and take it."""
        if not self._queue and self.waiting_bytes + size <= self._waiting_bytes_max:
            self.waiting_bytes += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            raise

    def release(self, size: int) -> None:
        """Give back the room of a body."""
        self.waiting_bytes -= size
        while self._queue:
            turn, wanted = self._queue[0]
            if not turn.done():
                if self.waiting_bytes and self.waiting_bytes + wanted > self._waiting_bytes_max:
                    return
                self.waiting_bytes += wanted
                turn.set_result(None)
            self._queue.popleft()

    def _too_large(self) -> TaximeterError:
        return TaximeterError("body_too_large", f"body: expected at most {self.body_bytes_max} bytes; send it in parts")
