"""Voids: what they cancel is taken out of usage in the transaction that stores the void, or the event if that is later.

A void is an event like any other, so what makes it unique and durable is what does so for events. Here is what it does.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from flusher.adding import Counters
from flusher.law import Case
from sidecar.contract.codec import Batch, numbers
from sidecar.contract.event import STRING_BYTES_MAX, VOID_TYPE, Event, Identity
from sidecar.contract.identity import event_key, void_key
from sidecar.contract.meters import WINDOW_US, Amount, Counter, Revision

TAKEN_AT_ONCE: Final = 5_000


class Void(NamedTuple):
    """A void of the event with this primary key (time in microseconds, key), whether that has come or not."""

    time_us: int
    key: bytes
    user_id: str
    source: str
    id: str
    reason: str
    received_us: int


class Voided(NamedTuple):
    """A stored event that is cancelled: its key and time, and what it counted as."""

    key: bytes
    time_us: int
    user_id: str
    event_type: str
    revision: int
    nanos: int
    properties: str


class Usage(Protocol):
    """What is asked of the ledger; see `flusher.ledger.Ledger`."""

    def revision(self, number: int) -> Revision:
        """Return the meters of a revision."""

    def take_voided(self, shard: int, first_us: int, last_us: int, limit: int) -> list[Voided]:
        """Mark stored events that voids wait for as cancelled, and return them."""

    def lower_usage(self, counters: Counters) -> None:
        """Take amounts out of usage."""


class _Properties(msgspec.Struct):
    reason: str


_decode = msgspec.json.Decoder(_Properties).decode


def voids_of(batch: Batch) -> Iterator[tuple[int, Void]]:
    """Yield the voids in a batch, with their places. What has their type and is none is passed over."""
    if all(content.event_type != VOID_TYPE for content in batch.contents):
        return
    for place, event in enumerate(batch.events):
        void = _void(event, batch.accepted_at_us) if event.event_type == VOID_TYPE else None
        if void is not None:
            yield place, void


def _void(event: Event, received_us: int) -> Void | None:
    if event.id is None or event.identity != Identity.TIMED:
        return None
    key = event_key(event.user_id, event.source, event.id)
    if event.key != void_key(key, event.time_us):
        return None
    try:
        reason = _decode(event.properties).reason
    except msgspec.DecodeError:
        return None
    if not 0 < len(reason) <= STRING_BYTES_MAX:
        return None
    return Void(event.time_us, key, event.user_id, event.source, event.id, reason, received_us)


def stored_voids(cases: Iterable[Case]) -> list[Void]:
    """Return the voids that settled cases store."""
    return [void for case in cases for place, void in voids_of(case.batch) if place not in case.decided]


def fed_by(voided: Iterable[Voided], usage: Usage) -> Counters:
    """Return what cancelled events added to usage, under the meters that they were counted under."""
    counters: Counters = {}
    for one in voided:
        window = one.time_us // WINDOW_US
        for meter, dimensions, nanos in usage.revision(one.revision).shares(one.event_type, one.properties, one.nanos):
            counters.setdefault(Counter(one.user_id, meter, window, dimensions), Amount()).add(nanos, 1)
    return counters


class Voiding:
    """What voids take out of usage in one transaction, once everything in it is stored and added.

    The event and its void may be in it in either order, or one of them be there since long: any event in it may have
    been waited for, so all voids that wait for a time between the first and the last one are looked at.
    """

    def __init__(self) -> None:
        self._first_us = 1 << 62
        self._last_us = -(1 << 62)

    def hear(self, batch: Batch) -> None:
        """Take note of the times of a batch that is stored."""
        times_us = numbers("q", batch.times_us)
        if times_us:
            first_us, last_us = min(times_us), max(times_us)
            self._first_us, self._last_us = min(self._first_us, first_us), max(self._last_us, last_us)

    def take_out(self, ledger: Usage, shard: int) -> tuple[int, Counters]:
        """Mark the events that are cancelled and take them out of usage; return how many, and what they had added."""
        if self._first_us > self._last_us:
            return 0, {}
        voided: list[Voided] = []
        while True:
            some = ledger.take_voided(shard, self._first_us, self._last_us, TAKEN_AT_ONCE)
            voided += some
            if len(some) < TAKEN_AT_ONCE:
                break
        counters = fed_by(voided, ledger)
        if counters:
            ledger.lower_usage(counters)
        return len(voided), counters
