"""One entry of a stream: a batch with its place in its producer's chain (rule 2). Pure."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from sidecar.contract.codec import Position, Running, decode_position, decode_running
from sidecar.contract.identity import chain_next
from sidecar.contract.scripts import decode_taken


class Entry(NamedTuple):
    """What ingest added: the step of the producer's chain, and the places that Redis took for repeats.

    `opaque`: Redis did not look into it, and its counters do not have it (rule 13).
    """

    identifier: str
    producer: str
    before: Position
    after: Position
    running: Running
    duplicates: tuple[int, ...]
    conflicts: tuple[int, ...]
    record: bytes
    opaque: bool = False


def decode_entry(identifier: bytes, flat: Sequence[bytes]) -> Entry | None:
    """Return the entry of these fields and values, None for one that ingest did not write."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    try:
        duplicates, conflicts = decode_taken(fields[b"t"].decode())
        return Entry(
            identifier.decode(),
            fields[b"p"].decode(),
            decode_position(fields[b"a"]),
            decode_position(fields[b"z"]),
            decode_running(fields[b"n"]),
            duplicates,
            conflicts,
            fields[b"b"],
            b"o" in fields,
        )
    except (KeyError, ValueError):
        return None


class Verdict(Enum):
    """What the drain does with an entry."""

    TAKE = auto()  # it follows what Postgres has
    SKIP = auto()  # Postgres has it
    LEAVE_OUT = auto()  # it follows something that Postgres does not have: the generation has to be replaced


def judge(entry: Entry, committed: Position | None) -> Verdict:
    """Return what to do with an entry of a producer whose batches are taken up to `committed`.

    Invariant (rule 2): positions never jump, and only along the chain.
    """
    if committed is None:
        return Verdict.LEAVE_OUT
    if entry.after.sequence <= committed.sequence:
        return Verdict.SKIP
    follows = entry.before == committed and entry.after.sequence == committed.sequence + 1
    if follows and entry.after.digest == chain_next(entry.before.digest, entry.record):
        return Verdict.TAKE
    return Verdict.LEAVE_OUT
