"""The forms of the ledger's rows: what goes into statements, and what comes out of them. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from flusher.law import Item
from sidecar.contract.event import Event
from sidecar.contract.meters import Counter
from sidecar.contract.units import format_units

STAGED_TYPES: Final = (
    "int4", "int8", "bytea", "bytea", "int4", "int8", "text", "text", "text", "text", "text", "text",
)  # fmt: skip


def staged(place: int, item: Item) -> tuple[Any, ...]:
    """Return the row of `staged` for an event, of the types `STAGED_TYPES`."""
    event: Event = item.event
    return (
        place,
        event.time_us,
        event.key,
        event.fingerprint,
        item.batch.revision,
        item.batch.accepted_at_us,
        event.user_id,
        event.source,
        event.id,
        event.event_type,
        str(event.units),
        event.properties,
    )


def conflict(shard: int, item: Item) -> tuple[Any, ...]:
    """Return the parameters of `insert_conflict`."""
    event, entry = item.event, item.entry
    return (
        (event.time_us, event.key, event.fingerprint, item.batch.accepted_at_us, entry.producer, shard)
        + (entry.after.sequence, item.reason, event.user_id, event.source, event.id, event.event_type)
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


def ranges(indices: Iterable[int]) -> str:
    """Return indices as the text of a multirange."""
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and spans[-1][1] == index:
            spans[-1][1] = index + 1
        else:
            spans.append([index, index + 1])
    return "{" + ",".join(f"[{low},{high})" for low, high in spans) + "}"
