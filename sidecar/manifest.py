"""The journal's manifest: whose journal it is and where each shard's chain begins in it. Replaced whole, by rename."""

import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_start
from sidecar.errors import JournalError
from sidecar.segment import Start

_NAME: Final = "manifest.json"
VERSION: Final = 1


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands before the first record that the journal still holds for a shard."""

    sequence: int
    digest: str
    events: int
    nanos: str

    def start(self) -> Start:
        """Return it as positions and counts."""
        return Start(Position(self.sequence, bytes.fromhex(self.digest)), Running(self.events, int(self.nanos)))


def chain(start: Start) -> Chain:
    """Return the manifest's form of `start`."""
    position, running = start
    return Chain(position.sequence, position.digest.hex(), running.events, str(running.nanos))


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ledger`, `shards` and `producer` never change in a journal; `registered` says that a flusher knows it."""

    version: int
    ledger: str
    shards: int
    producer: str
    registered: bool
    chains: tuple[Chain, ...]


def create(ledger: str, shards: int) -> Manifest:
    """Return the manifest of a new journal, under a new producer."""
    producer = secrets.token_hex(8)
    starts = (Start(Position(0, chain_start(ledger, producer, shard)), Running(0, 0)) for shard in range(shards))
    return Manifest(VERSION, ledger, shards, producer, registered=False, chains=tuple(map(chain, starts)))


def load(directory: Path) -> Manifest | None:
    """Return the journal's manifest, or None where there is none yet. Raises JournalError when it can't be read."""
    path = directory / _NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JournalError("journal_corrupt", f"{path.name}: not a manifest of this version ({error})") from error
    if manifest.version != VERSION or len(manifest.chains) != manifest.shards:
        raise JournalError("journal_corrupt", f"{path.name}: expected version {VERSION} and a chain for every shard")
    return manifest


def store(directory: Path, manifest: Manifest) -> None:
    """Write the manifest so that after a crash either this or the one before is there, whole."""
    replace_file(directory / _NAME, msgspec.json.format(msgspec.json.encode(manifest)))


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file durably: written beside it, synced, renamed, and the directory synced."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
