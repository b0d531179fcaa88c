"""The forms of the ledger's rows: what goes into statements, and what comes out of them. Pure."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from flusher.law import Case, Decision
from flusher.summed import Sum
from flusher.voids import Void, Voided
from sidecar.contract.codec import Batch, numbers
from sidecar.contract.event import Content, Event, Identity
from sidecar.contract.identity import FINGERPRINT_BYTES, KEY_BYTES
from sidecar.contract.meters import Amount, Counter, Value
from sidecar.contract.units import format_units, from_decimal, to_decimal

# -- COPY in binary: what a content's rows share is packed once, the rest is joined

COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END: Final = b"\xff\xff"
_EVENT: Final = b"\x00\x0d"  # rows of 13 columns
_VALUE: Final = b"\x00\x07%b\0\0\0\x08%b\0\0\0\x10%b"  # of 7 columns: shared, time, key
_STAGED: Final = b"\x00\x0e\x00\x00\x00\x04"  # of 14, and the first has 4 bytes
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTHS: Final = tuple(length.to_bytes(4, "big") for length in range(1024))
_ROW: Final = b"%b\0\0\0\x08%b\0\0\0\x08%b\0\0\0\x10%b%b"  # shared, time, fingerprint, key, id
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01 since 1970
_CACHED: Final = 4_096


def copied_events(shard: int, cases: Sequence[Case], wanted: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """Yield the input of `copy_events`: of every case the places that are wanted, a sum by its first place.

    Raises ValueError for numbers that no column takes.
    """
    yield COPY_HEAD
    for case, places in zip(cases, wanted, strict=True):
        if places:
            yield _EVENT + _EVENT.join(_rows(shard, case, places))
    yield COPY_END


def copied_staged(shard: int, cases: Sequence[Case], wanted: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """Yield the input of `copy_staged`: the same, numbered from 0."""
    yield COPY_HEAD
    number = 0
    for case, places in zip(cases, wanted, strict=True):
        for row in _rows(shard, case, places):
            yield _STAGED + number.to_bytes(4, "big") + row
            number += 1
    yield COPY_END


def copied_values(found: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the input of `copy_values`: rows that `value_row` made."""
    yield COPY_HEAD
    yield from found
    yield COPY_END


def shared_of_value(user_id: str, value: Value) -> bytes:
    """Return the columns that the values of events of one content have in common."""
    return b"".join(
        (
            _field(user_id.encode()),
            _field(value.meter.encode()),
            _field(b"\x01" + value.dimensions.encode()),
            _field(_numeric(value.nanos)),
            _NULL if value.label is None else _field(value.label.encode()),
        )
    )


def value_row(shared: bytes, time_us: int, key: bytes) -> bytes:
    """Return the columns of `copy_values` for one event and meter."""
    return _VALUE % (shared, _time(time_us), key)


def keys_of(batch: Batch) -> Sequence[bytes]:
    """Return the keys of a batch's events, by their places."""
    if Identity.INDEXED in batch.identities:
        return [event.key for event in batch.events]
    return _pieces(batch.keys, KEY_BYTES)


def _rows(shard: int, case: Case, places: Sequence[int]) -> list[bytes]:
    """Return the columns of `copy_events` for some places of a case, in binary."""
    batch, sums = case.batch, case.sums
    try:
        found = {place: _row_of_sum(shard, batch, sums[place]) for place in places if place in sums} if sums else {}
        if len(found) == len(places):
            return list(found.values())
        rows = _rows_of_events(shard, batch)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"a number is out of range: {error}") from error
    if len(places) == batch.count and not found:
        return rows
    return [found.get(place) or rows[place] for place in places]


def _rows_of_events(shard: int, batch: Batch) -> list[bytes]:
    """Return the rows of a batch's events, column by column: it is half of what the flusher does for an event."""
    shared = [_shared(shard, batch, content, content.nanos, 1) for content in batch.contents]
    columns = zip(
        [shared[number] for number in numbers("H", batch.content_of)],
        [_time(time_us) for time_us in numbers("q", batch.times_us)],
        *_identified(batch),
        strict=True,
    )
    return [_ROW % row for row in columns]


def _identified(batch: Batch) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes]]:
    """Return fingerprints, keys and fields of ids of a batch's events."""
    if len(batch.ids) == batch.count:
        return (
            _pieces(batch.fingerprints, FINGERPRINT_BYTES),
            _pieces(batch.keys, KEY_BYTES),
            [_field(text.encode()) for text in batch.ids],
        )
    events = batch.events
    ids = [_NULL if event.id is None else _field(event.id.encode()) for event in events]
    return [event.fingerprint for event in events], [event.key for event in events], ids


