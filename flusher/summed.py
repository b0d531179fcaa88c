"""Summed rows (design 2.4): what a request under an Idempotency-Key adds to the same counters, as one row. Pure.

The claim decides what counts, so nothing has to be told apart by its row: a repeat is known by claim and index alone.
"""

from collections.abc import Callable, Set
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from sidecar.contract.codec import Batch, Claim, numbers
from sidecar.contract.event import Event, Identity, compact_units
from sidecar.contract.identity import FINGERPRINT_BYTES, indexed_key
from sidecar.contract.meters import WINDOW_US, Revision, groups_of

_CACHED: Final = 4_096

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class KeyedRows(StrEnum):
    """What Postgres keeps of events under an Idempotency-Key."""

    SINGLE = "single"
    SUMMED = "summed"


class Sum(NamedTuple):
    """Two or more events of a batch as one row: the `places` that it stands for, their sum in nanos, and the row.

    The row's time is the start of the window and its key that of the first event; its units are the sum, its
    properties those that meters read, its fingerprint the beginning of the body's digest.
    """

    places: tuple[int, ...]
    nanos: int
    event: Event


class Summing:
    """Sums up what claims newly cover, under the meters of `revision_of(number)`.

    Of `single` users every event is kept: a boundary of a billing period may lie inside a window of theirs.
    """

    def __init__(self, revision_of: Callable[[int], Revision], single: Set[str]) -> None:
        self._revision_of = revision_of
        self._single = single

    def sums(self, batch: Batch, claim: Claim, indices: dict[int, int]) -> list[Sum]:
        """Return the sums of what a claim newly covers: `indices` by places. What is in none stays a single event."""
        revision = self._revision_of(batch.revision)
        groups, column = groups_of(batch)
        group_of = numbers("H", column)
        members: list[list[int]] = [[] for _ in groups]
        for place in indices:
            members[group_of[place]].append(place)
        kept = {name: _kept(revision, name) for name in {content.event_type for content in batch.contents}}
        rows: dict[tuple[str, str, str, str, int], tuple[list[int], list[int]]] = {}  # -> nanos to be summed, places
        for (number, window), places in zip(groups, members, strict=True):
            content = batch.contents[number]
            names = kept[content.event_type]
            if not places or names is None or content.user_id in self._single:
                continue
            properties = _reduced(content.properties, names) if content.properties else ""
            same = (content.user_id, content.source, content.event_type, properties, window)
            held = rows.get(same)
            if held is None:
                rows[same] = [content.nanos * len(places)], places
            else:
                held[0].append(content.nanos * len(places))
                held[1].extend(places)
        return [
            Sum(tuple(places), sum(nanos), _event(claim, indices[places[0]], sum(nanos), same))
            for same, (nanos, places) in rows.items()
            if len(places) > 1
        ]


def _event(claim: Claim, index: int, nanos: int, same: tuple[str, str, str, str, int]) -> Event:
    user_id, source, event_type, properties, window = same
    return Event(
        indexed_key(claim.key, index),
        claim.digest[:FINGERPRINT_BYTES],
        Identity.INDEXED,
        index,
        window * WINDOW_US,
        user_id,
        source,
        None,
        event_type,
        compact_units(nanos),
        properties,
    )


@lru_cache(_CACHED)
def _kept(revision: Revision, event_type: str) -> frozenset[str] | None:
    """Return the properties that meters of an event type read; None where it feeds one that needs each event.

    This is the one place that says which events may be summed up.
    """
    if revision.keeps_values(event_type):
        return None
    meters = [meter for meter in revision.meters if meter.event_type == event_type]
    names = {name for meter in meters for name in (*meter.group_by, *meter.filter, meter.property_name)}
    return frozenset(name for name in names if name is not None)


@lru_cache(_CACHED)
def _reduced(properties: str, kept: frozenset[str]) -> str:
    """Return the JSON text of the properties that are kept, their values as they were written."""
    found = {name: value for name, value in _decode(properties).items() if name in kept}
    return _encode(found).decode() if found else ""
