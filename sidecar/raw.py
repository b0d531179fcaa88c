"""An event as it was sent, and the two dialects, JSON and msgpack, that its values are written in. Pure.

Of a key that an object has twice, the last counts.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, NamedTuple, TypeGuard

import msgspec

from sidecar.contract.event import STRING_BYTES_MAX
from sidecar.fields import NumberText, Refusal, shown, string_problem, units_of
from sidecar.properties import canonical_properties

# What decoding untrusted bytes may raise, nesting without end included.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

UNITS_BYTES_MAX: Final = 64  # of the value as it was sent, quotes included

_decode_canonical = msgspec.json.Decoder(dict[str, object], float_hook=Decimal).decode

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=STRING_BYTES_MAX)]


ABSENT: Final = msgspec.Raw()  # a field that was left out


class RawEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event as it was sent: the fields of the documentation, `units` and `properties` still as bytes.

    A field that was left out is empty.
    """

    user_id: Identifier
    event_type: Identifier
    units: msgspec.Raw = msgspec.Raw()
    timestamp: Annotated[str, msgspec.Meta(min_length=1)] = ""
    id: Identifier = ""
    source: Annotated[str, msgspec.Meta(max_length=STRING_BYTES_MAX)] = ""
    properties: msgspec.Raw = ABSENT


class Form(NamedTuple):
    """What is looked for in a body: the word for it, all its fields, the codes of its texts, and which it must have."""

    name: str
    fields: tuple[str, ...]
    codes: Mapping[str, str]
    required: tuple[str, ...]


EVENT: Final = Form(
    "event",
    RawEvent.__struct_fields__,
    {
        "user_id": "user_id_invalid",
        "event_type": "event_type_invalid",
        "id": "id_invalid",
        "source": "source_invalid",
        "timestamp": "timestamp_invalid",
    },
    ("user_id", "event_type"),
)


class Properties(NamedTuple):
    """Canonical JSON text, and the values in it: strings, booleans, ints and Decimals."""

    text: str
    values: dict[str, object]


class Dialect:
    """How values are written: JSON or msgpack.

    `event`, `events`, `whole`, `pieces`, `fields` and `value` decode bytes as one event, a list of events, one value
    still as bytes, a list of those, an object of those, and any value; they raise one of `UNREADABLE`. `units` and
    `properties` read those fields' bytes, remember what was read lately, and raise Refusal.
    """

    def __init__(
        self,
        *,
        event: Callable[[bytes | msgspec.Raw], RawEvent],
        events: Callable[[bytes], list[RawEvent]],
        whole: Callable[[bytes], msgspec.Raw],
        pieces: Callable[[bytes], list[msgspec.Raw]],
        fields: Callable[[bytes | msgspec.Raw], dict[str, msgspec.Raw]],
        value: Callable[[bytes | msgspec.Raw], object],
    ) -> None:
        self.event = event
        self.events = events
        self.whole = whole
        self.pieces = pieces
        self.fields = fields
        self.value = value
        self.units = lru_cache(maxsize=4096)(self._units)
        self.properties = lru_cache(maxsize=1024)(self.read_properties)

    def _units(self, raw: bytes) -> int | str:
        if not raw:
            return 1
        if len(raw) > UNITS_BYTES_MAX:
            raise Refusal("units_invalid", "units", f"expected a decimal below 10^15, got {len(raw)} bytes")
        value = self._value("units_invalid", "units", raw)
        if isinstance(value, str):
            return units_of(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return units_of(NumberText(value))
        kind = "the float " if isinstance(value, float) else ""
        raise Refusal("units_invalid", "units", f"expected a decimal below 10^15, got {kind}{shown(value)}")

    def read_properties(self, raw: bytes) -> Properties:
        """Return the properties that these bytes mean; `properties` is the same, remembered."""
        value = self._value("properties_invalid", "properties", raw)
        if not isinstance(value, dict):
            raise Refusal("properties_invalid", "properties", f"expected an object, got {shown(value)}")
        text = canonical_properties(value)
        return Properties(text, _decode_canonical(text) if text else {})

    def _value(self, code: str, field: str, raw: bytes) -> object:
        try:
            return self.value(raw)
        except UNREADABLE as error:
            raise Refusal(code, field, f"can't be read: {reason(error)}") from None

    def refusal(self, raw: bytes | msgspec.Raw, form: Form = EVENT) -> Refusal:
        """Return why these bytes are nothing of this form."""
        try:
            fields = self.fields(raw)
        except UNREADABLE as error:
            return self._no_object(raw, error, form)
        texts = {name: self._text(fields[name]) for name in form.codes if name in fields}
        event_id = texts.get("id")
        known_id = event_id if _is_string(event_id) and not string_problem(event_id) else None
        for name in fields:
            if name not in form.fields:
                unknown = f"unknown field {shown(name)}; the fields are {', '.join(form.fields)}"
                return Refusal("event_invalid", form.name, unknown, known_id)
        for name, code in form.codes.items():
            problem = self._text_problem(name, texts, required=name in form.required)
            if problem:
                return Refusal(code, name, problem, known_id)
        return Refusal("event_invalid", form.name, "can't be read", known_id)

    def _no_object(self, raw: bytes | msgspec.Raw, error: Exception, form: Form) -> Refusal:
        try:
            value = self.value(raw)
        except UNREADABLE:
            return Refusal("event_invalid", form.name, f"can't be read: {reason(error)}")
        got = "one whose names are not all strings" if isinstance(value, dict) else shown(value)
        return Refusal("event_invalid", form.name, f"expected an object, got {got}")

    def _text(self, raw: msgspec.Raw) -> object:
        try:
            return self.value(raw)
        except UNREADABLE as error:
            return error

    @staticmethod
    def _text_problem(name: str, texts: dict[str, object], *, required: bool) -> str | None:
        if name not in texts:
            return "expected a string, but the field is missing" if required else None
        value = texts[name]
        if isinstance(value, Exception):
            return f"can't be read: {reason(value)}"
        if not _is_string(value):
            advice = "" if value is not None or required else "; leave the field out"
            return f"expected a string, got {shown(value)}{advice}"
        return string_problem(value, empty=name == "source")


def _is_string(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not isinstance(value, NumberText)


def reason(error: Exception) -> str:
    """Return why a decoder gave up, for a person; it never repeats what was sent."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)


JSON: Final = Dialect(
    event=msgspec.json.Decoder(RawEvent).decode,
    events=msgspec.json.Decoder(list[RawEvent]).decode,
    whole=msgspec.json.Decoder(msgspec.Raw).decode,
    pieces=msgspec.json.Decoder(list[msgspec.Raw]).decode,
    fields=msgspec.json.Decoder(dict[str, msgspec.Raw]).decode,
    value=msgspec.json.Decoder(float_hook=NumberText).decode,  # a number's text, never a float
)
MSGPACK: Final = Dialect(
    event=msgspec.msgpack.Decoder(RawEvent).decode,
    events=msgspec.msgpack.Decoder(list[RawEvent]).decode,
    whole=msgspec.msgpack.Decoder(msgspec.Raw).decode,
    pieces=msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
    fields=msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode,
    value=msgspec.msgpack.Decoder().decode,
)
