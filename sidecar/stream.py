"""The stream socket: many batches in flight on one connection, each answered by its number (`sidecar/STREAM.md`).

What can't be taken now is not read: a connection with too much unanswered, and every connection while too many bytes
are worked on, waits in the kernel's buffers and not in ours. A frame that was begun has room for all of it.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from sidecar import frames
from sidecar.contract.codes import TaximeterError
from sidecar.errors import RETRY_AFTER_S, Unavailable
from sidecar.frames import BatchAnswer, BatchRefusal, EventResult, Goodbye, Limits
from sidecar.intake import Intake
from sidecar.metrics import Metrics
from sidecar.queries import check_idempotency_key
from sidecar.raw import reason
from sidecar.taking import KEY_REUSED, Submission, Taken, Taking

MEDIA_TYPE: Final = "application/msgpack"
UNANSWERED_BATCHES_MAX: Final = 64

_BUFFER_BYTES: Final = 1 << 16
_log = logging.getLogger(__name__)


class Rules(NamedTuple):
    """What every connection keeps to: what it is told, a body's size, and how long a frame may take to arrive."""

    limits: Limits
    body_bytes_max: int
    read_deadline_s: float


def rules_of(*, body_bytes_max: int, waiting_bytes_max: int, request_events_max: int, read_deadline_s: float) -> Rules:
    """Return the rules that follow from the limits of HTTP."""
    frame_bytes_max = body_bytes_max + frames.OVERHEAD_BYTES
    unanswered_bytes_max = max(frame_bytes_max, min(4 * frame_bytes_max, waiting_bytes_max))
    limits = Limits(frame_bytes_max, request_events_max, UNANSWERED_BATCHES_MAX, unanswered_bytes_max)
    return Rules(limits, body_bytes_max, read_deadline_s)


class Stream:
    """Every connection of the stream socket."""

    def __init__(self, taking: Taking, intake: Intake, metrics: Metrics, rules: Rules) -> None:
        self.taking = taking
        self.intake = intake
        self.metrics = metrics
        self.rules = rules
        self._open: dict[_Connection, asyncio.Task[None]] = {}
        self._listener: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def listen(self, bound: socket.socket, may_accept: Callable[[], bool]) -> None:
        """Serve a listening Unix socket; `may_accept` says whether there may be another connection."""
        accept = partial(self._accept, may_accept)
        self._listener = await asyncio.start_unix_server(accept, sock=bound, limit=_BUFFER_BYTES)

    def _accept(
        self, may_accept: Callable[[], bool], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not may_accept():
            writer.write(frames.frame(Goodbye("overloaded", "too many connections; try again")))
            writer.close()
            return
        connection = _Connection(self, reader, writer)
        task = asyncio.create_task(connection.run())
        self._open[connection] = task
        task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: "_Connection", task: asyncio.Task[None]) -> None:
        del self._open[connection]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a stream connection failed", exc_info=error)
            connection.abort()

    async def stop(self, deadline_s: float) -> None:
        """Read nothing more, answer what was read, say goodbye, and close; but not later than this."""
        if self._listener is not None:
            self._listener.close()
        if not self._open:
            return
        for task in self._open.values():
            task.cancel()
        _, late = await asyncio.wait(self._open.values(), timeout=deadline_s)
        if late:
            for connection in tuple(self._open):
                connection.abort()


