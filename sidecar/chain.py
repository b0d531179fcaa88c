"""The records of one shard in the journal: a chain, in segment files, appended to and read again (rules 1, 8 and 12).

Blocking. At most one `append` runs at a time, and none while the chain gets new numbers.
"""

import errno
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Final, Protocol

from sidecar import manifest as manifests
from sidecar.contract.codec import Position
from sidecar.contract.scripts import Step
from sidecar.disk import Disk
from sidecar.errors import JournalError, Unavailable
from sidecar.segment import Cursor, Start, frame, link, scan

SUFFIX: Final = ".segment"
DIGESTS_KEPT: Final = 65_536

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """What a chain needs of the journal that it is kept in."""

    disk: Disk
    directory: Path
    segment_bytes: int
    lock: RLock

    def make_room(self, wanted: int) -> None:
        """Give up what Postgres has until `wanted` bytes fit. Raises Unavailable `journal_full`."""

    def store_manifest(self) -> None:
        """Write the manifest with the chains as they begin now. Raises OSError."""


@dataclass(slots=True)
class _Segment:
    path: Path
    start: Start  # before its first record
    end: Start  # behind its last
    size: int
    passed_at: float | None = None  # monotonic time when Postgres was first seen past it


def unwritable(what: str, error: OSError) -> Unavailable:
    """Return the answer to an event that can't be written down."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return Unavailable("journal_full" if full else "journal_failed", f"{what}: {error.strerror}", 5)


def segment_name(shard: int, number: int) -> str:
    """Return the name of the segment that begins with the record of this number."""
    return f"{shard:04d}-{number:016d}{SUFFIX}"


def numbers_of(disk: Disk, directory: Path, shard: int) -> list[int]:
    """Return the numbers of the first records of a shard's segments, in order."""
    stem = f"{shard:04d}-"
    names = (name for name in disk.names(directory) if name.endswith(SUFFIX) and name.startswith(stem))
    return sorted(int(name.removeprefix(stem).removesuffix(SUFFIX)) for name in names)


