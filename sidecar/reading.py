"""Request bodies in, events out: normalised, identified, each judged apart. Pure.

A body becomes events in three steps: `sidecar.bodies` finds the events in it, `sidecar.fields` and
`sidecar.properties` give each field its one canonical form, and here the event gets its time, identity and fingerprint,
which are never made again.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from sidecar.bodies import BODY_TYPES, BodyType
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import EVENTS_PER_REQUEST_MAX, STRING_BYTES_MAX, Event, Identity
from sidecar.contract.identity import KEY_BYTES, claim_key, event_key, fingerprint, indexed_key, shard_of
from sidecar.contract.meters import Revision
from sidecar.fields import Refusal, event_time_us, string_problem
from sidecar.raw import JSON, RawEvent

MEDIA_TYPES: Final = tuple(BODY_TYPES)

_TIMED, _CLAIMED, _INDEXED, _MADE = map(int, Identity)
_PROPERTIES_REMEMBERED_BYTES_MAX: Final = 512
_CHARACTER_BYTES_MAX: Final = 4
_CODE_OF: Final = {
    "user_id": "user_id_invalid",
    "event_type": "event_type_invalid",
    "id": "id_invalid",
    "source": "source_invalid",
}
_encode_payload = msgspec.msgpack.Encoder().encode


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
    """What a body holds: the accepted events and the rejected ones, in the order of the request."""

    events: list[Event]
    rejections: list[Rejection]

    @property
    def total(self) -> int:
        """How many events the request has."""
        return len(self.events) + len(self.rejections)


def read(media_type: str, body: bytes, terms: Terms) -> Reading:
    """Return what a body of this media type (lower case, without parameters) holds.

    Raises TaximeterError `content_type_unsupported`, `body_invalid` or `too_many_events`, for the body as a whole.
    """
    body_type = BODY_TYPES.get(media_type)
    if body_type is None:
        expected = ", ".join(MEDIA_TYPES)
        raise TaximeterError("content_type_unsupported", f"Content-Type: expected one of {expected}")
    normalise = _Normaliser(body_type, body, terms).event
    events: list[Event] = []
    rejections: list[Rejection] = []
    for index, found in enumerate(body_type.events(body, terms.events_max)):
        try:
            if isinstance(found, Refusal):
                raise found
            events.append(normalise(found, index))
        except Refusal as refusal:
            rejections.append(_rejection(body_type, index, found, refusal))
    return Reading(events, rejections)


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


class _Normaliser:
    """Turns the raw events of one body into events."""

    def __init__(self, body_type: BodyType, body: bytes, terms: Terms) -> None:
        self._dialect = body_type.dialect
        self._units = body_type.dialect.units
        self._plain = body_type.dialect is JSON and _is_plain(body)
        self._terms = terms
        self._claim_keys: dict[int, bytes] = {}

    def event(self, raw: RawEvent, index: int) -> Event:
        """Return the event that `raw`, at `index` of the request, means. Raises Refusal."""
        if not self._plain:
            _check_strings(raw)
        event_type = raw.event_type
        units = self._units(bytes(raw.units))
        properties = self._properties(raw) if raw.properties else ""
        terms = self._terms
        given_us = event_time_us(raw.timestamp, terms.now_us, terms.floor_us) if raw.timestamp else None
        if raw.id:
            key = event_key(raw.user_id, raw.source, raw.id)
            identity = _CLAIMED if given_us is None else _TIMED
        else:
            key, identity = self._made_key(raw.user_id, index)
        return Event(
            key,
            fingerprint(_encode_payload((event_type, units, properties, given_us))),
            identity,
            index,
            terms.now_us if given_us is None else given_us,
            raw.user_id,
            raw.source,
            raw.id or None,
            event_type,
            units,
            properties,
        )

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

    def _made_key(self, user_id: str, index: int) -> tuple[bytes, int]:
        """Return the key of an event without an id, and its identity."""
        terms = self._terms
        if terms.idempotency_key is None:
            return terms.random_bytes(KEY_BYTES), _MADE
        shard = shard_of(user_id, terms.shards)
        key = self._claim_keys.get(shard)
        if key is None:
            key = self._claim_keys[shard] = claim_key(terms.idempotency_key, shard)
        return indexed_key(key, index), _INDEXED


def _check_strings(raw: RawEvent) -> None:
    together = raw.user_id + raw.event_type + raw.id + raw.source
    if together.isprintable() and (together.isascii() or len(together) * _CHARACTER_BYTES_MAX <= STRING_BYTES_MAX):
        return  # the usual case: lengths in characters are checked already, and nothing unusual is in them
    for name, code in _CODE_OF.items():
        value = getattr(raw, name)
        problem = string_problem(value) if value else None
        if problem:
            raise Refusal(code, name, problem)
