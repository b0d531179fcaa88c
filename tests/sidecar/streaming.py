"""A client of the stream socket that shares no code with ours: sockets, struct, and another msgpack."""

import asyncio
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.contract.independent import pack, unpack

HELLO = (0, [1])
EVENT = {"user_id": "cus_1", "event_type": "api_call"}


def framed(*message: object) -> bytes:
    """Returns a message as a frame."""
    payload = pack(message)
    return struct.pack(">I", len(payload)) + payload


class Stream:
    """One connection."""

    def __init__(self, path: Path, buffer_bytes: int = 1 << 24) -> None:
        self.path = path
        self.buffer_bytes = buffer_bytes

    async def __aenter__(self) -> "Stream":
        self.reader, self.writer = await asyncio.open_unix_connection(str(self.path), limit=self.buffer_bytes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def send(self, *message: object) -> None:
        """Sends a frame."""
        self.writer.write(framed(*message))

    def batch(self, number: int, *events: object, key: str | None = None, body: bytes | None = None) -> None:
        """Sends a batch."""
        self.send(1, number, key, pack(list(events)) if body is None else body)

    async def greet(self) -> dict[str, int]:
        """Says hello and returns the limits."""
        self.send(*HELLO)
        kind, version, limits = await self.receive()
        assert (kind, version) == (0, 1)
        return dict(limits)

    async def receive(self) -> list[Any]:
        """Returns the next message. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(20):
            (size,) = struct.unpack(">I", await self.reader.readexactly(4))
            message: list[Any] = _listed(unpack(await self.reader.readexactly(size)))
        return message

    async def ended(self) -> bool:
        """Waits until the sidecar closes the connection; says whether nothing more came."""
        async with asyncio.timeout(20):
            with suppress(ConnectionResetError):
                return await self.reader.read() == b""
        return True


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
