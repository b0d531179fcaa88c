"""Heads of requests: content types, keys, query parameters; each raises TaximeterError that names what is wrong."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from multidict import CIMultiDictProxy

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import IDEMPOTENCY_KEY_CHARS_MAX
from sidecar.contract.meters import Revision
from sidecar.contract.units import format_units
from sidecar.fields import shown, string_problem, time_text, time_us_of
from sidecar.live import LiveReading

_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class UsageQuery(NamedTuple):
    """What is asked of live usage: times in microseconds since the epoch, half-open."""

    user_id: str
    meter: str | None
    event_type: str | None
    start_us: int
    end_us: int


def media_type(headers: Mapping[str, str]) -> str:
    """Return the media type, lower case and without parameters. Raises `content_type_unsupported` unless in UTF-8."""
    name, *parameters = headers.get("Content-Type", "").lower().split(";")
    for parameter in parameters:
        key, _, value = parameter.strip().partition("=")
        if key == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise TaximeterError(
                "content_type_unsupported", f"Content-Type: expected charset=utf-8, got {shown(value)}"
            )
    return name.strip()


def idempotency_key(headers: CIMultiDictProxy[str]) -> str | None:
    """Return the Idempotency-Key, or None. Raises `idempotency_key_invalid`."""
    keys = headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    if len(keys) > 1:
        raise _key_invalid("several")
    check_idempotency_key(keys[0])
    return keys[0]


def check_idempotency_key(key: str) -> None:
    """Raise `idempotency_key_invalid` for a text that can't be a key."""
    if not _KEY.fullmatch(key):
        raise _key_invalid(shown(key))


def _key_invalid(got: str) -> TaximeterError:
    expected = f"expected 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters"
    return TaximeterError("idempotency_key_invalid", f"Idempotency-Key: {expected}, got {got}")


def options(query: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the query parameters. Raises `query_invalid` for one of another name, or one that is given twice."""
    found: dict[str, str] = {}
    for name, value in query.items():
        if name not in names:
            raise TaximeterError("query_invalid", f"query: expected {', '.join(names)}, got {shown(name)}")
        if name in found:
            raise TaximeterError("query_invalid", f"{name}: expected it once")
        found[name] = value
    return found


def choice(found: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    """Return one of `values`, the first where the parameter is not given. Raises `query_invalid`."""
    value = found.get(name, values[0])
    if value not in values:
        expected = " or ".join(shown(each) for each in values if each)
        raise TaximeterError("query_invalid", f"{name}: expected {expected}, got {shown(value)}")
    return value


def usage_query(query: Mapping[str, str], now_us: int) -> UsageQuery:
    """Return what GET /v1/usage asks for; without times, the UTC month of `now_us`. Raises `query_invalid`."""
    found = options(query, ("user_id", "meter", "event_type", "from", "to"))
    if "user_id" not in found:
        raise TaximeterError("query_invalid", "user_id: expected a user, but the parameter is missing")
    if "meter" in found and "event_type" in found:
        raise TaximeterError("query_invalid", "meter, event_type: expected one of them, got both")
    for name in ("user_id", "meter", "event_type"):
        problem = string_problem(found[name]) if name in found else None
        if problem:
            raise TaximeterError("query_invalid", f"{name}: {problem}")
    first_us, behind_us = _month(now_us)
    return UsageQuery(
        found["user_id"],
        found.get("meter"),
        found.get("event_type"),
        _time(found, "from", first_us),
        _time(found, "to", behind_us),
    )


def _time(found: Mapping[str, str], name: str, default_us: int) -> int:
    if name not in found:
        return default_us
    # A plus sign that was not percent-encoded arrives as a space.
    time_us = time_us_of(found[name].replace(" ", "+"))
    if time_us is None:
        expected = 'expected RFC 3339 with an offset, like "2025-07-01T00:00:00Z"'
        raise TaximeterError("query_invalid", f"{name}: {expected}, got {shown(found[name])}")
    return time_us


def _month(now_us: int) -> tuple[int, int]:
    """Return the start of the UTC month and of the next one."""
    first = (_EPOCH + timedelta(microseconds=now_us)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    behind = (first + timedelta(days=31)).replace(day=1)
    return (first - _EPOCH) // _MICROSECOND, (behind - _EPOCH) // _MICROSECOND


def usage_of(query: UsageQuery, live: LiveReading, revision: Revision) -> dict[str, object]:
    """Return the answer: the shape of `taximeter usage --json`, and the moment it is of."""
    meters = revision.fed_by(query.event_type) if query.event_type is not None else None
    rows = [
        {
            "customer": row.customer,
            "meter": row.meter,
            "dimensions": row.dimensions,
            "from": time_text(query.start_us),
            "to": time_text(query.end_us),
            "units": format_units(row.nanos),
            "events": row.events,
        }
        for row in live.rows
        if meters is None or row.meter in meters
    ]
    return {"usage": rows, "as_of": time_text(live.as_of_us)}
