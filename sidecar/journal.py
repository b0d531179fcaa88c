"""The journal: what is acknowledged, on disk, until Postgres has it (design 2.1, rules 1, 8 and 12).

One chain of records a shard, in segment files. Blocking: the sidecar calls `append` and `steps_after` in threads, and
at most one `append` of a shard runs at a time.
"""

import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidecar import manifest as manifests
from sidecar.contract.codec import Position
from sidecar.contract.scripts import Step
from sidecar.errors import JournalError, Unavailable
from sidecar.segment import Cursor, Start, frame, link, scan

_SUFFIX: Final = ".segment"
DIGESTS_KEPT: Final = 65_536

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Segment:
    path: Path
    start: Start  # before its first record
    end: Start  # behind its last
    size: int
    passed_at: float | None = None  # monotonic time when Postgres was first seen past it


def _unwritable(what: str, error: OSError) -> Unavailable:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return Unavailable("journal_full" if full else "journal_failed", f"{what}: {error.strerror}", 5)


class ShardJournal:
    """The chain of one shard. `head` is what stands behind its last record."""

    def __init__(self, journal: "Journal", shard: int, start: Start) -> None:
        self._journal = journal
        self.shard = shard
        self.first = start
        self.head = start
        self.committed = start.position
        self.failed = False
        self._segments: deque[_Segment] = deque()
        self._descriptor = -1
        self._writing = False
        self._digests: dict[int, bytes] = {start.position.sequence: start.position.digest}
        self._load()

    def _path(self, sequence: int) -> Path:
        return self._journal.directory / f"{self.shard:04d}-{sequence:016d}{_SUFFIX}"

    def _load(self) -> None:
        first = self.first.position.sequence + 1
        paths = sorted(self._journal.directory.glob(f"{self.shard:04d}-*{_SUFFIX}"))
        kept = [path for path in paths if int(path.stem.partition("-")[2]) >= first]
        for path in paths:
            if path not in kept:
                path.unlink()  # the manifest says that they are given up; a crash came between
        if not kept and first > 1:
            raise JournalError(
                "journal_corrupt",
                f"{self._path(first).name}: the segment that the chain goes on with is missing. Restore it from a "
                "copy, or see `taximeter journal repair`",
            )
        for path in kept:
            if int(path.stem.partition("-")[2]) != self.head.position.sequence + 1:
                raise JournalError(
                    "journal_corrupt",
                    f"{path.name}: expected the segment that begins with sequence {self.head.position.sequence + 1}; "
                    "a file is missing. Restore it from a copy, or see `taximeter journal repair`",
                )
            end = scan(path, self.head, last=path == kept[-1])
            self._segments.append(_Segment(path, self.head, end, path.stat().st_size))
            self.head = end
        if self._segments:  # rule 8: on disk before anything of it is sent or numbered
            self._descriptor = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND)
            os.fsync(self._descriptor)
        self._remember(self.head.position)

    def _remember(self, position: Position) -> None:
        self._digests[position.sequence] = position.digest
        if len(self._digests) > DIGESTS_KEPT:
            del self._digests[next(iter(self._digests))]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def append(self, record: bytes, events: int, nanos: int) -> Step:
        """Make a record durable and return its step. Raises Unavailable `journal_full` or `journal_failed`.

        Invariant: `head` moves only after `fdatasync` returned; what is not durable has no position.
        """
        if self.failed:
            raise Unavailable("journal_failed", "an earlier sync of the journal failed; restart the sidecar", 5)
        step = link(self.head, record, events, nanos)
        framed = frame(record, events, nanos)
        with self._journal.lock:
            self._journal.make_room(len(framed))
            segment = self._segment_for(len(framed))
            self._writing = True
        try:
            self._write(segment, framed)
            with self._journal.lock:
                segment.size += len(framed)
                segment.end = self.head = Start(step.after, step.running)
                self._remember(step.after)
        finally:
            self._writing = False
        return step

    def _segment_for(self, size: int) -> _Segment:
        """Return the segment that `size` more bytes go to; an empty one takes a record of any size."""
        last = self._segments[-1] if self._segments else None
        if last is None or (last.size and last.size + size > self._journal.segment_bytes):
            self._rotate()
        return self._segments[-1]

    def _write(self, segment: _Segment, framed: bytes) -> None:
        view = memoryview(framed)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._undo_write(segment)
            raise _unwritable("the journal can't be written", error) from error
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # What the page cache says after a failed sync is not what the disk has: only a fresh scan may go on.
            self.failed = True
            raise Unavailable("journal_failed", f"the journal can't be synced: {error.strerror}", 5) from error

    def _undo_write(self, segment: _Segment) -> None:
        try:
            os.ftruncate(self._descriptor, segment.size)
        except OSError:
            self.failed = True

    def _rotate(self) -> None:
        path = self._path(self.head.position.sequence + 1)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.fsync(descriptor)
                manifests.sync_directory(path.parent)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise _unwritable("a journal segment can't be made", error) from error
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._segments.append(_Segment(path, self.head, self.head, 0))

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
            cursor, end = Cursor(segment.path, segment.start), segment.end
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

    def confirm(self, committed: Position, now_s: float, hold_s: float) -> None:
        """Note how far Postgres is, if that is in this chain, and give up segments held long enough (rule 12)."""
        if committed.sequence < self.committed.sequence or not self.holds(committed):
            return
        with self._journal.lock:
            self._confirm(committed, now_s, hold_s)

    def _confirm(self, committed: Position, now_s: float, hold_s: float) -> None:
        self.committed = committed
        for segment in self._segments:
            if segment.passed_at is None and segment.end.position.sequence <= committed.sequence:
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
        """Delete the oldest segment if Postgres has it; False where there is none, or the manifest can't be written."""
        if self.oldest_passed_at() is None:
            return False
        if len(self._segments) == 1:
            self._rotate()
        oldest, first = self._segments[0], self.first
        self.first = oldest.end
        try:
            self._journal.store_manifest()  # first the manifest, then the file: the other way loses the chain's start
        except OSError as error:
            self.first = first
            _log.warning("shard %d: the journal's manifest can't be written: %s", self.shard, error)
            return False
        oldest.path.unlink(missing_ok=True)
        self._segments.popleft()
        return True

    def close(self) -> None:
        """Close the file that is being written."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Journal:
    """A directory with the chains of all shards, held by one process.

    `bytes_max` bounds what Postgres does not have, over all shards; `segment_bytes` is about the size of one file.

    Raises JournalError when another process holds it, when it belongs to another ledger, or when it is damaged.
    """

    def __init__(self, directory: Path, *, bytes_max: int, segment_bytes: int) -> None:
        self.directory = directory
        self.bytes_max = bytes_max
        self.segment_bytes = segment_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalError(
                "journal_locked", f"{directory}: another sidecar holds this journal; give each its own directory"
            ) from error
        self.lock = threading.RLock()  # over the lists of segments and the manifest, never over a sync of records
        self.shards: tuple[ShardJournal, ...] = ()
        self.manifest: manifests.Manifest | None = None
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        self.manifest = manifests.load(self.directory)
        if self.manifest is None and any(self.directory.glob(f"*{_SUFFIX}")):
            raise JournalError(
                "journal_corrupt", f"{self.directory}: there are segments but no manifest; restore it from a copy"
            )
        self._open_shards()

    def _open_shards(self) -> None:
        if self.manifest is not None:
            self.shards = tuple(
                ShardJournal(self, shard, chain.start()) for shard, chain in enumerate(self.manifest.chains)
            )

    def bind(self, ledger: str, shards: int) -> None:
        """Make this the journal of a ledger, under a new producer, or check that it is.

        Raises JournalError `ledger_mismatch` when it belongs to another ledger or shard count (rule 17).
        """
        if self.manifest is None:
            self.manifest = manifests.create(ledger, shards)
            manifests.store(self.directory, self.manifest)
            self._open_shards()
        elif (self.manifest.ledger, self.manifest.shards) != (ledger, shards):
            raise JournalError(
                "ledger_mismatch",
                f"{self.directory}: this journal belongs to ledger {self.manifest.ledger} with {self.manifest.shards} "
                f"shards, Redis to {ledger} with {shards}; use another journal directory or the right Redis",
            )

    def note_registered(self) -> None:
        """Remember that a flusher knows this producer: from now on it accepts events without Redis."""
        if self.manifest is not None and not self.manifest.registered:
            self.manifest = msgspec.structs.replace(self.manifest, registered=True)
            self.store_manifest()

    def store_manifest(self) -> None:
        """Write the manifest with the chains as they begin now."""
        if self.manifest is not None:
            chains = tuple(manifests.chain(shard.first) for shard in self.shards) or self.manifest.chains
            self.manifest = msgspec.structs.replace(self.manifest, chains=chains)
            manifests.store(self.directory, self.manifest)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(shard.size for shard in self.shards)

    def make_room(self, wanted: int) -> None:
        """Give up what Postgres has, the longest passed first, until `wanted` bytes fit.

        Raises Unavailable `journal_full` when what Postgres lacks takes all that the journal may hold.
        """
        while self.size + wanted > self.bytes_max:
            passed = [(at, shard) for shard in self.shards if (at := shard.oldest_passed_at()) is not None]
            if not passed or not min(passed, key=lambda pair: pair[0])[1].give_up_oldest():
                raise Unavailable(
                    "journal_full",
                    f"the journal holds {self.size} of {self.bytes_max} bytes that Postgres does not have yet; "
                    "check Redis and the flusher",
                    5,
                )

    def close(self) -> None:
        """Close the files and let another process have the journal."""
        for shard in self.shards:
            shard.close()
        with suppress(OSError):
            os.close(self._lock)
