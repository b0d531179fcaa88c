"""The journal's manifest: whose journal it is and where each shard's chain begins in it. Replaced whole, by rename.

Files are numbered by the records that the journal ever had on a shard, and are never renumbered; a chain is (rule 7),
by a manifest with new numbers.
"""

import secrets
from pathlib import Path
from typing import Final

import msgspec

from sidecar.contract.asking import Missing
from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_start
from sidecar.disk import Disk
from sidecar.errors import JournalError
from sidecar.segment import Start

NAME: Final = "manifest.json"
VERSION: Final = 1
PRODUCER_BYTES: Final = 8


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands before the first record that the journal still holds for a shard.

    A file is named by the number of its first record in the journal, which is `shift` above its sequence.
    """

    sequence: int
    digest: str
    events: int
    nanos: str
    shift: int = 0

    def start(self) -> Start:
        """Return what stands before as position and running count."""
        return Start(Position(self.sequence, bytes.fromhex(self.digest)), Running(self.events, int(self.nanos)))


def chain(start: Start, shift: int = 0) -> Chain:
    """Return the manifest's form of `start`."""
    position, running = start
    return Chain(position.sequence, position.digest.hex(), running.events, str(running.nanos), shift)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`ledger` and `shards` never change in a journal; `registered` says that a flusher knows `producer`.

    After the records got a new producer (rule 7), until a flusher knows of it: `predecessors` are the producers that
    they had, oldest first, and `missing` is what is known to be in this journal no longer.
    """

    version: int
    ledger: str
    shards: int
    producer: str
    registered: bool
    chains: tuple[Chain, ...]
    predecessors: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()


def zero(ledger: str, producer: str, shard: int) -> Start:
    """Return what stands before the first record of a producer."""
    return Start(Position(0, chain_start(ledger, producer, shard)), Running(0, 0))


def new_producer() -> str:
    """Return an id that no other journal has."""
    return secrets.token_hex(PRODUCER_BYTES)


def create(ledger: str, shards: int) -> Manifest:
    """Return the manifest of a new journal, under a new producer."""
    producer = new_producer()
    chains = tuple(chain(zero(ledger, producer, shard)) for shard in range(shards))
    return Manifest(VERSION, ledger, shards, producer, registered=False, chains=chains)


def load(disk: Disk, directory: Path) -> Manifest | None:
    """Return the journal's manifest, or None where there is none yet. Raises JournalError when it can't be read."""
    try:
        manifest = msgspec.json.decode(disk.read(directory / NAME), type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JournalError("journal_corrupt", f"{NAME}: not a manifest of this version ({error})") from error
    if manifest.version != VERSION or len(manifest.chains) != manifest.shards:
        raise JournalError("journal_corrupt", f"{NAME}: expected version {VERSION} and a chain for every shard")
    return manifest


def store(disk: Disk, directory: Path, manifest: Manifest) -> None:
    """Write the manifest so that after a crash either this or the one before is there, whole."""
    disk.replace(directory / NAME, msgspec.json.format(msgspec.json.encode(manifest)))
