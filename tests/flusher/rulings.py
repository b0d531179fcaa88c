"""Batches before the court: stream entries of any producer, and the law as a plain dictionary reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flusher.entry import Entry
from flusher.law import NO_FLOOR_US, Case, Court, Outcome, Stored
from sidecar.contract.codec import Batch, Claim, Position, Running
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import claim_key, event_key, indexed_key

BASE_US = 1_753_090_461_000_000


def an_entry(conflicts: Sequence[int] = (), duplicates: Sequence[int] = (), producer: str = "producer-1") -> Entry:
    """Returns an entry in which Redis took these places for repeats; its chain does not matter to the court."""
    zero = Position(0, bytes(16))
    return Entry("1-0", producer, zero, zero, Running(0, 0), tuple(duplicates), tuple(conflicts), b"")


def an_event(identity: Identity, name: str, payload: int = 1, *, time_us: int = BASE_US, index: int = 0) -> Event:
    """Returns an event; `name` is its id, the Idempotency-Key that it is under, or what the sidecar made."""
    if identity == Identity.INDEXED:
        key = indexed_key(claim_key(name, 0), index)
    else:
        key = event_key("made" if identity == Identity.MADE else "cus_1", "", name)
    text = None if identity in {Identity.INDEXED, Identity.MADE} else name
    return Event(key, payload.to_bytes(8, "big"), identity, index, time_us, "cus_1", "", text, "call", payload, "")


def a_batch(events: Sequence[Event], claims: Sequence[Claim] = (), accepted_at_us: int = BASE_US) -> Batch:
    """Returns a batch."""
    return Columns.of(events).batch(0, 0, accepted_at_us, accepted_at_us, claims)


def a_claim(key: str, count: int, digest: bytes = b"1" * 16, first: int = 0) -> Claim:
    """Returns the claim of a share."""
    return Claim(claim_key(key, 0), digest, first, count)


def rows_of(case: Case) -> dict[int, Event]:
    """Returns what a case would store, by place: its single events, and its sums by their first."""
    events = case.batch.events
    return {place: events[place] for place in case.singles()} | {place: one.event for place, one in case.sums.items()}


def settle(court: Court, events: dict[tuple[int, bytes], bytes]) -> None:
    """Stores what a court left to the primary key among `events`, and lets it decide by what was there."""
    there: dict[Stored, bytes] = {}
    for number, case in enumerate(court.cases):
        for place, event in sorted(rows_of(case).items()):
            found = events.setdefault((event.time_us, event.key), event.fingerprint)
            if found is not event.fingerprint:
                there[Stored(number, place)] = found
    court.settle(there)


def outcomes(court: Court) -> list[Outcome]:
    """Returns what became of the events that a court heard, in their order."""
    return [case.outcome(place) for case in court.cases for place in range(case.batch.count)]


@dataclass
class Postgres:
    """What is stored: fingerprints of events, digests and covered indices of claims."""

    events: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    claims: dict[bytes, tuple[bytes, set[int]]] = field(default_factory=dict)
    event_floor_us: int = NO_FLOOR_US
    claim_floor_us: int = NO_FLOOR_US

    def decide(self, batch: Batch, conflicts: Sequence[int]) -> list[Outcome]:
        """Returns what becomes of each event, one by one, by design 2.2, and stores it."""
        outcomes: dict[int, Outcome] = dict.fromkeys(conflicts, Outcome.CONFLICT)
        for claim in batch.claims:
            self._claim(claim, batch, outcomes)
        for place, event in enumerate(batch.events):
            if place not in outcomes:
                outcomes[place] = self._event(event, batch)
        return [outcomes[place] for place in range(len(batch.events))]

    def _claim(self, claim: Claim, batch: Batch, outcomes: dict[int, Outcome]) -> None:
        share = range(claim.first, claim.first + claim.count)
        if batch.accepted_at_us <= self.claim_floor_us:
            for place in share:
                if batch.events[place].identity == Identity.INDEXED:
                    outcomes.setdefault(place, Outcome.QUARANTINED)
            return
        if claim.key not in self.claims:
            if len(share) and all(outcomes.get(place) == Outcome.CONFLICT for place in share):
                return
            self.claims[claim.key] = (claim.digest, set())
        digest, covered = self.claims[claim.key]
        for place in share:
            event = batch.events[place]
            if digest != claim.digest:
                outcomes[place] = Outcome.CONFLICT
            elif event.identity == Identity.INDEXED and place not in outcomes:
                if event.index in covered:
                    outcomes[place] = Outcome.DUPLICATE
                covered.add(event.index)

    def _event(self, event: Event, batch: Batch) -> Outcome:
        if event.time_us <= self.event_floor_us:
            return Outcome.QUARANTINED
        if event.identity == Identity.CLAIMED:
            if batch.accepted_at_us <= self.claim_floor_us:
                return Outcome.QUARANTINED
            if event.key in self.claims:
                return self._same(self.claims[event.key][0], event)
            self.claims[event.key] = (event.fingerprint, set())
        place = (event.time_us, event.key)
        if place in self.events:
            return self._same(self.events[place], event)
        self.events[place] = event.fingerprint
        return Outcome.INSERTED

    @staticmethod
    def _same(fingerprint: bytes, event: Event) -> Outcome:
        return Outcome.DUPLICATE if fingerprint == event.fingerprint else Outcome.CONFLICT
