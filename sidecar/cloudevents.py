"""CloudEvents 1.0 in JSON, read as events: `subject` is the user, `type` the event type, `data` the rest. Pure.

`data.units`, or 1, is the units, whatever else `data` has the properties. Extension attributes are allowed by the
standard and say nothing about usage: they are left out. A null attribute is one that was left out.
"""

from typing import Final

import msgspec

from sidecar.fields import Refusal, shown
from sidecar.raw import JSON, UNREADABLE, RawEvent, reason

# Our field: what a CloudEvent calls it.
NAMES: Final = {
    "user_id": "subject",
    "event_type": "type",
    "id": "id",
    "source": "source",
    "timestamp": "time",
    "units": "data.units",
    "properties": "data",
}
_TEXTS: Final = ("user_id", "event_type", "id", "source", "timestamp")
_REQUIRED: Final = ("specversion", "id", "source", "type")
_NULL: Final = b"null"
_encode = msgspec.json.Encoder().encode


def event_of(body: bytes | msgspec.Raw) -> RawEvent | Refusal:
    """Return the event that one CloudEvent means, or why it means none, in the names of CloudEvents."""
    try:
        attributes = {name: raw for name, raw in JSON.fields(body).items() if bytes(raw) != _NULL}
    except UNREADABLE:
        return JSON.refusal(body)
    try:
        return _event_of(attributes)
    except Refusal as refusal:
        return refusal
    except UNREADABLE as error:
        return Refusal("event_invalid", "event", f"can't be read: {reason(error)}")


def renamed(refusal: Refusal) -> Refusal:
    """Return the refusal of an event under the names of CloudEvents."""
    first, dot, rest = refusal.field.partition(".")
    field = NAMES.get(first, first) + dot + rest
    return Refusal(refusal.code, field, refusal.problem, refusal.id)


def _event_of(attributes: dict[str, msgspec.Raw]) -> RawEvent | Refusal:
    version = attributes.get("specversion")
    if version is None or JSON.value(version) != "1.0":
        got = "none" if version is None else shown(JSON.value(version))
        return Refusal("event_invalid", "specversion", f'expected "1.0", got {got}')
    missing = [name for name in _REQUIRED if name not in attributes]
    fields = {name: attributes[theirs] for name, theirs in NAMES.items() if name in _TEXTS and theirs in attributes}
    if missing:
        return Refusal("event_invalid", missing[0], "expected a string, but the attribute is missing")
    units, properties = _data(attributes)
    if units is not None:
        fields["units"] = units
    if properties is not None:
        fields["properties"] = properties
    encoded = _encode(fields)
    try:
        return JSON.event(encoded)
    except UNREADABLE:
        return renamed(JSON.refusal(encoded))


def _data(attributes: dict[str, msgspec.Raw]) -> tuple[msgspec.Raw | None, msgspec.Raw | None]:
    """Return the units and the properties in `data`, each None where there are none. Raises Refusal."""
    if "data_base64" in attributes:
        raise Refusal("event_invalid", "data_base64", "expected data as a JSON object")
    content_type = attributes.get("datacontenttype")
    if content_type is not None and not _is_json(JSON.value(content_type)):
        raise Refusal("event_invalid", "datacontenttype", f"expected JSON, got {shown(JSON.value(content_type))}")
    data = attributes.get("data")
    if data is None:
        return None, None
    try:
        fields = JSON.fields(data)
    except UNREADABLE as error:
        raise Refusal("properties_invalid", "data", f"expected an object: {reason(error)}") from None
    units = fields.pop("units", None)
    return units, msgspec.Raw(_encode(fields)) if fields else None


def _is_json(content_type: object) -> bool:
    if not isinstance(content_type, str):
        return False
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")
