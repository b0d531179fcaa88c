"""Journals for the tests: opened, filled, damaged."""

from pathlib import Path

from sidecar.chain import ShardJournal
from sidecar.contract.scripts import Step
from sidecar.journal import Journal
from sidecar.segment import HEADER_BYTES

LEDGER = "ledger-1"


def open_journal(
    directory: Path, *, shards: int = 1, bytes_max: int = 1 << 20, segment_bytes: int = 1 << 16
) -> Journal:
    """Returns the journal of a directory, bound to the ledger."""
    journal = Journal(directory, bytes_max=bytes_max, segment_bytes=segment_bytes)
    journal.bind(LEDGER, shards)
    return journal


def record(number: int, size: int = 20) -> bytes:
    """Returns the record with this number; records are of any bytes."""
    return f"record {number} ".encode().ljust(size, b".")


def fill(shard: ShardJournal, count: int, first: int = 1, size: int = 20) -> list[Step]:
    """Appends records, each of one event of as many nanos as its number."""
    return [shard.append(record(number, size), 1, number) for number in range(first, first + count)]


def framed_bytes(size: int = 20) -> int:
    """Returns how much a record takes in the file."""
    return HEADER_BYTES + size


def held(directory: Path) -> list[Step]:
    """Opens a journal and returns every step of its only shard."""
    journal = open_journal(directory)
    (shard,) = journal.shards
    try:
        return list(shard.steps_after(shard.first.position.sequence))
    finally:
        journal.close()


def segments(directory: Path, shard: int = 0) -> list[Path]:
    """Returns the segment files of a shard, in order."""
    return sorted(directory.glob(f"{shard:04d}-*.segment"))


def contents(directory: Path) -> dict[str, bytes]:
    """Returns all files of a journal."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}