def _row_of_sum(shard: int, batch: Batch, one: Sum) -> bytes:
    event = one.event
    content = Content(event.user_id, event.source, event.event_type, event.units, event.properties)
    shared = _shared(shard, batch, content, one.nanos, len(one.places))
    return _ROW % (shared, _time(event.time_us), event.fingerprint, event.key, _NULL)


def _shared(shard: int, batch: Batch, content: Content, nanos: int, events: int) -> bytes:
    """Return the columns that the events of one content have in common."""
    return b"".join(
        (
            struct.pack(">iiiiii", 4, shard, 4, batch.revision, 4, events),
            b"\0\0\0\x08",
            _time(batch.accepted_at_us),
            _field(content.user_id.encode()),
            _field(content.source.encode()),
            _field(content.event_type.encode()),
            _field(_numeric(nanos)),
            _field(b"\x01" + content.properties.encode()) if content.properties else _NULL,
        )
    )


def _field(value: bytes) -> bytes:
    length = len(value)
    return (_LENGTHS[length] if length < len(_LENGTHS) else length.to_bytes(4, "big")) + value


def _pieces(packed: bytes, size: int) -> list[bytes]:
    return [packed[at : at + size] for at in range(0, len(packed), size)]


@lru_cache(_CACHED)
def _time(time_us: int) -> bytes:
    """Return a time as PostgreSQL's 8 bytes. Raises struct.error where it does not fit."""
    return struct.pack(">q", time_us - _POSTGRES_EPOCH_US)


@lru_cache(_CACHED)
def _numeric(nanos: int) -> bytes:
    """Return nanos as PostgreSQL's numeric: digits to the base of 10,000, their weight, sign, and decimal places."""
    rest, digits = abs(nanos) * 1_000, []  # three digits of 10,000 behind the point
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.append(digit)
    weight = len(digits) - 4
    digits.reverse()
    while digits and not digits[-1]:
        digits.pop()
    scale = len(format_units(nanos).partition(".")[2])
    sign = 0x4000 if nanos < 0 else 0
    return struct.pack(f">HhHH{len(digits)}H", len(digits), weight if digits else 0, sign, scale, *digits)


# -- parameters


def conflict(shard: int, case: Case, event: Event, decision: Decision) -> tuple[Any, ...]:
    """Return the parameters of `insert_conflict`."""
    entry = case.entry
    return (
        (event.time_us, event.key, event.fingerprint, case.batch.accepted_at_us, entry.producer, shard)
        + (entry.after.sequence, decision.reason, event.user_id, event.source, event.id, event.event_type)
        + (format_units(event.nanos), event.properties)
    )


def columns(counters: Sequence[Counter]) -> dict[str, list[Any]]:
    """Return counters as columns."""
    return {
        "users": [counter.user_id for counter in counters],
        "meters": [counter.meter for counter in counters],
        "dimensions": [counter.dimensions for counter in counters],
        "windows": [counter.window for counter in counters],
    }


def amounts(counters: Sequence[Counter], of: Mapping[Counter, Amount]) -> dict[str, list[Any]]:
    """Return counters and their amounts as columns."""
    units = [to_decimal(of[counter].nanos) for counter in counters]
    return columns(counters) | {"units": units, "events": [of[counter].events for counter in counters]}


def voids(shard: int, new: Sequence[Void]) -> dict[str, Any]:
    """Return the parameters of `insert_voids`."""
    names = ("times_us", "keys", "users", "sources", "ids", "reasons", "received_us")
    return {"shard": shard} | {name: list(column) for name, column in zip(names, zip(*new, strict=True), strict=True)}


def voided(row: tuple[Any, ...]) -> Voided:
    """Return a row of `find_voided` or `read_voided`."""
    key, time_us, user_id, event_type, revision, units, properties = row
    return Voided(key, time_us, user_id, event_type, revision, from_decimal(Decimal(units)), properties)


def ranges(indices: Set[int]) -> str:
    """Return indices as the text of a multirange."""
    if indices and max(indices) - min(indices) == len(indices) - 1:
        return f"{{[{min(indices)},{max(indices) + 1})}}"
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and spans[-1][1] == index:
            spans[-1][1] = index + 1
        else:
            spans.append([index, index + 1])
    return "{" + ",".join(f"[{low},{high})" for low, high in spans) + "}"
