"""Request bodies in, events out: normalised, identified, each judged apart. Pure.

A body becomes events in three steps: `sidecar.bodies` finds the events in it, `sidecar.fields` and
`sidecar.properties` give each field its one canonical form, and here the event gets its time, identity and fingerprint,
which are never made again. What events of a body have in common is worked out once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Final, NamedTuple

import msgspec

from sidecar.bodies import BODY_TYPES, BodyType, Found
from sidecar.contract.codec import Claim
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import (
    EVENTS_PER_REQUEST_MAX,
    STRING_BYTES_MAX,
    VOID_TYPE,
    Content,
    Event,
    Identity,
    payload_fingerprint,
)
from sidecar.contract.identity import KEY_BYTES, claim_key, event_key_of, event_keys_begun, shard_of, void_key
from sidecar.contract.meters import Revision
from sidecar.fields import Refusal, event_time_us, string_problem
from sidecar.raw import ABSENT, JSON, RawEvent
from sidecar.voids import VOID_TYPES

MEDIA_TYPES: Final = tuple(BODY_TYPES)
VOID_MEDIA_TYPES: Final = tuple(VOID_TYPES)

_TIMED, _CLAIMED, _INDEXED, _MADE = map(int, Identity)
_PROPERTIES_REMEMBERED_BYTES_MAX: Final = 512
_CHARACTER_BYTES_MAX: Final = 4
_CODE_OF: Final = {
    "user_id": "user_id_invalid",
    "event_type": "event_type_invalid",
    "id": "id_invalid",
    "source": "source_invalid",
}


class Terms(NamedTuple):
    """What a body is read under.

    `now_us`: the time of events without one. `floor_us`: events at or below are too old. `revision`: the meters, which
    may need properties. `shards`: how many there are. `idempotency_key`: of the request, or None. `events_max`: a
    request may have. `random_bytes`: for the keys of events without any identity, 16 each.
    """

    now_us: int
    floor_us: int
    revision: Revision
    shards: int
    random_bytes: Callable[[int], bytes]
    idempotency_key: str | None = None
    events_max: int = EVENTS_PER_REQUEST_MAX


class Rejection(msgspec.Struct, frozen=True):
    """An event that is not accepted: its place in the request, its id where it could be read, a code and why."""

    index: int
    id: str | None
    code: str
    message: str


class Reading(NamedTuple):
    """What a body holds: by shard the accepted events, in the order of the request, and the rejected ones."""

    shares: dict[int, Columns]
    rejections: list[Rejection]

    @property
    def accepted(self) -> int:
        """How many events were accepted."""
        return sum(map(len, self.shares.values()))

    @property
    def total(self) -> int:
        """How many events the request has."""
        return self.accepted + len(self.rejections)

    def ids(self) -> dict[int, str | None]:
        """Return the ids of the accepted events by their places in the request."""
        return {
            index: event_id
            for share in self.shares.values()
            for index, event_id in zip(share.indices, share.ids_by_place(), strict=True)
        }

    @property
    def events(self) -> list[Event]:
        """The accepted events in the order of the request, made anew at every call."""
        found: list[Event] = []
        for share in self.shares.values():
            claims = (Claim(share.claim_key, b"", 0, len(share)),) if share.claim_key is not None else ()
            found += share.batch(0, 0, 0, 0, claims).events
        return sorted(found, key=lambda event: event.index)


def read(media_type: str, body: bytes, terms: Terms, *, voids: bool = False) -> Reading:
    """Return what a body of this media type (lower case, without parameters) holds: events, or `voids` of events.

    Raises TaximeterError `content_type_unsupported`, `body_invalid` or `too_many_events`, for the body as a whole.
    """
    body_types = VOID_TYPES if voids else BODY_TYPES
    body_type = body_types.get(media_type)
    if body_type is None:
        expected = ", ".join(body_types)
        raise TaximeterError("content_type_unsupported", f"Content-Type: expected one of {expected}")
    reader = (_VoidReader if voids else _Reader)(body_type, body, terms)
    found = body_type.events(body, terms.events_max)
    at = 0
    while at < len(found):  # a refusal ends a run of events that are read in one go
        at = reader.read(found, at)
    return Reading(reader.shares, reader.rejections)


def _rejection(body_type: BodyType, index: int, found: RawEvent | Refusal, refusal: Refusal) -> Rejection:
    event_id = refusal.id
    if isinstance(found, RawEvent):
        event_id = found.id if found.id and not string_problem(found.id) else None
        if body_type.renamed is not None:
            refusal = body_type.renamed(refusal)
    return Rejection(index, event_id, refusal.code, refusal.message)


def _is_plain(body: bytes) -> bool:
    """Whether no string in a JSON body can have control characters, or more bytes than characters."""
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


@dataclass(slots=True)
class _Known:
    """What events of one content have in common: where they go; and, once one has an id, what it is identified by."""

    share: Columns
    number: int
    begun: blake2b | None = None
    payload: int = 0


class _Reader:
    """Turns the raw events of one body into columns. What was worked out once is looked up for the events behind."""

    reserved: ClassVar[str] = VOID_TYPE  # the event type that none may have

    def __init__(self, body_type: BodyType, body: bytes, terms: Terms) -> None:
        self.shares: dict[int, Columns] = {}
        self.rejections: list[Rejection] = []
        self._body_type = body_type
        self._dialect = body_type.dialect
        self._units = body_type.dialect.units
        self._plain = body_type.dialect is JSON and _is_plain(body)
        self._terms = terms
        self._known: dict[tuple[str, str, bytes, str, bytes], _Known] = {}
        self._times_us: dict[str, int] = {}

    def read(self, found: Sequence[Found], first: int) -> int:
        """Read events from place `first` up to one that is refused, or all, and return the place behind."""
        terms, known_contents, times_us = self._terms, self._known, self._times_us
        now_us, made = terms.now_us, _MADE if terms.idempotency_key is None else _INDEXED
        index = first
        try:
            for index in range(first, len(found)):
                raw = found[index]
                if not isinstance(raw, RawEvent):
                    raise raw
                timestamp = raw.timestamp
                given_us = times_us.get(timestamp)
                if given_us is None and timestamp:
                    given_us = times_us[timestamp] = event_time_us(timestamp, now_us, terms.floor_us)
                properties = b"" if raw.properties is ABSENT else bytes(raw.properties)
                same = (raw.user_id, raw.event_type, bytes(raw.units), raw.source, properties)
                known = known_contents.get(same)
                if known is None:
                    known = known_contents[same] = self._know(raw)
                share = known.share
                if raw.id:
                    if not self._plain:
                        _check_string("id", raw.id)
                    self._identify(raw.id, known, given_us)
                else:
                    share.identities.append(made)
                    if made == _MADE:
                        share.keys.append(terms.random_bytes(KEY_BYTES))
                share.content_of.append(known.number)
                share.times_us.append(now_us if given_us is None else given_us)
                share.indices.append(index)
        except Refusal as refusal:
            self.rejections.append(_rejection(self._body_type, index, found[index], refusal))
        return index + 1

    def _identify(self, event_id: str, known: _Known, given_us: int | None) -> None:
        """Append what is particular to an event with an id."""
        share, begun = known.share, known.begun
        if begun is None:
            content = share.contents[known.number]
            begun = known.begun = event_keys_begun(content.user_id, content.source)
            known.payload = content.payload_number
        share.identities.append(_CLAIMED if given_us is None else _TIMED)
        share.keys.append(event_key_of(begun, event_id))
        share.fingerprints.append(payload_fingerprint(known.payload, given_us))
        share.ids.append(event_id)

    def _know(self, raw: RawEvent) -> _Known:
        """Return what events of the content of `raw` have in common; it is added to its share. Raises Refusal."""
        if not self._plain:
            _check_strings(raw)
        if raw.event_type == self.reserved:
            raise Refusal("event_type_invalid", "event_type", f"{VOID_TYPE} is kept for POST /v1/events/void")
        units = self._units(bytes(raw.units))
        properties = self._properties(raw) if raw.properties else ""
        shard = shard_of(raw.user_id, self._terms.shards)
        share = self.shares.get(shard)
        if share is None:
            key = self._terms.idempotency_key
            share = self.shares[shard] = Columns(claim_key(key, shard) if key is not None else None)
        share.contents.append(Content(raw.user_id, raw.source, raw.event_type, units, properties))
        return _Known(share, len(share.contents) - 1)

    def _properties(self, raw: RawEvent) -> str:
        encoded = bytes(raw.properties)
        remembered = len(encoded) <= _PROPERTIES_REMEMBERED_BYTES_MAX
        dialect = self._dialect
        properties = dialect.properties(encoded) if remembered else dialect.read_properties(encoded)
        problem = self._terms.revision.problem(raw.event_type, properties.values)
        if problem:
            field, _, rest = problem.partition(": ")
            raise Refusal("properties_invalid", field, rest)
        return properties.text


class _VoidReader(_Reader):
    """The same of voids: an event with an id and a time, whose key follows from that of the event that it cancels."""

    reserved: ClassVar[str] = ""

    def _identify(self, event_id: str, known: _Known, given_us: int | None) -> None:
        super()._identify(event_id, known, given_us)
        if given_us is not None:  # always: no void is without a timestamp
            keys = known.share.keys
            keys[-1] = void_key(keys[-1], given_us)


def _check_strings(raw: RawEvent) -> None:
    """Raise Refusal for an event with a string that can't be one."""
    together = raw.user_id + raw.event_type + raw.id + raw.source
    if together.isprintable() and (together.isascii() or len(together) * _CHARACTER_BYTES_MAX <= STRING_BYTES_MAX):
        return  # the usual case
    for name in _CODE_OF:
        _check_string(name, getattr(raw, name))


def _check_string(name: str, value: str) -> None:
    """Raise Refusal for a string of an event that can't be one; that it is short in characters is checked already."""
    if value.isprintable() and (value.isascii() or len(value) * _CHARACTER_BYTES_MAX <= STRING_BYTES_MAX):
        return
    problem = string_problem(value) if value else None
    if problem:
        raise Refusal(_CODE_OF[name], name, problem)
