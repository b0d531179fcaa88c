"""The OpenAPI document of the HTTP interface: paths, bodies, answers and every code of a problem."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from sidecar.contract.codes import CODES
from sidecar.contract.event import IDEMPOTENCY_KEY_CHARS_MAX, PROPERTIES_MAX, STRING_BYTES_MAX

_Schema = dict[str, Any]

_STRING: Final = {"type": "string", "minLength": 1, "maxLength": STRING_BYTES_MAX}
_DECIMAL: Final = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?$"
_RETRIED: Final = ("429", "503")


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_COUNT: Final = {"type": "integer", "minimum": 0}
_UNKNOWN: Final = {"type": ["integer", "null"], "minimum": 0}
_COUNTS: Final = {"accepted": _COUNT, "duplicates": _UNKNOWN, "conflicts": _UNKNOWN, "rejected": _COUNT}
_CODE: Final = {"type": "string", "enum": sorted(CODES)}
_TIME: Final = {"type": "string", "format": "date-time"}


def _schemas() -> dict[str, _Schema]:
    return {
        "Event": _event(),
        "CloudEvent": _cloudevent(),
        "Void": _void(),
        "Result": _result(),
        "Answer": _applied(),
        "Problem": _problem(),
        "Usage": _live(),
        "UsageRow": _row(),
    }


def _event() -> _Schema:
    return {
        "type": "object",
        "required": ["user_id", "event_type"],
        "additionalProperties": False,
        "properties": {
            "user_id": _STRING,
            "event_type": _STRING,
            "units": {
                "description": "Read from its text, never through a float; no exponent.",
                "default": 1,
                "oneOf": [{"type": "number"}, {"type": "string", "pattern": _DECIMAL}],
            },
            "timestamp": {"type": "string", "format": "date-time", "description": "With an offset; default now."},
            "id": _STRING,
            "source": {**_STRING, "minLength": 0, "default": ""},
            "properties": {
                "type": "object",
                "maxProperties": PROPERTIES_MAX,
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
        },
    }


def _cloudevent() -> _Schema:
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": _STRING,
            "source": _STRING,
            "type": {**_STRING, "description": "The event type."},
            "subject": {**_STRING, "description": "The user."},
            "time": _TIME,
            "data": {"type": "object", "description": "`units`, default 1; the rest are the properties."},
        },
    }


def _void() -> _Schema:
    return {
        "type": "object",
        "required": ["user_id", "id", "timestamp", "reason"],
        "additionalProperties": False,
        "properties": {
            "user_id": _STRING,
            "id": {**_STRING, "description": "The id of the event that is cancelled."},
            "source": {**_STRING, "minLength": 0, "default": ""},
            "timestamp": {**_TIME, "description": "The event's time, with an offset."},
            "reason": {**_STRING, "description": "Why; kept with it."},
        },
    }


def _result() -> _Schema:
    return {
        "type": "object",
        "required": ["index", "id", "code"],
        "properties": {
            "index": _COUNT,
            "id": {"type": ["string", "null"]},
            "code": _CODE,
            "message": {"type": "string"},
        },
    }


def _applied() -> _Schema:
    return {
        "type": "object",
        "required": ["status", *_COUNTS, "results"],
        "properties": {
            "status": {"enum": ["applied", "journaled"]},
            **_COUNTS,
            "results": {"type": "array", "items": _ref("Result")},
            "ids": {
                "type": "array",
                "items": {"type": "object", "properties": {"index": _COUNT, "id": {"type": "string"}}},
            },
        },
    }


def _problem() -> _Schema:
    return {
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": _CODE,
            "detail": {"type": "string"},
            **_COUNTS,
            "results": {"type": "array", "items": _ref("Result")},
        },
    }


def _live() -> _Schema:
    return {
        "type": "object",
        "required": ["usage", "as_of"],
        "properties": {
            "usage": {"type": "array", "items": _ref("UsageRow")},
            "as_of": _TIME,
        },
    }


def _row() -> _Schema:
    return {
        "type": "object",
        "properties": {
            "customer": {"type": "string"},
            "meter": {"type": "string"},
            "dimensions": {"type": "object", "additionalProperties": {"type": "string"}},
            "from": _TIME,
            "to": _TIME,
            "units": {"type": "string", "description": "A decimal."},
            "events": _COUNT,
        },
    }


def _answer(description: str, schema: _Schema) -> _Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: str) -> dict[str, _Schema]:
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    problem: _Schema = {
        "description": "A problem, RFC 9457; `code` says which.",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    return {status: {**problem, "headers": retry} if status in _RETRIED else problem for status in statuses}


def _parameter(where: str, name: str, description: str, schema: _Schema, *, required: bool = False) -> _Schema:
    return {"in": where, "name": name, "description": description, "required": required, "schema": schema}


_KEY: Final = _parameter(
    "header",
    "Idempotency-Key",
    "Covers the events without an id: a retry with the same body counts once.",
    {"type": "string", "pattern": f"^[!-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}$"},
)
_ATOMIC: Final = _parameter(
    "query", "atomic", "Refuse the whole body when a part of it is bad.", {"enum": ["false", "true"]}
)
_BODY_PROBLEMS: Final = ("400", "401", "403", "408", "413", "415", "422", "429", "503")


def _events() -> _Schema:
    one_or_more: _Schema = {"oneOf": [_ref("Event"), {"type": "array", "items": _ref("Event")}]}
    bodies = {
        "application/json": one_or_more,
        "application/x-ndjson": _ref("Event"),
        "application/msgpack": one_or_more,
        "application/cloudevents+json": _ref("CloudEvent"),
        "application/cloudevents-batch+json": {"type": "array", "items": _ref("CloudEvent")},
    }
    return {
        "summary": "Take events; a bad one spoils no other.",
        "parameters": [
            _KEY,
            _ATOMIC,
            _parameter("query", "return", "List the ids that were made for events without one.", {"enum": ["ids"]}),
        ],
        "requestBody": {"required": True, "content": {name: {"schema": schema} for name, schema in bodies.items()}},
        "responses": {
            "200": _answer("Applied: what is a duplicate or a conflict is known.", _ref("Answer")),
            "202": _answer("Journaled: on disk here, and will be applied.", _ref("Answer")),
            **_problems(*_BODY_PROBLEMS),
        },
    }


def _voids() -> _Schema:
    one_or_more: _Schema = {"oneOf": [_ref("Void"), {"type": "array", "items": _ref("Void")}]}
    return {
        "summary": "Cancel events by identity and timestamp, each once, also before they come.",
        "parameters": [_KEY, _ATOMIC],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": one_or_more}, "application/x-ndjson": {"schema": _ref("Void")}},
        },
        "responses": {
            "200": _answer("Applied: what is a duplicate or a conflict is known.", _ref("Answer")),
            "202": _answer("Journaled: on disk here, and will be applied.", _ref("Answer")),
            **_problems(*_BODY_PROBLEMS),
        },
    }


def _track() -> _Schema:
    success = {"type": "object", "properties": {"success": {"const": True}}}
    return {
        "summary": "Take one event.",
        "parameters": [_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Event")}}},
        "responses": {"200": _answer("It is counted, once.", success), **_problems(*_BODY_PROBLEMS)},
    }


def _usage() -> _Schema:
    return {
        "summary": "What a user has used by now, in a half-open range; default this UTC month.",
        "parameters": [
            _parameter("query", "user_id", "Whose usage.", _STRING, required=True),
            _parameter("query", "meter", "Of one meter; default all.", _STRING),
            _parameter("query", "event_type", "Of the meters that this type feeds.", _STRING),
            _parameter("query", "from", "A full quarter of an hour.", _TIME),
            _parameter("query", "to", "A full quarter of an hour.", _TIME),
        ],
        "responses": {
            "200": _answer(
                "Sums, counts and averages with all that is in Redis; other aggregations as of the last drain.",
                _ref("Usage"),
            ),
            **_problems("400", "401", "403", "422", "503"),
        },
    }


def _probe(summary: str, *, ready: bool) -> _Schema:
    status = {"type": "object", "properties": {"status": {"type": "string"}}}
    problems = _problems("503") if ready else {}
    return {"summary": summary, "responses": {"200": _answer("It does.", status), **problems}}


def document() -> dict[str, object]:
    """Return the document, OpenAPI 3.1."""
    try:
        number = version("taximeter")
    except PackageNotFoundError:
        number = "0"
    text = {"200": {"description": "Prometheus's text format.", "content": {"text/plain": {}}}}
    anything = {"200": _answer("This document.", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Taximeter", "version": number, "description": "Takes usage events and counts each once."},
        "paths": {
            "/v1/events": {"post": _events()},
            "/v1/events/void": {"post": _voids()},
            "/track": {"post": _track()},
            "/v1/usage": {"get": _usage()},
            "/livez": {"get": _probe("Whether the process answers.", ready=False)},
            "/readyz": {"get": _probe("Whether events are accepted.", ready=True)},
            "/metrics": {"get": {"summary": "Metrics.", "responses": text}},
            "/openapi.json": {"get": {"summary": "This document.", "responses": anything}},
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
