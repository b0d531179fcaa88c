"""Readers of the encoded forms that share no code with the product: the msgpack library, struct, zlib and json."""

import struct
import zlib
from collections.abc import Callable
from hashlib import blake2b
from importlib import import_module
from typing import Any, NamedTuple

_msgpack = import_module("msgpack")  # it has no types
pack: Callable[[Any], bytes] = _msgpack.packb


def unpack(record: bytes) -> Any:
    """Returns the value of msgpack bytes, arrays as tuples."""
    return _msgpack.unpackb(record, use_list=False)


class Framed(NamedTuple):
    """A record of a journal segment with what its frame says."""

    events: int
    nanos: int
    record: bytes


def read_segment(content: bytes) -> list[Framed]:
    """Returns the records of a journal segment, by README.md's table."""
    found: list[Framed] = []
    at = 0
    while at < len(content):
        assert content[at : at + 4] == b"TMJ1"
        length, checksum, events = struct.unpack_from(">III", content, at + 4)
        rest = content[at + 12 : at + 32 + length]
        assert zlib.crc32(rest) == checksum
        assert len(rest) == 20 + length
        found.append(Framed(events, int.from_bytes(rest[4:20], "big", signed=True), rest[20:]))
        at += 32 + length
    return found


def chained(start: bytes, records: list[bytes]) -> bytes:
    """Returns the digest of a chain behind `records`, given the one before them."""
    for record in records:
        start = blake2b(start + record, digest_size=16, person=b"chain").digest()
    return start
