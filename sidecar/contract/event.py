"""The event as it is journaled, streamed and stored, and the limits that every event keeps.

An `Event` is normalised: everything that identifies it is fixed here and never made again. What users send is read
into one by `sidecar.reading`.
"""

from enum import IntEnum
from typing import Final

import msgspec

from sidecar.contract.identity import FINGERPRINT_BYTES, fingerprint
from sidecar.contract.units import NANO, format_units, parse_units

STRING_BYTES_MAX: Final = 256
EVENT_BYTES_MAX: Final = 16 * 1024
PROPERTIES_MAX: Final = 32
EVENTS_PER_REQUEST_MAX: Final = 10_000
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
AGE_MAX_S: Final = 5 * 366 * 86_400  # 5 years
AHEAD_MAX_S: Final = 5 * 60
VOID_TYPE: Final = "taximeter.void"  # of a void: it cancels an event, and feeds no meter


class Identity(IntEnum):
    """What makes a repeat of an event recognisable, and so where Postgres looks for it (design 2.2)."""

    TIMED = 0  # id and timestamp: the primary key (event time, event key)
    CLAIMED = 1  # id alone: a claim of its own
    INDEXED = 2  # an index under an Idempotency-Key: the claim of the request's share
    MADE = 3  # neither: the sidecar made the key; the chain and the primary key suffice


_encode_payload = msgspec.msgpack.Encoder().encode


class Content(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What several events of a batch may have in common; encoded as an array in this order.

    `units`: an int, or the shortest decimal text when it has a fraction. `properties`: canonical JSON text of the flat
    object (keys sorted, numbers exact), or empty.
    """

    user_id: str
    source: str
    event_type: str
    units: int | str
    properties: str

    @property
    def nanos(self) -> int:
        """The units as nanos (`sidecar.contract.units`)."""
        return nanos_of(self.units)

    @property
    def payload_number(self) -> int:
        """The number of 64 bits that stands for what such an event says, but for its user and its time."""
        payload = _encode_payload((self.event_type, self.units, self.properties))
        return int.from_bytes(fingerprint(payload), "big")


def payload_fingerprint(number: int, given_us: int | None) -> bytes:
    """Return the 8 bytes by which another payload under the same identity is told apart.

    `number` is its content's `payload_number`; `given_us` the time that the client gave, None for one that we assigned.
    """
    return ((number + (given_us or 0)) % (1 << 64)).to_bytes(FINGERPRINT_BYTES, "big")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One accepted event.

    `key`: 16 bytes of identity. `fingerprint`: 8 bytes of payload (`payload_fingerprint`). `identity`: an `Identity`.
    `index`: its place in the request. `time_us`: the event's time in microseconds since the epoch, UTC. `id` is None
    when the client gave none. `user_id`, `source`, `event_type`, `units`, `properties`: as in `Content`.
    """

    key: bytes
    fingerprint: bytes
    identity: int
    index: int
    time_us: int
    user_id: str
    source: str
    id: str | None
    event_type: str
    units: int | str
    properties: str

    @property
    def nanos(self) -> int:
        """The units as nanos (`sidecar.contract.units`)."""
        return nanos_of(self.units)


def nanos_of(units: int | str) -> int:
    """Return what `Event.units` means as nanos. Raises ValueError for a text that is no decimal."""
    if isinstance(units, int):
        return units * NANO
    nanos = parse_units(units)
    if nanos is None:
        raise ValueError(f"units: expected a decimal, got {units!r}")
    return nanos


def compact_units(nanos: int) -> int | str:
    """Return `nanos` in the form that `Event.units` has: an int where there is no fraction, else the text."""
    whole, fraction = divmod(nanos, NANO)
    return format_units(nanos) if fraction else whole
