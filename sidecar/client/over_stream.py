"""Batches over the stream socket: many at a time on one connection (`sidecar/STREAM.md`)."""

import socket
import time
from typing import Final

from sidecar.client.backlog import Batch
from sidecar.client.link import LinkError, connected
from sidecar.client.tally import Later, Refused, Result, Settled, Verdict
from sidecar.frames import (
    HEAD_BYTES,
    OVERHEAD_BYTES,
    PROTOCOL_VERSION,
    UNREADABLE,
    BatchAnswer,
    BatchRefusal,
    ClientHello,
    FromServer,
    Goodbye,
    Limits,
    ServerHello,
    decode_from_server,
    frame,
)
from sidecar.frames import Batch as BatchFrame

ANSWER_BYTES_MAX: Final = 16 << 20

_CHUNK_BYTES: Final = 1 << 16
_UNANSWERED_MAX: Final = 16  # more would gain nothing, and wait again after an interruption


class StreamLink:
    """A connection to the stream socket; a `Link`."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        """Say hello. Raises LinkError."""
        self._socket = connection
        self._timeout_s = timeout_s
        self._received = bytearray()
        self._numbers = 0
        self._heard_at_s = 0.0
        self._unanswered: dict[int, tuple[Batch, float]] = {}
        self._unanswered_bytes = 0
        try:
            self._limits = self._greet()
        except OSError as error:
            connection.close()
            raise LinkError(f"no hello: {error}") from error
        except LinkError:
            connection.close()
            raise
        self.events_max = self._limits.batch_events_max
        self.bytes_max = self._limits.frame_bytes_max - OVERHEAD_BYTES

    def _greet(self) -> Limits:
        self._socket.sendall(frame(ClientHello([PROTOCOL_VERSION])))
        while not (frames := self._frames()):
            self._read()
        hello = frames[0]
        if not isinstance(hello, ServerHello):
            raise _unexpected(hello)
        return hello.limits

    @property
    def unanswered(self) -> list[Batch]:
        """The batches that were sent and not answered, oldest first."""
        return [batch for batch, _ in self._unanswered.values()]

    @property
    def has_room(self) -> bool:
        """Whether the sidecar would read another batch now."""
        return (
            len(self._unanswered) < min(_UNANSWERED_MAX, self._limits.unanswered_batches_max)
            and self._unanswered_bytes + self._limits.frame_bytes_max <= self._limits.unanswered_bytes_max
        )

    @property
    def deadline_s(self) -> float | None:
        """When the next answer is overdue: batches wait for each other, so each answer gives the others time."""
        for _, sent_at_s in self._unanswered.values():
            return max(sent_at_s, self._heard_at_s) + self._timeout_s
        return None

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._socket.fileno()

    def send(self, batch: Batch) -> None:
        """Send a batch. Raises LinkError."""
        self._numbers += 1
        self._unanswered[self._numbers] = (batch, time.monotonic())
        self._unanswered_bytes += len(batch.body)
        try:
            self._socket.sendall(frame(BatchFrame(self._numbers, batch.key, batch.body)))
        except OSError as error:
            raise LinkError(f"a batch broke off: {error}") from error

    def receive(self) -> list[tuple[Batch, Verdict]]:
        """Return the answers that are there. Raises LinkError, but only once nothing that was answered is left."""
        try:
            self._read()
        except OSError as error:
            raise LinkError(str(error)) from error
        return [self._answered(message) for message in self._frames()]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _read(self) -> None:
        chunk = self._socket.recv(_CHUNK_BYTES)
        if not chunk:
            raise ConnectionResetError("the sidecar closed the connection")
        self._received += chunk
        self._heard_at_s = time.monotonic()

    def _frames(self) -> list[FromServer]:
        """Return the whole messages that were received. Raises LinkError."""
        messages: list[FromServer] = []
        at = 0
        while len(self._received) - at >= HEAD_BYTES:
            begin = at + HEAD_BYTES
            size = int.from_bytes(self._received[at:begin], "big")
            if size > ANSWER_BYTES_MAX:
                raise LinkError(f"an answer of {size} bytes, expected at most {ANSWER_BYTES_MAX}")
            if len(self._received) - begin < size:
                break
            at = begin + size
            try:
                messages.append(decode_from_server(bytes(self._received[begin:at])))
            except UNREADABLE as error:
                raise LinkError(f"an answer can't be read: {error}") from error
        del self._received[:at]
        return messages

    def _answered(self, message: FromServer) -> tuple[Batch, Verdict]:
        if not isinstance(message, BatchAnswer | BatchRefusal) or message.number not in self._unanswered:
            raise _unexpected(message)
        batch, _ = self._unanswered.pop(message.number)
        self._unanswered_bytes -= len(batch.body)
        if isinstance(message, BatchAnswer):
            results = [Result(each.index, each.code, each.message or "") for each in message.results]
            results = [result for result in results if result.index < batch.count]
            counts = (message.accepted, message.duplicates or 0, message.conflicts or 0, message.rejected)
            return batch, Settled(*counts, results)
        if message.retry_after_s is None:
            return batch, Refused(message.code, message.message)
        return batch, Later(f"{message.code}: {message.message}", float(message.retry_after_s))


def _unexpected(message: FromServer) -> LinkError:
    if isinstance(message, Goodbye):
        return LinkError(f"{message.code}: {message.message}")
    return LinkError(f"expected an answer, got {type(message).__name__}")


def stream_link(path: str, timeout_s: float) -> StreamLink:
    """Connect to the stream socket at `path`. Raises LinkError."""
    try:
        return StreamLink(connected(path, timeout_s), timeout_s)
    except OSError as error:
        raise LinkError(f"can't connect to {path}: {error.strerror or error}") from error
