"""A batch and its bytes: what the journal holds and what a stream entry carries, the same bytes in both.

A batch does not hold its own number: a position is (sequence, digest of the chain up to it), and a journal that is
renumbered (rule 7) keeps its records as they are.
"""

from typing import Final, NamedTuple

import msgspec

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event
from sidecar.contract.units import format_units, from_text

CODEC_VERSION: Final = 1


class Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request's share on one shard, under an Idempotency-Key.

    `key`: 16 bytes of (Idempotency-Key, shard). `digest`: 16 bytes of the whole body. The share is the `count` events
    of the batch from `first` on; those with identity INDEXED are covered by the claim, and all of them are in
    conflict when the key was used with another body.
    """

    key: bytes
    digest: bytes
    first: int
    count: int


class Batch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is journaled in one record, applied in one script call and taken in one transaction.

    `version`: of this form. `shard`: where it belongs. `revision`: of the meters that it is counted under.
    `accepted_at_us`: when it was accepted, microseconds since the epoch. `watermark_us`: no time assigned after this
    record is before it (rule 10). A batch without events carries a watermark.
    """

    version: int
    shard: int
    revision: int
    accepted_at_us: int
    watermark_us: int
    claims: tuple[Claim, ...]
    events: tuple[Event, ...]


class Running(NamedTuple):
    """What a producer journaled on a shard so far, in events and in nanos: goes with every batch (rule 11)."""

    events: int
    nanos: int

    def plus(self, events: int, nanos: int) -> "Running":
        """Return this and so many more."""
        return Running(self.events + events, self.nanos + nanos)

    def encode(self) -> str:
        """Return the text form: `<events> <units>`."""
        return f"{self.events} {format_units(self.nanos)}"


def decode_running(text: bytes | str) -> Running:
    """Return the running count that this text means. Raises ValueError when it is none."""
    value = text.decode() if isinstance(text, bytes) else text
    events, _, units = value.partition(" ")
    return Running(int(events), from_text(units))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode_batch(batch: Batch) -> bytes:
    """Return the bytes of a batch."""
    return _encoder.encode(batch)


def decode_batch(record: bytes) -> Batch:
    """Return the batch of these bytes.

    Raises TaximeterError `codec_unknown` for a version that this program does not know, and msgspec.DecodeError for
    bytes that are no batch.
    """
    # An array's first element is its version: a fixed int below 128, right behind the array header.
    if len(record) >= 2 and record[0] & 0xF0 == 0x90 and record[1] != CODEC_VERSION:
        raise TaximeterError(
            "codec_unknown", f"record: expected version {CODEC_VERSION}, got {record[1]}; update this program"
        )
    return _decoder.decode(record)


class Position(msgspec.Struct, array_like=True, frozen=True, gc=False, order=True):
    """How far a producer's chain has been taken on a shard: the batch's number, from 0, and the chain's digest."""

    sequence: int
    digest: bytes

    def encode(self) -> str:
        """Return the text form that Redis holds: `<sequence>:<digest in hex>`."""
        return f"{self.sequence}:{self.digest.hex()}"


def decode_position(text: bytes | str) -> Position:
    """Return the position that this text means. Raises ValueError when it is none."""
    value = text.decode() if isinstance(text, bytes) else text
    sequence, _, digest = value.partition(":")
    position = Position(int(sequence), bytes.fromhex(digest))
    if position.sequence < 0 or len(position.digest) != 16 or position.encode() != value:  # scripts compare the text
        raise ValueError(f"position: expected <sequence>:<32 hex digits>, got {value!r}")
    return position
