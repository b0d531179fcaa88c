"""Bodies taken apart into events, by content type. Pure.

The usual body is decoded whole, typed, in C. Only when that fails is it split, and each event decoded apart, so that
a bad event spoils no neighbour and its own fault can be named.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from sidecar import cloudevents
from sidecar.contract.codes import TaximeterError
from sidecar.fields import Refusal
from sidecar.raw import JSON, MSGPACK, UNREADABLE, Dialect, RawEvent, reason

Found = RawEvent | Refusal

_COMMAS_PER_EVENT_MAX: Final = 64  # more than the fields and properties of an event have
_JSON_SPACE: Final = b" \t\r\n"
_NUL_ESCAPE: Final = rb"\u0000"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class BodyType(NamedTuple):
    """A content type: the dialect of its values, what finds the events in a body (at most so many), and what
    puts a refusal into the names that the content type has for fields."""

    dialect: Dialect
    events: Callable[[bytes, int], list[Found]]
    renamed: Callable[[Refusal], Refusal] | None = None


def _invalid(expected: str, error: Exception) -> TaximeterError:
    return TaximeterError("body_invalid", f"body: expected {expected}: {reason(error)}")


def _too_many(events_max: int) -> TaximeterError:
    return TaximeterError("too_many_events", f"body: expected at most {events_max} events; send it in parts")


def _bounded(found: list[Found], events_max: int) -> list[Found]:
    if len(found) > events_max:
        raise _too_many(events_max)
    return found


def _event(dialect: Dialect, raw: bytes | msgspec.Raw) -> Found:
    try:
        return dialect.event(raw)
    except UNREADABLE:
        return dialect.refusal(raw)


def _each(dialect: Dialect, pieces: Iterable[bytes | msgspec.Raw]) -> list[Found]:
    return [_event(dialect, piece) for piece in pieces]


def _one(dialect: Dialect, body: bytes, expected: str) -> list[Found]:
    try:
        return [dialect.event(body)]
    except UNREADABLE:
        check_whole(dialect, body, expected)
    return [dialect.refusal(body)]


def check_whole(dialect: Dialect, body: bytes, expected: str) -> None:
    """Raise TaximeterError `body_invalid` unless the body is one value of the dialect."""
    try:
        dialect.whole(body)
    except UNREADABLE as error:
        raise _invalid(expected, error) from None


def json_pieces(
    body: bytes, events_max: int, expected: str = "a JSON event or an array of events"
) -> list[msgspec.Raw]:
    """Return the elements of a JSON array. Raises TaximeterError `body_invalid` or `too_many_events`."""
    if body.count(b",") > events_max * _COMMAS_PER_EVENT_MAX:  # each element costs memory: bound them beforehand
        raise _too_many(events_max)
    try:
        pieces = JSON.pieces(body)
    except UNREADABLE as error:
        raise _invalid(expected, error) from None
    if len(pieces) > events_max:
        raise _too_many(events_max)
    return pieces


def is_json_array(body: bytes) -> bool:
    """Whether the first thing in the body is a bracket."""
    return body[:1] == b"[" or body.lstrip(_JSON_SPACE)[:1] == b"["


def without_lone_surrogates(body: bytes) -> bytes:
    """Return a JSON body with every escape of a lone surrogate made one of NUL, which no field may have either.

    JSON allows such escapes and no decoder of ours does: left in, one would make the whole body unreadable.
    """
    if b"\\u" not in body or not _SURROGATE.search(body):
        return body
    return _ESCAPE.sub(lambda match: _NUL_ESCAPE if match["lone"] else match[0], body)


def _json(body: bytes, events_max: int) -> list[Found]:
    body = without_lone_surrogates(body)
    if not is_json_array(body):
        return _one(JSON, body, "a JSON event or an array of events")
    try:
        found: list[Found] = [*JSON.events(body)]
    except UNREADABLE:
        return _each(JSON, json_pieces(body, events_max))
    return _bounded(found, events_max)


def ndjson_lines(body: bytes, events_max: int) -> list[bytes]:
    """Return the lines of a body that are not empty. Raises TaximeterError `too_many_events`."""
    if body.count(b"\n") > events_max:
        raise _too_many(events_max)
    lines = [line for line in without_lone_surrogates(body).split(b"\n") if line.strip(_JSON_SPACE)]
    if len(lines) > events_max:
        raise _too_many(events_max)
    return lines


def _ndjson(body: bytes, events_max: int) -> list[Found]:
    return _each(JSON, ndjson_lines(body, events_max))


def _msgpack(body: bytes, events_max: int) -> list[Found]:
    count = _msgpack_count(body)
    if count is None:
        return _one(MSGPACK, body, "a msgpack event or an array of events")
    if count > events_max:
        raise _too_many(events_max)
    try:
        return [*MSGPACK.events(body)]
    except UNREADABLE:
        pass
    try:
        pieces = MSGPACK.pieces(body)
    except UNREADABLE as error:
        raise _invalid("a msgpack event or an array of events", error) from None
    return _each(MSGPACK, pieces)


def _msgpack_count(body: bytes) -> int | None:
    """Return how many elements the array says that it has, or None when the body is no array."""
    first = body[:1]
    if b"\x90" <= first <= b"\x9f":
        return first[0] & 0x0F
    if first in (b"\xdc", b"\xdd"):
        return int.from_bytes(body[1 : 3 if first == b"\xdc" else 5], "big")
    return None


def _cloudevent(body: bytes, _events_max: int) -> list[Found]:
    body = without_lone_surrogates(body)
    check_whole(JSON, body, "a JSON CloudEvent")
    return [cloudevents.event_of(body)]


def _cloudevents(body: bytes, events_max: int) -> list[Found]:
    if not is_json_array(body):
        raise TaximeterError("body_invalid", "body: expected a JSON array of CloudEvents")
    return [cloudevents.event_of(piece) for piece in json_pieces(without_lone_surrogates(body), events_max)]


BODY_TYPES: Final = {
    "application/json": BodyType(JSON, _json),
    "application/x-ndjson": BodyType(JSON, _ndjson),
    "application/msgpack": BodyType(MSGPACK, _msgpack),
    "application/cloudevents+json": BodyType(JSON, _cloudevent, cloudevents.renamed),
    "application/cloudevents-batch+json": BodyType(JSON, _cloudevents, cloudevents.renamed),
}
