"""What the load generator sends: whole requests as bytes, made once, with places for a number and a time. Pure.

The number makes every request another one (`MARK`), the time is when it is sent (`STAMP`); both are as wide as what
takes their place, so that no length changes. Putting them in costs the generator hundredths of a microsecond an event.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

MARK: Final = b"@@@@@@@@@@@@"  # the number of the request: 12 hex digits
STAMP: Final = b"####################"  # when it is sent, in seconds: 2026-01-31T23:59:59Z
USERS: Final = 100

Encoding = Literal["json", "ndjson", "msgpack"]
_MEDIA_TYPES: Final[dict[Encoding, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "msgpack": "application/msgpack",
}
_HELLO, _BATCH = range(2)  # messages of the stream socket (sidecar/STREAM.md)
_json: Final = msgspec.json.Encoder().encode
_msgpack: Final = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a load: its bytes, how many events it brings, and how its answer is told.

    `expected`: words that a good answer has. `answer_bytes`: how long it is, where that says when it is whole; 0 for an
    answer in HTTP. `greeting`: what a connection to the stream socket begins with; then answers are frames.
    """

    template: bytes
    events: int
    expected: bytes = b""
    answer_bytes: int = 0
    greeting: bytes = b""


def events(count: int, run: str, *, ids: bool) -> list[dict[str, object]]:
    """Return the events of a request: of `USERS` users in turn, an API call each. `run` is for ids of its own."""
    made: list[dict[str, object]] = []
    for number in range(count):
        event: dict[str, object] = {"user_id": f"cus_{number % USERS:06}", "event_type": "api_call", "units": 1}
        event["timestamp"] = STAMP.decode()
        if ids:
            event["id"] = f"{run}-{MARK.decode()}-{number:04}"
        made.append(event)
    return made


def encode(made: list[dict[str, object]], encoding: Encoding) -> bytes:
    """Return events as a body; a single one is no list."""
    if encoding == "msgpack":
        return _msgpack(made[0] if len(made) == 1 else made)
    if encoding == "ndjson":
        return b"".join(_json(event) + b"\n" for event in made)
    return _json(made[0] if len(made) == 1 else made)


def http_batch(count: int, run: str, encoding: Encoding = "json", *, keyed: bool = False) -> Request:
    """Return a request of `count` events: with an id each, or with one Idempotency-Key for all (`keyed`)."""
    body = encode(events(count, run, ids=not keyed), encoding)
    key = f"Idempotency-Key: {run}-{MARK.decode()}\r\n" if keyed else ""
    template = _post("/v1/events", body, _MEDIA_TYPES[encoding], key)
    return Request(template, count, b'"accepted":%d,' % count)


def stream_batch(count: int, run: str, *, keyed: bool = False) -> Request:
    """Return a batch of `count` events for the stream socket, with an id each or with one key for all (`keyed`).

    Its number is always the same: a connection has one batch under way.
    """
    body = encode(events(count, run, ids=not keyed), "msgpack")
    template = _frame([_BATCH, 1, f"{run}-{MARK.decode()}" if keyed else None, body])
    # Behind the status, "applied" or "journaled", comes how many were accepted.
    return Request(template, count, b"ed" + _msgpack(count), greeting=_frame([_HELLO, [1]]))


def http_event(path: str, run: str, user: str = "") -> Request:
    """Return a request of one event in JSON, as a peer takes it, of a user; any answer of 200 is good."""
    (event,) = events(1, run, ids=True)
    if user:
        event["user_id"] = user
    return Request(_post(path, encode([event], "json"), _MEDIA_TYPES["json"]), 1)


def http_body(of: Request) -> Request:
    """Return the same request for a server that only reads it."""
    return Request(of.template, of.events)


def set_nx(count: int, run: str, ttl_s: int) -> Request:
    """Return `count` commands SET key value NX EX in one piece; a key has 16 bytes of its own, a value 8, as ours."""
    commands = b"".join(
        _command(b"SET", b"bench:%s:%s%04d" % (run.encode(), MARK, number), b"8 bytes!", b"NX", b"EX", b"%d" % ttl_s)
        for number in range(count)
    )
    return Request(commands, count, b"+OK\r\n" * count, 5 * count)


def webdis_set(run: str, ttl_s: int) -> Request:
    """Return a GET of webdis that is one SET key value NX EX."""
    path = f"/SET/{run}-{MARK.decode()}/8bytes!!/NX/EX/{ttl_s}"
    return Request(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 1, b"OK")


def _post(path: str, body: bytes, media_type: str, more: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _frame(message: list[object]) -> bytes:
    payload = _msgpack(message)
    return len(payload).to_bytes(4, "big") + payload


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
