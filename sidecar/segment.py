"""One file of the journal: records one behind the other, each with its length, its checksum and its counts.

A record is what one call to `fdatasync` made durable. So at most the last one of a file can be torn, and a damaged
record with a whole one behind it is damage, never a tear.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_next
from sidecar.contract.scripts import Step
from sidecar.disk import Disk
from sidecar.errors import JournalError

MAGIC: Final = b"TMJ1"
_HEADER: Final = struct.Struct(">4sIII16s")  # magic, length, CRC32 of all behind it, events, nanos (signed)
HEADER_BYTES: Final = _HEADER.size
_CRC_FROM: Final = 12
RECORD_BYTES_MAX: Final = 256 * 1024 * 1024
CHUNK_BYTES: Final = 4 * 1024 * 1024


class Start(NamedTuple):
    """What stands before a segment's first record: the position and the running count."""

    position: Position
    running: Running


def frame(record: bytes, events: int, nanos: int) -> bytes:
    """Return `record` as it stands in the file, with the number of its events and the sum of their units."""
    rest = struct.pack(">I16s", events, nanos.to_bytes(16, "big", signed=True))
    checksum = zlib.crc32(record, zlib.crc32(rest))
    return b"".join((MAGIC, len(record).to_bytes(4, "big"), checksum.to_bytes(4, "big"), rest, record))


def link(start: Start, record: bytes, events: int, nanos: int) -> Step:
    """Return the step of the chain that `record` makes behind `start`."""
    after = Position(start.position.sequence + 1, chain_next(start.position.digest, record))
    return Step(start.position, after, start.running.plus(events, nanos), record)


class Cursor:
    """Reads a segment's records in order, from the start of the file, without loading it whole."""

    def __init__(self, disk: Disk, path: Path, start: Start) -> None:
        self.path = path
        self.offset = 0
        self.start = start
        self._disk = disk

    def steps(self, most_bytes: int = CHUNK_BYTES) -> Iterator[Step]:
        """Yield steps from here on, up to about `most_bytes` of records; the next call goes on behind them.

        Ends early at the first record that is not whole: `offset` says where.
        """
        with self._disk.reader(self.path) as file:
            file.seek(self.offset)
            taken = 0
            while taken < most_bytes:
                found = _read_record(file.read(HEADER_BYTES), file)
                if found is None:
                    return
                record, events, nanos = found
                step = link(self.start, record, events, nanos)
                self.start = Start(step.after, step.running)
                self.offset += HEADER_BYTES + len(record)
                taken += HEADER_BYTES + len(record)
                yield step


def _read_record(header: bytes, file: BinaryIO) -> tuple[bytes, int, int] | None:
    if len(header) < HEADER_BYTES:
        return None
    magic, length, checksum, events, nanos = _HEADER.unpack(header)
    if magic != MAGIC or length > RECORD_BYTES_MAX:
        return None
    record = file.read(length)
    if len(record) < length or zlib.crc32(record, zlib.crc32(header[_CRC_FROM:])) != checksum:
        return None
    return record, events, int.from_bytes(nanos, "big", signed=True)


def scan(disk: Disk, path: Path, start: Start, *, last: bool) -> Start:
    """Check every record of a segment and return what stands behind its last one.

    In the `last` segment of a shard a torn tail is cut off. Raises JournalError `journal_corrupt` for damage anywhere
    else: it is never skipped, because what it held was acknowledged.
    """
    cursor = Cursor(disk, path, start)
    size = disk.size(path)
    while cursor.offset < size:
        before = cursor.offset
        for _ in cursor.steps():
            pass
        if cursor.offset == before:
            break
    if cursor.offset < size:
        if not last or any(records(disk.read(path)[cursor.offset + 1 :])):
            raise JournalError(
                "journal_corrupt",
                f"{path.name}: the record at byte {cursor.offset} (sequence {cursor.start.position.sequence + 1}) is "
                "damaged and acknowledged records stand behind it; nothing was changed. Restore the file from a copy, "
                "or see `taximeter journal repair`",
            )
        _cut(disk, path, cursor.offset)
    return cursor.start


def _cut(disk: Disk, path: Path, size: int) -> None:
    descriptor = disk.appender(path)
    try:
        disk.truncate(descriptor, size)
    finally:
        disk.close(descriptor)


def records(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield where every whole record of a segment's bytes begins and ends."""
    file = BytesIO(content)
    at = content.find(MAGIC)
    while at >= 0:
        file.seek(at)
        if _read_record(file.read(HEADER_BYTES), file) is None:
            at = content.find(MAGIC, at + 1)
        else:
            yield at, file.tell()
            at = content.find(MAGIC, file.tell())
