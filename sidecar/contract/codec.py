"""A batch and its bytes: what the journal holds and what a stream entry carries, the same bytes in both.

A batch does not hold its own number: a position is (sequence, digest of the chain up to it), and a journal that is
renumbered (rule 7) keeps its records as they are.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

import msgspec

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Content, Event, Identity, payload_fingerprint
from sidecar.contract.identity import FINGERPRINT_BYTES, KEY_BYTES, indexed_key
from sidecar.contract.units import format_units, from_text

CODEC_VERSION: Final = 2

_IDENTITIES: Final = bytes(Identity)
_WITH_ID: Final = bytes((Identity.TIMED, Identity.CLAIMED))


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

    Events stand in columns, because what a column repeats is written once and worked on at once. `contents`: what
    events say, each once or more. Of every event, in big-endian numbers: `content_of`, the place of its content (2
    bytes); `times_us` (8, signed); `identities` (1); `indices`, its place in the request (2). `keys`: 16 bytes of
    every event but INDEXED ones, whose keys follow from claim and index. `fingerprints` (8 bytes) and `ids`: of the
    events with an id.
    """

    version: int
    shard: int
    revision: int
    accepted_at_us: int
    watermark_us: int
    claims: tuple[Claim, ...]
    contents: tuple[Content, ...]
    content_of: bytes
    times_us: bytes
    identities: bytes
    indices: bytes
    keys: bytes
    fingerprints: bytes
    ids: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many events it has."""
        return len(self.identities)

    @property
    def nanos(self) -> int:
        """The sum of the units of its events, in nanos."""
        return sum(self.contents[place].nanos * count for place, count in self.content_counts().items())

    def content_counts(self) -> Counter[int]:
        """Return the places in `contents`, and how many events have each."""
        return Counter(numbers("H", self.content_of))

    @property
    def events(self) -> tuple[Event, ...]:
        """Its events, one by one. They are made anew at every call: ask once."""
        claim_keys = {place: one.key for one in self.claims for place in range(one.first, one.first + one.count)}
        keys = _pieces(self.keys, KEY_BYTES)
        fingerprints = _pieces(self.fingerprints, FINGERPRINT_BYTES)
        ids = iter(self.ids)
        # Without an id a repeat has the same key and so the same content: there is nothing else to tell apart.
        unnamed = [payload_fingerprint(one.payload_number, None) for one in self.contents]
        found: list[Event] = []
        rows = zip(
            self.identities,
            numbers("H", self.indices),
            numbers("H", self.content_of),
            numbers("q", self.times_us),
            strict=True,
        )
        for place, (identity, index, number, time_us) in enumerate(rows):
            user_id, source, event_type, units, properties = msgspec.structs.astuple(self.contents[number])
            with_id = identity <= Identity.CLAIMED
            found.append(
                Event(
                    indexed_key(claim_keys[place], index) if identity == Identity.INDEXED else next(keys),
                    next(fingerprints) if with_id else unnamed[number],
                    identity,
                    index,
                    time_us,
                    user_id,
                    source,
                    next(ids) if with_id else None,
                    event_type,
                    units,
                    properties,
                )
            )
        return tuple(found)


def numbers(kind: Literal["H", "q"], column: bytes) -> "array[int]":
    """Return a column's numbers: unsigned ones of 2 bytes ("H"), or signed ones of 8 ("q")."""
    found = array(kind, column)
    if sys.byteorder == "little":
        found.byteswap()
    return found


def column(kind: Literal["H", "q"], values: Iterable[int]) -> bytes:
    """Return numbers as a column."""
    packed = array(kind, values)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def _pieces(packed: bytes, size: int) -> Iterator[bytes]:
    return (packed[at : at + size] for at in range(0, len(packed), size))


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
    bytes that are no batch, or whose columns don't fit together.
    """
    # An array's first element is its version: a fixed int below 128, right behind the array header.
    if len(record) >= 2 and record[0] & 0xF0 == 0x90 and record[1] != CODEC_VERSION:
        raise TaximeterError(
            "codec_unknown", f"record: expected version {CODEC_VERSION}, got {record[1]}; update this program"
        )
    batch = _decoder.decode(record)
    problem = _problem(batch)
    if problem:
        raise msgspec.ValidationError(f"record: {problem}")
    return batch


def _problem(batch: Batch) -> str:
    """Return what in the columns of a batch does not fit together, or nothing."""
    count = batch.count
    if batch.identities.translate(None, _IDENTITIES):
        return "an identity is none"
    with_id = count - len(batch.identities.translate(None, _WITH_ID))
    indexed = batch.identities.count(Identity.INDEXED)
    widths = (
        (batch.content_of, 2 * count),
        (batch.times_us, 8 * count),
        (batch.indices, 2 * count),
        (batch.keys, KEY_BYTES * (count - indexed)),
        (batch.fingerprints, FINGERPRINT_BYTES * with_id),
    )
    if any(len(held) != wanted for held, wanted in widths) or len(batch.ids) != with_id:
        return "its columns differ in length"
    if count and max(numbers("H", batch.content_of)) >= len(batch.contents):
        return "an event's content is missing"
    covered = sum(batch.identities.count(Identity.INDEXED, one.first, one.first + one.count) for one in batch.claims)
    if covered != indexed or any(one.first < 0 or one.count < 0 for one in batch.claims):
        return "an index is under no claim, or under two"
    return ""


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
