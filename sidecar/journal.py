"""The journal: what is acknowledged, on disk, until Postgres has it (design 2.1, rules 1, 7, 8 and 12).

One chain of records a shard, in segment files. Blocking: the sidecar calls it in threads.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sidecar import manifest as manifests
from sidecar.chain import SUFFIX, ShardJournal
from sidecar.contract.asking import Missing
from sidecar.disk import Disk
from sidecar.errors import JournalError, Unavailable
from sidecar.segment import Start

PREDECESSORS_MAX: Final = 16  # that no flusher has heard of; each costs a registration at most

_log = logging.getLogger(__name__)


def _unusable(directory: Path, error: OSError) -> JournalError:
    return JournalError("journal_failed", f"{directory}: the journal can't be used: {error.strerror or error}")


def missing_before(producer: str, shard: int, start: Start) -> Missing:
    """Return what a journal that begins behind `start` has given up, because Postgres had it."""
    position, running = start
    return Missing(producer, shard, 1, position.sequence, running.events, position.digest.hex())


class Journal:
    """A directory with the chains of all shards, held by one process.

    `bytes_max` bounds what Postgres does not have, over all shards; `segment_bytes` is about the size of one file.

    Raises JournalError when another process holds it, when it belongs to another ledger, when it is damaged, or when
    the disk can't be used.
    """

    def __init__(self, directory: Path, *, bytes_max: int, segment_bytes: int, disk: Disk | None = None) -> None:
        self.directory = directory
        self.bytes_max = bytes_max
        self.segment_bytes = segment_bytes
        self._refused_bytes = 0  # of the last record that there was no room for
        self.disk = disk or Disk()
        self._lock = self._take()
        self.lock = threading.RLock()  # over the lists of segments and the manifest, never over a sync of records
        self.shards: tuple[ShardJournal, ...] = ()
        self.manifest: manifests.Manifest | None = None
        self._unread = False  # the manifest has new numbers, and not all chains were read with them yet
        try:
            self._load()
        except OSError as error:
            self.close()
            raise _unusable(directory, error) from error
        except BaseException:
            self.close()
            raise

    def _take(self) -> int:
        try:
            self.disk.make_directory(self.directory)
            return self.disk.lock(self.directory / "lock")
        except BlockingIOError as error:
            raise JournalError(
                "journal_locked", f"{self.directory}: another sidecar holds this journal; give each its own directory"
            ) from error
        except OSError as error:
            raise _unusable(self.directory, error) from error

    def _load(self) -> None:
        self.manifest = manifests.load(self.disk, self.directory)
        if self.manifest is None and any(name.endswith(SUFFIX) for name in self.disk.names(self.directory)):
            raise JournalError(
                "journal_corrupt", f"{self.directory}: there are segments but no manifest; restore it from a copy"
            )
        self._open_shards()
        self.disk.sync_directory(self.directory)  # rule 8

    def _open_shards(self) -> None:
        if self.manifest is not None:
            self.shards = tuple(ShardJournal(self, shard, chain) for shard, chain in enumerate(self.manifest.chains))

    def bind(self, ledger: str, shards: int) -> None:
        """Make this the journal of a ledger, under a new producer, or check that it is.

        Raises JournalError `ledger_mismatch` when it belongs to another ledger or shard count (rule 17).
        """
        if self.manifest is None:
            manifest = manifests.create(ledger, shards)
            manifests.store(self.disk, self.directory, manifest)
            self.manifest = manifest
            self._open_shards()
        elif (self.manifest.ledger, self.manifest.shards) != (ledger, shards):
            raise JournalError(
                "ledger_mismatch",
                f"{self.directory}: this journal belongs to ledger {self.manifest.ledger} with {self.manifest.shards} "
                f"shards, Redis to {ledger} with {shards}; use another journal directory or the right Redis",
            )

    def note_registered(self) -> None:
        """Remember that a flusher knows this producer: from now on it accepts events without Redis."""
        manifest = self.manifest
        if manifest is not None and (not manifest.registered or manifest.predecessors):
            self._change(msgspec.structs.replace(manifest, registered=True, predecessors=(), missing=()))

    def note_leaving(self) -> None:
        """Remember that this producer is about to be retired: it accepts nothing before it registers anew (rule 14)."""
        if self.manifest is not None:
            self._change(msgspec.structs.replace(self.manifest, registered=False))

    def _change(self, manifest: manifests.Manifest) -> None:
        with self.lock:
            before, self.manifest = self.manifest, manifest
            try:
                self.store_manifest()
            except OSError:
                self.manifest = before
                raise

    def store_manifest(self) -> None:
        """Write the manifest with the chains as they begin now. Raises OSError."""
        if self.manifest is not None:
            chains = tuple(shard.begins for shard in self.shards) or self.manifest.chains
            manifest = msgspec.structs.replace(self.manifest, chains=chains)
            manifests.store(self.disk, self.directory, manifest)
            self.manifest = manifest

    def renumber(self) -> None:
        """Go on under a new producer with every record that is here (rule 7); what Postgres has counts once anyway.

        For a chain that Redis or Postgres don't go along with, and after a failed sync. Nothing may be appended or
        read meanwhile. Raises OSError when the disk refuses, and then it may be tried again: nothing is appended
        before all of it was read with its new numbers. Raises JournalError when it is damaged.
        """
        if self.manifest is None:
            return
        with self.lock:
            if not self._unread:
                self._renumber(self.manifest)
            for shard, chain in zip(self.shards, self.manifest.chains, strict=True):
                shard.load(chain)
            self._unread = False

    def _renumber(self, old: manifests.Manifest) -> None:
        for shard in self.shards:
            shard.mend()
        producer = manifests.new_producer()
        chains = tuple(shard.renumbered(old.ledger, producer) for shard in self.shards)
        # What is here no longer belongs to the last producer that a flusher knew. If Postgres is not where it was
        # when that was given up, on a standby that took over, this is how it learns what it lacks.
        missing = old.missing or tuple(
            missing_before(old.producer, shard.shard, shard.first)
            for shard in self.shards
            if shard.first.position.sequence
        )
        predecessors = (*old.predecessors, old.producer)[-PREDECESSORS_MAX:]
        new = msgspec.structs.replace(old, producer=producer, chains=chains, predecessors=predecessors, missing=missing)
        manifests.store(self.disk, self.directory, new)
        self.manifest, self._unread = new, True
        for shard in self.shards:
            shard.failed = True
        _log.warning("the journal of %s goes on under the new id %s", old.producer, producer)

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
                self._refused_bytes = min(wanted, self.segment_bytes)  # what can never fit does not make it full
                raise self._full()
        if wanted >= self._refused_bytes:
            self._refused_bytes = 0

    def _full(self) -> Unavailable:
        return Unavailable(
            "journal_full",
            f"the journal holds {self.size} of {self.bytes_max} bytes that Postgres does not have yet; "
            "check Redis and the flusher",
            5,
        )

    @property
    def full(self) -> Unavailable | None:
        """Why the last record that was refused for want of room would be refused again, or None."""
        if not self._refused_bytes or self.size + self._refused_bytes <= self.bytes_max:
            return None
        return None if any(shard.oldest_passed_at() is not None for shard in self.shards) else self._full()

    def close(self) -> None:
        """Close the files and let another process have the journal."""
        for shard in self.shards:
            shard.close()
        with suppress(OSError):
            self.disk.close(self._lock)
