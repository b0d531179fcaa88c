"""The frames of the stream socket, both ways; `sidecar/STREAM.md` describes them. Pure.

A frame is its length in 4 bytes, big-endian, and so many bytes of msgpack: an array whose first element says what it
is. Who reads one passes over elements that it does not know, so that later versions may add some.
"""

from collections.abc import Callable
from typing import Final

import msgspec

PROTOCOL_VERSION: Final = 1
HEAD_BYTES: Final = 4
OVERHEAD_BYTES: Final = 1024  # of a frame, beside the body that it carries

HELLO, BATCH, ANSWER, REFUSAL, GOODBYE = range(5)


class Limits(msgspec.Struct, frozen=True):
    """What a connection takes: bytes behind a frame's head, events in a batch, and batches and bytes unanswered."""

    frame_bytes_max: int
    batch_events_max: int
    unanswered_batches_max: int
    unanswered_bytes_max: int


class ClientHello(msgspec.Struct, array_like=True, tag=HELLO, frozen=True):
    """The first frame of a client: the versions that it speaks."""

    versions: list[int]


class Batch(msgspec.Struct, array_like=True, tag=BATCH, frozen=True, gc=False):
    """Events: a number of the client's choice, an idempotency key or null, and a body as HTTP takes it in msgpack."""

    number: int
    key: str | None
    body: bytes


class ServerHello(msgspec.Struct, array_like=True, tag=HELLO, frozen=True):
    """The first frame of a sidecar: the version that is spoken from here on, and the limits."""

    version: int
    limits: Limits


class EventResult(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of an event that was not simply accepted: as in an answer over HTTP."""

    index: int
    id: str | None
    code: str
    message: str | None


class BatchAnswer(msgspec.Struct, array_like=True, tag=ANSWER, frozen=True):
    """A batch is accepted: `applied` or `journaled`, and the counts and results of an answer over HTTP."""

    number: int
    status: str
    accepted: int
    duplicates: int | None
    conflicts: int | None
    rejected: int
    results: list[EventResult]


class BatchRefusal(msgspec.Struct, array_like=True, tag=REFUSAL, frozen=True):
    """Nothing of a batch is accepted. With `retry_after_s` it may be sent again, the same bytes under the same key."""

    number: int
    code: str
    message: str
    retry_after_s: int | None


class Goodbye(msgspec.Struct, array_like=True, tag=GOODBYE, frozen=True):
    """The last frame of a sidecar: why it closes the connection."""

    code: str
    message: str


FromClient = ClientHello | Batch
FromServer = ServerHello | BatchAnswer | BatchRefusal | Goodbye

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
decode_from_client: Callable[[bytes], FromClient] = msgspec.msgpack.Decoder(FromClient).decode
decode_from_server: Callable[[bytes], FromServer] = msgspec.msgpack.Decoder(FromServer).decode
_encode = msgspec.msgpack.Encoder().encode


def frame(message: FromClient | FromServer) -> bytes:
    """Return a message as a frame."""
    payload = _encode(message)
    return len(payload).to_bytes(HEAD_BYTES, "big") + payload