class ShardJournal:
    """The chain of one shard. `first` is what stands before its first record, `head` what stands behind its last one.

    `committed` is how far Postgres was seen, on this chain; `failed` says that a sync failed, and until the journal is
    renumbered nothing is appended.
    """

    def __init__(self, shelf: Shelf, shard: int, chain: manifests.Chain) -> None:
        self._shelf = shelf
        self._disk = shelf.disk
        self.shard = shard
        self._descriptor = -1
        self._writing = False
        self.load(chain)

    def load(self, chain: manifests.Chain) -> None:
        """Read the chain from disk, as it begins by the manifest. Raises JournalError `journal_corrupt`, OSError."""
        self.close()
        self.failed = True  # until all of it was read
        self.first = self.head = chain.start()
        self.committed = self.first.position
        self._shift = chain.shift
        self._segments: deque[_Segment] = deque()
        self._digests: dict[int, bytes] = {self.first.position.sequence: self.first.position.digest}
        numbers = numbers_of(self._disk, self._shelf.directory, self.shard)
        lowest = self._number_behind(self.first)
        for number in numbers:
            if number < lowest:
                self._disk.remove(self._path(number))  # the manifest gave it up; a crash came between
        self._scan([number for number in numbers if number >= lowest], lowest)
        if self._segments:  # rule 8: on disk before anything of it is sent or numbered
            self._descriptor = self._disk.appender(self._segments[-1].path)
            self._disk.sync(self._descriptor)
        self._remember(self.head.position)
        self.failed = False

    def _path(self, number: int) -> Path:
        return self._shelf.directory / segment_name(self.shard, number)

    def _number_behind(self, start: Start) -> int:
        """Return the number in the journal of the record behind `start`."""
        return start.position.sequence + 1 + self._shift

    def _scan(self, numbers: list[int], lowest: int) -> None:
        if not numbers and lowest > 1:
            raise JournalError(
                "journal_corrupt",
                f"{self._path(lowest).name}: the segment that the chain goes on with is missing. Restore it from a "
                "copy, or see `taximeter journal repair`",
            )
        expected = lowest
        for number in numbers:
            path = self._path(number)
            if number != expected and not self._disk.size(path):
                self._disk.remove(path)  # made for a record that went elsewhere, or nowhere, because making it failed
                continue
            if number != expected:
                raise JournalError(
                    "journal_corrupt",
                    f"{path.name}: expected the segment that begins with record {expected}; a file is missing. "
                    "Restore it from a copy, or see `taximeter journal repair`",
                )
            end = scan(self._disk, path, self.head, last=number == numbers[-1])
            self._segments.append(_Segment(path, self.head, end, self._disk.size(path)))
            self.head, expected = end, self._number_behind(end)

    def _remember(self, position: Position) -> None:
        self._digests[position.sequence] = position.digest
        if len(self._digests) > DIGESTS_KEPT:
            del self._digests[next(iter(self._digests))]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in list(self._segments))

    @property
    def begins(self) -> manifests.Chain:
        """The manifest's form of where the chain begins now."""
        return manifests.chain(self.first, self._shift)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, record: bytes, events: int, nanos: int) -> Step:
        """Make a record durable and return its step. Raises Unavailable `journal_full` or `journal_failed`.

        Invariant: `head` moves only after the sync returned; what is not durable has no position.
        """
        if self.failed:
            raise Unavailable("journal_failed", "a sync of the journal failed and is being mended; try again", 5)
        step = link(self.head, record, events, nanos)
        framed = frame(record, events, nanos)
        with self._shelf.lock:
            self._shelf.make_room(len(framed))
            segment = self._segment_for(len(framed))
            self._writing = True
        try:
            self._write(segment, framed)
            with self._shelf.lock:
                segment.size += len(framed)
                segment.passed_at = None  # it has what Postgres lacks again, and is held as long as that
                segment.end = self.head = Start(step.after, step.running)
                self._remember(step.after)
        finally:
            self._writing = False
        return step

    def _segment_for(self, size: int) -> _Segment:
        """Return the segment that `size` more bytes go to; an empty one takes a record of any size."""
        last = self._segments[-1] if self._segments else None
        if last is None or (last.size and last.size + size > self._shelf.segment_bytes):
            try:
                self._rotate()
            except OSError as error:
                raise unwritable("a journal segment can't be made", error) from error
        return self._segments[-1]

    def _write(self, segment: _Segment, framed: bytes) -> None:
        try:
            self._disk.write(self._descriptor, framed)
        except OSError as error:
            self._undo_write(segment)
            raise unwritable("the journal can't be written", error) from error
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            # What the page cache says after a failed sync is not what the disk has: `mend` goes on in another file.
            self.failed = True
            raise Unavailable("journal_failed", f"the journal can't be synced: {error.strerror}", 5) from error

    def _undo_write(self, segment: _Segment) -> None:
        try:
            self._disk.truncate(self._descriptor, segment.size)
        except OSError:
            self.failed = True

    def _rotate(self) -> None:
        path = self._path(self._number_behind(self.head))
        descriptor = self._disk.create(path)
        self.close()
        self._descriptor = descriptor
        self._segments.append(_Segment(path, self.head, self.head, 0))

    # -- reading ------------------------------------------------------------------------------------------------------

    def holds(self, position: Position) -> bool:
        """Return whether this journal's own chain has `position` (rule 1)."""
        return self.digest_at(position.sequence) == position.digest

    def digest_at(self, sequence: int) -> bytes | None:
        """Return the digest of the chain at `sequence`, or None where this journal does not reach."""
        if sequence < self.first.position.sequence:
            return None  # what followed it was given up, so nothing could go on behind it
        if sequence in self._digests:
            return self._digests[sequence]
        start = self.start_at(sequence)
        return None if start is None else start.position.digest

    def start_at(self, sequence: int) -> Start | None:
        """Return position and running count at `sequence`, read from disk; None where this journal does not reach."""
        first = self.first
        if sequence <= first.position.sequence:
            return first if sequence == first.position.sequence else None
        for step in self.steps_after(sequence - 1):
            return Start(step.after, step.running)
        return None

    def steps_after(self, sequence: int) -> Iterator[Step]:
        """Yield the steps behind `sequence` up to the head, read from disk."""
        head = self.head.position.sequence
        for segment in list(self._segments):
            if segment.end.position.sequence <= sequence:
                continue
            cursor, end = Cursor(self._disk, segment.path, segment.start), segment.end
            while cursor.start.position.sequence < min(end.position.sequence, head):
                before = cursor.offset
                for step in cursor.steps():
                    if step.after.sequence > head:
                        return
                    if step.after.sequence > sequence:
                        yield step
                if cursor.offset == before:
                    raise JournalError(
                        "journal_corrupt", f"{segment.path.name}: the record at byte {before} was damaged on disk"
                    )
            if cursor.start.position.sequence == end.position.sequence and cursor.start != end:
                raise JournalError(
                    "journal_corrupt", f"{segment.path.name}: the records on disk are not those that were written"
                )

    def verify(self) -> Start:
        """Read the whole chain again from disk and return what stands behind its last record.

        Raises JournalError `journal_corrupt` when it is not what was written.
        """
        head = self.head
        end = self.first
        for step in self.steps_after(self.first.position.sequence):
            end = Start(step.after, step.running)
            if step.after.sequence == head.position.sequence:
                break
        if end != head:
            raise JournalError(
                "journal_corrupt", f"shard {self.shard}: the chain on disk is not the one that was written"
            )
        return end

    # -- giving up what Postgres has ----------------------------------------------------------------------------------

    def confirm(self, committed: Position, now_s: float, hold_s: float) -> None:
        """Note how far Postgres is, if that is in this chain, and give up segments held long enough (rule 12).

        It may be back where it was before, on a standby that took over: then it has not passed what is behind that.
        """
        known = committed == self.committed or self.holds(committed)  # that one may have to be looked up on disk
        confirmed = committed if known else self.first.position
        with self._shelf.lock:
            self._confirm(confirmed, now_s, hold_s)

    def _confirm(self, committed: Position, now_s: float, hold_s: float) -> None:
        self.committed = committed
        for segment in self._segments:
            if segment.end.position.sequence > committed.sequence:
                segment.passed_at = None
            elif segment.passed_at is None:
                segment.passed_at = now_s
        while len(self._segments) > 1:
            passed_at = self._segments[0].passed_at
            if passed_at is None or now_s - passed_at < hold_s or not self.give_up_oldest():
                return

    def oldest_passed_at(self) -> float | None:
        """Return when Postgres passed the oldest segment that could be given up, or None.

        The one that is written to is among them while nobody writes: otherwise a journal of many shards could be full
        of what Postgres has.
        """
        if not self._segments or self._segments[0].end.position.sequence > self.committed.sequence:
            return None
        oldest = self._segments[0]
        if len(self._segments) == 1 and (self._writing or not oldest.size):
            return None
        return oldest.passed_at or 0.0

    def give_up_oldest(self) -> bool:
        """Delete the oldest segment if Postgres has it; False where there is none, or the disk refuses."""
        if self.oldest_passed_at() is None:
            return False
        oldest, first = self._segments[0], self.first
        try:
            if len(self._segments) == 1:
                self._rotate()
            self._segments.popleft()
            self.first = oldest.end
            self._shelf.store_manifest()  # first the manifest, then the file: the other way loses the chain's start
        except OSError as error:
            if self._segments[0] is not oldest:
                self._segments.appendleft(oldest)
            self.first = first
            _log.warning("shard %d: no segment of the journal can be given up: %s", self.shard, error)
            return False
        self._disk.remove(oldest.path)
        return True

    # -- new numbers (rule 7) -----------------------------------------------------------------------------------------

    def mend(self) -> None:
        """Leave a file whose sync failed as it was before, durably, and go on in a new one. Raises OSError."""
        if self.failed and self._segments:
            self._disk.truncate(self._descriptor, self._segments[-1].size)
            self._disk.sync(self._descriptor)
        if self._segments and self._segments[-1].size:
            self._rotate()

    def renumbered(self, ledger: str, producer: str) -> manifests.Chain:
        """Return how the chain of another producer begins: with the first record that is here."""
        return manifests.chain(manifests.zero(ledger, producer, self.shard), self._shift + self.first.position.sequence)

    def close(self) -> None:
        """Close the file that is being written."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1
