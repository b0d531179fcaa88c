"""`taximeter journal repair`: go on with a journal that is damaged in the middle, and say what is missing (rule 7).

Every whole record is kept, under a new producer. A damaged shard's records are written into new files behind the old
ones; the new manifest is the moment at which they count. The damaged files stay beside them, under another name.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from sidecar import manifest as manifests
from sidecar.chain import SUFFIX, numbers_of, segment_name
from sidecar.contract.asking import Missing
from sidecar.disk import Disk
from sidecar.errors import JournalError
from sidecar.journal import missing_before
from sidecar.segment import records


class Damage(NamedTuple):
    """A place where no whole record stands: `size` bytes at `offset` of the file `name`; 0 for a file that is gone."""

    name: str
    offset: int
    size: int


class Repaired(NamedTuple):
    """What was found and done: records kept, places that were damaged, what is known to be missing because of them."""

    producer: str
    successor: str
    records: int
    damage: list[Damage]
    missing: list[Missing]


class _Shard(NamedTuple):
    """What there is of a shard: its files, how many whole records they hold, and what is not among them.

    `beyond` is above the number of every record that it ever had.
    """

    numbers: list[int]
    records: int
    beyond: int
    damage: list[Damage]
    missing: list[Missing]


def repair(disk: Disk, directory: Path, now: datetime, *, dry_run: bool = False) -> Repaired:
    """Repair the journal of a sidecar that is stopped; without damage, or with `dry_run`, nothing is changed.

    `now` names what is put aside. Raises JournalError: `journal_locked` while somebody holds it, `journal_corrupt`
    when its manifest can't be read, `journal_failed` when the disk refuses; it may be repeated then.
    """
    try:
        lock = disk.lock(directory / "lock")
    except BlockingIOError as error:
        raise JournalError("journal_locked", f"{directory}: a sidecar holds this journal; stop it first") from error
    except OSError as error:
        raise JournalError("journal_failed", f"{directory}: {error.strerror or error}") from error
    try:
        return _repair(disk, directory, now, dry_run=dry_run)
    except OSError as error:
        raise JournalError("journal_failed", f"{directory}: {error.strerror or error}; repeat it") from error
    finally:
        disk.close(lock)


def _repair(disk: Disk, directory: Path, now: datetime, *, dry_run: bool) -> Repaired:
    old = manifests.load(disk, directory)
    if old is None:
        raise JournalError("journal_corrupt", f"{directory}: no journal with a manifest; restore that from a copy")
    shards = [_read(disk, directory, old, shard) for shard in range(old.shards)]
    damage = [place for shard in shards for place in shard.damage]
    missing = [one for shard in shards for one in shard.missing]
    successor = manifests.new_producer() if damage and not dry_run else old.producer
    if successor != old.producer:
        _go_on(disk, directory, old, shards, successor, f"{now:%Y%m%dT%H%M%SZ}")
    return Repaired(old.producer, successor, sum(shard.records for shard in shards), damage, missing)


def _read(disk: Disk, directory: Path, manifest: manifests.Manifest, shard: int) -> _Shard:
    """Look through all files of a shard; a torn end is no damage."""
    chain = manifest.chains[shard]
    expected = chain.sequence + chain.shift + 1
    numbers = [number for number in numbers_of(disk, directory, shard) if number >= expected]
    count = 0
    damage: list[Damage] = []
    missing: list[Missing] = []
    if not numbers and expected > 1:  # there is always the one that is written to
        damage.append(Damage(segment_name(shard, expected), 0, 0))
        missing.append(_missing(manifest, shard, expected, expected))
    for place, number in enumerate(numbers):
        name = segment_name(shard, number)
        following = numbers[place + 1] if place + 1 < len(numbers) else None
        if number > expected:
            damage.append(Damage(segment_name(shard, expected), 0, 0))
            missing.append(_missing(manifest, shard, expected, number - 1))
        content = disk.read(directory / name)
        whole = list(records(content))
        gaps = _gaps(whole, len(content), last=following is None)
        expected = number + len(whole) + len(gaps)
        if gaps:
            # A gap was one record at least; how many it was shows in the number of the next file, if there is one.
            expected = following or expected
            before = sum(begin < gaps[0][0] for begin, _ in whole)
            after = sum(begin > gaps[-1][0] for begin, _ in whole)
            missing.append(_missing(manifest, shard, number + before, expected - after - 1))
        damage += [Damage(name, offset, size) for offset, size in gaps]
        count += len(whole)
    return _Shard(numbers, count, expected + len(damage), damage, missing)


def _gaps(whole: Sequence[tuple[int, int]], size: int, *, last: bool) -> list[tuple[int, int]]:
    """Return what is between whole records, as offsets and sizes."""
    gaps: list[tuple[int, int]] = []
    behind = 0
    for begin, end in whole:
        if begin > behind:
            gaps.append((behind, begin - behind))
        behind = end
    if behind < size and not last:
        gaps.append((behind, size - behind))
    return gaps


def _missing(manifest: manifests.Manifest, shard: int, first: int, last: int) -> Missing:
    shift = manifest.chains[shard].shift
    return Missing(manifest.producer, shard, first - shift, last - shift)


def _go_on(
    disk: Disk, directory: Path, old: manifests.Manifest, shards: Sequence[_Shard], successor: str, stamp: str
) -> None:
    missing = list(old.missing)
    chains: list[manifests.Chain] = []
    for number, (shard, chain) in enumerate(zip(shards, old.chains, strict=True)):
        start = chain.start()
        if start.position.sequence and not old.missing:
            missing.append(missing_before(old.producer, number, start))
        missing += shard.missing
        shift = chain.shift + start.position.sequence
        if shard.damage:
            shift = _copy_whole(disk, directory, number, shard)
        chains.append(manifests.chain(manifests.zero(old.ledger, successor, number), shift))
    _put_aside(disk, directory, shards, stamp)
    predecessors = (*old.predecessors, old.producer)
    new = msgspec.structs.replace(
        old, producer=successor, chains=tuple(chains), predecessors=predecessors, missing=tuple(missing)
    )
    manifests.store(disk, directory, new)


def _copy_whole(disk: Disk, directory: Path, number: int, shard: _Shard) -> int:
    """Write the whole records of a shard's files into new ones, durably; return by how much those are numbered up."""
    shift = shard.beyond
    written = 0
    for old in shard.numbers:
        content = disk.read(directory / segment_name(number, old))
        whole = list(records(content))
        if whole:
            parts = [content[begin:end] for begin, end in whole]
            _write(disk, directory / segment_name(number, shift + written + 1), b"".join(parts))
            written += len(whole)
    if not written:
        _write(disk, directory / segment_name(number, shift + 1), b"")
    return shift


def _write(disk: Disk, path: Path, content: bytes) -> None:
    descriptor = disk.create(path)
    try:
        disk.write(descriptor, content)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def _put_aside(disk: Disk, directory: Path, shards: Sequence[_Shard], stamp: str) -> None:
    """Give the damaged files a second name: under the first one they are deleted with the next start."""
    for name in sorted({place.name for shard in shards for place in shard.damage if place.size}):
        disk.copy(directory / name, directory / f"{name.removesuffix(SUFFIX)}.damaged-{stamp}")
    disk.sync_directory(directory)