class _Connection:
    """One client."""

    def __init__(self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = stream
        self._rules = stream.rules
        self._reader = reader
        self._writer = writer
        self._working: set[asyncio.Task[Taken]] = set()
        self._unanswered_bytes = 0
        self._answered_one = asyncio.Event()

    def abort(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()

    async def run(self) -> None:
        """Serve it until it is closed. What was read by then is seen through and answered."""
        goodbye: Goodbye | None = None
        try:
            await self._greet()
            while True:
                await self._next_batch()
        except TaximeterError as error:
            goodbye = Goodbye(error.code, error.message)
        except asyncio.CancelledError:
            goodbye = Goodbye("stopping", "the sidecar is stopping; connect again")
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        if self._working:
            await asyncio.wait(self._working)
        await self._close(goodbye)

    async def _close(self, goodbye: Goodbye | None) -> None:
        if goodbye is not None:
            self._writer.write(frames.frame(goodbye))
        self._writer.close()
        try:
            async with asyncio.timeout(self._rules.read_deadline_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()  # who reads nothing does not keep what was written for it

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(self._rules.read_deadline_s):
                hello = _decoded(await self._reader.readexactly(self._size(await self._reader.readexactly(4))))
        except TimeoutError as error:
            raise self._late("a hello") from error
        if not isinstance(hello, frames.ClientHello):
            raise TaximeterError("body_invalid", "frame: expected a hello first")
        if frames.PROTOCOL_VERSION not in hello.versions:
            raise TaximeterError(
                "protocol_unsupported", f"hello: expected version {frames.PROTOCOL_VERSION} among those of the client"
            )
        self._writer.write(frames.frame(frames.ServerHello(frames.PROTOCOL_VERSION, self._rules.limits)))

    def _size(self, head: bytes) -> int:
        size = int.from_bytes(head, "big")
        if size > self._rules.limits.frame_bytes_max:
            raise TaximeterError(
                "body_too_large", f"frame: expected at most {self._rules.limits.frame_bytes_max} bytes, got {size}"
            )
        return size

    def _late(self, what: str) -> TaximeterError:
        return TaximeterError("read_timeout", f"frame: expected {what} within {self._rules.read_deadline_s:g} s")

    async def _next_batch(self) -> None:
        first = await self._reader.readexactly(1)  # an idle connection may stay as long as it likes
        try:
            async with asyncio.timeout(self._rules.read_deadline_s):
                size = self._size(first + await self._reader.readexactly(frames.HEAD_BYTES - 1))
                await self._writer.drain()  # who does not read answers is not read either
        except TimeoutError as error:
            raise self._late("the rest of it, and answers to be read,") from error
        await self._until_answered(size)
        await self._stream.intake.hold(size)
        try:
            async with asyncio.timeout(self._rules.read_deadline_s):
                batch = _batch(await self._reader.readexactly(size))
        except BaseException as error:
            self._stream.intake.release(size)
            if isinstance(error, TimeoutError):
                raise self._late("all of it") from error
            raise
        self._stream.intake.release(size - len(batch.body))
        self._begin(batch, size)

    async def _until_answered(self, size: int) -> None:
        limits = self._rules.limits
        while len(self._working) >= limits.unanswered_batches_max or (
            self._working and self._unanswered_bytes + size > limits.unanswered_bytes_max
        ):
            self._answered_one.clear()
            await self._answered_one.wait()

    def _begin(self, batch: frames.Batch, size: int) -> None:
        task = asyncio.create_task(self._take(batch))
        self._working.add(task)
        self._unanswered_bytes += size
        task.add_done_callback(partial(self._answer, batch.number, size, time.perf_counter()))

    async def _take(self, batch: frames.Batch) -> Taken:
        try:
            self._check(batch)
        except TaximeterError:
            self._stream.intake.release(len(batch.body))
            raise
        return await self._stream.taking.take(Submission(MEDIA_TYPE, batch.key), batch.body)

    def _check(self, batch: frames.Batch) -> None:
        if batch.key is not None:
            check_idempotency_key(batch.key)
        if len(batch.body) > self._rules.body_bytes_max:
            raise TaximeterError(
                "body_too_large", f"body: expected at most {self._rules.body_bytes_max} bytes; send it in parts"
            )

    def _answer(self, number: int, size: int, began_at: float, task: asyncio.Task[Taken]) -> None:
        error = task.exception()
        message = _answer_of(number, task.result()) if error is None else _refusal_of(number, error)
        code = message.status if isinstance(message, BatchAnswer) else message.code
        self._stream.metrics.batch_answered(code)
        self._stream.metrics.request_seconds.observe(time.perf_counter() - began_at)
        self._working.discard(task)
        self._unanswered_bytes -= size
        self._answered_one.set()
        if not self._writer.is_closing():
            self._writer.write(frames.frame(message))


def _decoded(payload: bytes) -> frames.FromClient:
    try:
        return frames.decode_from_client(payload)
    except frames.UNREADABLE as error:
        raise TaximeterError("body_invalid", f"frame: can't be read: {reason(error)}") from None


def _batch(payload: bytes) -> frames.Batch:
    decoded = _decoded(payload)
    if not isinstance(decoded, frames.Batch):
        raise TaximeterError("body_invalid", "frame: expected a batch")
    return decoded


def _answer_of(number: int, taken: Taken) -> BatchAnswer | BatchRefusal:
    if taken.receipt.reused:
        return BatchRefusal(number, "idempotency_key_reused", f"key: {KEY_REUSED}", None)
    outcome = taken.outcome
    return BatchAnswer(
        number,
        "applied" if taken.receipt.applied else "journaled",
        outcome.accepted,
        outcome.duplicates,
        outcome.conflicts,
        outcome.rejected,
        [EventResult(each.index, each.id, each.code, each.message or None) for each in outcome.results],
    )


def _refusal_of(number: int, error: BaseException) -> BatchRefusal:
    if isinstance(error, Unavailable):
        return BatchRefusal(number, error.code, error.message, error.retry_after_s)
    if isinstance(error, TaximeterError):
        return BatchRefusal(number, error.code, error.message, None)
    _log.error("a batch failed", exc_info=error)
    return BatchRefusal(number, "internal", "a fault of the sidecar; its log says more", RETRY_AFTER_S)
