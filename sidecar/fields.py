"""The fields of an event, one by one: what each may be, and its one canonical form. Pure.

Every reader returns the canonical value or raises `Refusal`, which names the field, what was expected and what came.
The same rules serve every content type, so one event has one meaning however it was written.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from sidecar.contract.event import (
    AGE_MAX_S,
    AHEAD_MAX_S,
    STRING_BYTES_MAX,
    compact_units,
)
from sidecar.contract.units import parse_units

GOT_CHARS_MAX: Final = 48  # how much of a wrong value a message repeats

_SECOND_US: Final = 1_000_000
_INT_BITS_SHOWN: Final = 128
_KINDS: Final[dict[type, str]] = {dict: "an object", list: "an array", bytes: "binary"}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SECOND = re.compile(r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})", re.ASCII)
_ZONE = re.compile(r"(?:\.(\d{1,6}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII)
_TOO_FINE = re.compile(r"-?(0|[1-9]\d{0,14})\.\d{10,}", re.ASCII)
_SECOND_CHARS: Final = len("2025-07-21T09:34:21")
_MICROSECONDS_CHARS: Final = len(".123456Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Refusal(Exception):
    """Why an event, or a part of it, is refused: a `code` of the vocabulary and a `message` for a person.

    `field` is the part that the message starts with; `id` the event's id where it could be read.
    """

    def __init__(self, code: str, field: str, problem: str, event_id: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.field = field
        self.problem = problem
        self.id = event_id

    @property
    def message(self) -> str:
        """`<field>: <what was expected>, got <what came>`."""
        return f"{self.field}: {self.problem}" if self.field else self.problem


class NumberText(str):
    """The text of a number with a fraction or an exponent, kept as it was written."""

    __slots__ = ()


def shown(value: object) -> str:
    """Return a value as a message repeats it: JSON, shortened, with everything but printable ASCII escaped."""
    if isinstance(value, NumberText):
        text = str(value)
    elif isinstance(value, str):
        text = _quoted(value[:GOT_CHARS_MAX])
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    elif isinstance(value, int):
        text = str(value) if value.bit_length() <= _INT_BITS_SHOWN else f"a number of {value.bit_length()} bits"
    else:
        text = _KINDS.get(type(value), "") or (repr(value) if isinstance(value, float) else "an extension type")
    return text if len(text) <= GOT_CHARS_MAX else text[: GOT_CHARS_MAX - 3] + "..."


def shown_name(name: str) -> str:
    """Return a name as a message repeats it: as it is where that is plain and short, else as `shown`."""
    return name if len(name) <= GOT_CHARS_MAX and name.isascii() and name.isprintable() else shown(name)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "backslashreplace").decode()
    return '"' + _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def string_problem(value: str, *, empty: bool = False) -> str | None:
    """Return what is wrong with a string, or None: 1 (`empty`: 0) to 256 bytes of UTF-8, no control characters.

    Control characters are C0, DEL and C1: they have no place in an identity, and NUL can't be stored.
    """
    if not value and not empty:
        return f"expected a string of 1 to {STRING_BYTES_MAX} bytes, got an empty one"
    if not value.isprintable() and _CONTROL.search(value):
        return f"expected no control characters or lone surrogates, got {shown(value)}"
    if len(value) * 4 > STRING_BYTES_MAX and (size := len(value.encode())) > STRING_BYTES_MAX:
        return f"expected at most {STRING_BYTES_MAX} bytes, got {size}"
    return None


def units_of(text: str) -> int | str:
    """Return the canonical units (`Event.units`) that a string, or a number's `NumberText`, means. Raises Refusal."""
    nanos = parse_units(text)
    if nanos is None:
        expected = "at most 9 fractional digits" if _TOO_FINE.fullmatch(text) else "a decimal below 10^15"
        raise Refusal("units_invalid", "units", f"expected {expected}, got {shown(text)}")
    return compact_units(nanos)


@lru_cache(maxsize=4096)
def _second_us(text: str) -> int | None:
    match = _SECOND.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


def time_us_of(text: str) -> int | None:
    """Return the microseconds since the epoch that an RFC 3339 time with an offset means, or None when it is none.

    At most 6 fractional digits, and no leap second: neither could be kept exactly.
    """
    second_us = _second_us(text[:_SECOND_CHARS])
    if second_us is None:
        return None
    zone = text[_SECOND_CHARS:]
    if zone == "Z":
        return second_us
    if len(zone) == _MICROSECONDS_CHARS and zone[0] == "." and zone[-1] == "Z" and zone.isascii():
        digits = zone[1:-1]  # the usual form of a clock
        if digits.isdigit():
            return second_us + int(digits)
    match = _ZONE.fullmatch(zone)
    if match is None:
        return None
    fraction, sign, hours, minutes = match.groups()
    if fraction:
        second_us += int(fraction.ljust(6, "0"))
    if sign:
        offset_us = (int(hours) * 60 + int(minutes)) * 60 * _SECOND_US
        second_us += offset_us if sign == "-" else -offset_us
    return second_us


def event_time_us(text: str, now_us: int, floor_us: int) -> int:
    """Return the event time that `text` means: from 5 years before `now_us` to 5 minutes ahead, after `floor_us`.

    Raises Refusal `timestamp_invalid`, `timestamp_out_of_range` or `too_old`.
    """
    time_us = time_us_of(text)
    if time_us is None:
        expected = 'expected RFC 3339 with an offset and at most 6 fractional digits, like "2025-07-21T09:34:21Z"'
        raise Refusal("timestamp_invalid", "timestamp", f"{expected}, got {shown(text)}")
    if time_us > now_us + AHEAD_MAX_S * _SECOND_US:
        raise Refusal("timestamp_out_of_range", "timestamp", f"expected at most 5 minutes ahead, got {shown(text)}")
    if time_us < now_us - AGE_MAX_S * _SECOND_US:
        raise Refusal("timestamp_out_of_range", "timestamp", f"expected at most 5 years back, got {shown(text)}")
    if time_us <= floor_us:
        floor = time_text(floor_us)
        raise Refusal("too_old", "timestamp", f"expected a time after {floor}, up to which all is closed, got {text}")
    return time_us


def time_text(time_us: int) -> str:
    """Return microseconds since the epoch as RFC 3339 UTC, with a fraction only where there is one."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.replace(tzinfo=None).isoformat() + "Z"
