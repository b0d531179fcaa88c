"""An event as it is sent, made while `track` is called: what the app does with its objects later changes nothing.

Only types are looked at here; what a value may be is the sidecar's to say.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

EVENT_BYTES_MAX: Final = 64 * 1024  # more than any event that a sidecar accepts
ARRAY_HEAD_BYTES: Final = 5

_SECOND_US: Final = 1_000_000
_THREE_DIGITS: Final = tuple(f"{number:03d}" for number in range(1000))  # quicker than to format them
_encode = msgspec.msgpack.Encoder().encode
_pieces = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_value = msgspec.msgpack.Decoder().decode


class _Event(msgspec.Struct, omit_defaults=True, gc=False):
    user_id: str
    event_type: str
    units: int | str
    timestamp: str | None = None
    id: str | None = None
    source: str | None = None
    properties: Mapping[str, Any] | None = None


class Moments:
    """Formats times. A second's text is made once: the rest of it takes a tenth of the time."""

    def __init__(self) -> None:
        self._known = (-_SECOND_US, "")  # a second, in microseconds, and its text

    def text(self, time_us: int) -> str:
        """Return microseconds since the epoch as RFC 3339, with all their digits."""
        second_us, text = self._known  # read once: other threads replace it
        micros = time_us - second_us
        if not 0 <= micros < _SECOND_US:
            second, micros = divmod(time_us, _SECOND_US)
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._known = (second * _SECOND_US, text)
        return f"{text}{_THREE_DIGITS[micros // 1000]}{_THREE_DIGITS[micros % 1000]}Z"


_moment = Moments().text


def encode_event(
    user_id: str,
    event_type: str,
    units: int | Decimal | str,
    event_id: str | None,
    source: str | None,
    timestamp: datetime | str | None,
    properties: Mapping[str, Any] | None,
) -> bytes:
    """Return the event as msgpack; without a `timestamp` it happened now.

    With an id alone no time is in it: the sidecar gives one, and the same id tracked again is the same event.

    Raises TypeError for an argument of another type, ValueError for what can't be written as msgpack at all.
    """
    if type(user_id) is not str or type(event_type) is not str:
        _check_strings(user_id=user_id, event_type=event_type)
    if type(units) is not int:
        units = _units_text(units)
    if event_id is not None or source is not None:
        _check_strings(id=event_id or "", source=source or "")
    if properties and Decimal in map(type, properties.values()):
        properties = {name: _number(name, value) for name, value in properties.items()}
    moment = None
    if timestamp is not None:
        moment = _time_text(timestamp)
    elif event_id is None:
        moment = _moment(time.time_ns() // 1000)
    try:
        encoded = _encode(_Event(user_id, event_type, units, moment, event_id, source, properties or None))
    except OverflowError:
        raise ValueError("units, properties: expected integers of at most 64 bits") from None
    if len(encoded) > EVENT_BYTES_MAX:
        raise ValueError(f"event: expected at most {EVENT_BYTES_MAX} bytes, got {len(encoded)}")
    return encoded


def _check_strings(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected a str, got {type(value).__name__}")


def _units_text(units: object) -> int | str:
    """Return units other than a plain int as they are sent: never through a float, never with an exponent."""
    if isinstance(units, Decimal):
        return format(units, "f")
    if isinstance(units, str) or (isinstance(units, int) and not isinstance(units, bool)):
        return units
    raise TypeError(f"units: expected an int, a Decimal or a str, got {type(units).__name__}; a float is not exact")


def _number(name: str, value: object) -> object:
    """Return a property's value as msgpack can say it: it has no decimals, so one is an int, or a float of its text."""
    if not isinstance(value, Decimal):
        return value
    if value == value.to_integral_value():
        return int(value)
    nearest = float(value)  # the sidecar reads it by its shortest text
    if Decimal(repr(nearest)) != value:
        raise ValueError(f"properties.{name}: expected a decimal of at most 15 digits, got {value}")
    return nearest


def _time_text(timestamp: object) -> str:
    if isinstance(timestamp, str):
        return timestamp
    if not isinstance(timestamp, datetime):
        raise TypeError(f"timestamp: expected a datetime or a str, got {type(timestamp).__name__}")
    if timestamp.utcoffset() is None:
        raise TypeError("timestamp: expected a datetime with a time zone, got a naive one")
    return timestamp.astimezone(UTC).isoformat()


def body_of(events: Sequence[bytes]) -> bytes:
    """Return encoded events as one msgpack array, the body of a request."""
    return b"\xdd" + len(events).to_bytes(4, "big") + b"".join(events)


def events_of(body: bytes) -> list[bytes]:
    """Return the encoded events of a body."""
    return [bytes(piece) for piece in _pieces(body)]


def shown(event: bytes) -> dict[str, Any]:
    """Return an encoded event as a dict, for a person or a callback."""
    decoded: dict[str, Any] = _value(event)
    return decoded
