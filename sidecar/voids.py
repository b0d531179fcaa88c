"""Bodies of `POST /v1/events/void` taken apart into voids, each read as the event of type `taximeter.void` that it is.

A void names the event that it cancels by user, source, id and timestamp, and says why. From here on it goes the way of
every event, with units 0 and the reason as its only property. Pure.
"""

from typing import Annotated, Final

import msgspec

from sidecar.bodies import (
    BodyType,
    Found,
    check_whole,
    is_json_array,
    json_pieces,
    ndjson_lines,
    without_lone_surrogates,
)
from sidecar.contract.event import STRING_BYTES_MAX, VOID_TYPE
from sidecar.fields import Refusal, string_problem
from sidecar.raw import EVENT, JSON, UNREADABLE, Form, Identifier, RawEvent

_EXPECTED: Final = "a JSON void or an array of voids"
_UNITS: Final = msgspec.Raw(b"0")
_encode = msgspec.json.Encoder().encode


class RawVoid(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One void as it was sent; all but `source` is required."""

    user_id: Identifier
    id: Identifier
    timestamp: Annotated[str, msgspec.Meta(min_length=1)]
    reason: Identifier
    source: Annotated[str, msgspec.Meta(max_length=STRING_BYTES_MAX)] = ""


_VOID: Final = Form(
    "void",
    RawVoid.__struct_fields__,
    {name: EVENT.codes.get(name, "reason_invalid") for name in RawVoid.__struct_fields__},
    ("user_id", "id", "timestamp", "reason"),
)
_decode = msgspec.json.Decoder(RawVoid).decode


def _void(piece: bytes | msgspec.Raw) -> Found:
    try:
        void = _decode(piece)
    except UNREADABLE:
        return JSON.refusal(piece, _VOID)
    problem = string_problem(void.reason)
    if problem:
        return Refusal("reason_invalid", "reason", problem, None if string_problem(void.id) else void.id)
    reason = msgspec.Raw(_encode({"reason": void.reason}))
    return RawEvent(void.user_id, VOID_TYPE, _UNITS, void.timestamp, void.id, void.source, reason)


def _json(body: bytes, voids_max: int) -> list[Found]:
    body = without_lone_surrogates(body)
    if is_json_array(body):
        return [_void(piece) for piece in json_pieces(body, voids_max, _EXPECTED)]
    check_whole(JSON, body, _EXPECTED)
    return [_void(body)]


def _ndjson(body: bytes, voids_max: int) -> list[Found]:
    return [_void(line) for line in ndjson_lines(body, voids_max)]


VOID_TYPES: Final = {"application/json": BodyType(JSON, _json), "application/x-ndjson": BodyType(JSON, _ndjson)}
