"""Which events count: the law of Postgres, applied to a chunk of batches (design 2.2). Pure.

`Court.hear` decides what claims decide, `Court.candidates` are what the primary key decides, and `Court.settle` takes
its word. The repeats that Redis saw are not believed but looked up again: Redis forgets, Postgres does not. Its
conflicts are: for 24 hours it knows an id under any timestamp.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from flusher.entry import Entry
from sidecar.contract.codec import Batch, Claim
from sidecar.contract.event import Event, Identity

NO_FLOOR_US: Final = -(1 << 62)
NOTHING_REFUSED: Final[Mapping[int, str]] = {}


class Outcome(Enum):
    """What became of an accepted event. Each is counted under exactly one (rule 11)."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"


@dataclass(slots=True)
class Item:
    """An event before the court, with what is stored beside it.

    `reason` is a code and `detail` a sentence, for what does not count; `place` is the event's in its batch.
    """

    event: Event
    entry: Entry
    batch: Batch
    outcome: Outcome | None = None
    reason: str = ""
    detail: str = ""
    place: int = 0

    def close(self, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        """Decide."""
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class ClaimState:
    """A claim: the digest that holds it, and the indices that are counted under it, None for an id alone.

    `accepted_at_us` is when it was made or last came to cover more; 0 for what Postgres knows.
    """

    digest: bytes
    covered: set[int] | None
    accepted_at_us: int


def claim_keys(batch: Batch) -> set[bytes]:
    """Return the keys of the claims that the events of a batch make or meet."""
    found = {event.key for event in batch.events if event.identity == Identity.CLAIMED}
    found.update(claim.key for claim in batch.claims)
    return found


@dataclass(slots=True)
class Court:
    """Decides one chunk. `claims` are those that Postgres has of the chunk's `claim_keys`."""

    claims: dict[bytes, ClaimState]
    event_floor_us: int = NO_FLOOR_US
    claim_floor_us: int = NO_FLOOR_US
    items: list[Item] = field(default_factory=list)
    changed_claims: set[bytes] = field(default_factory=set)
    candidates: dict[tuple[int, bytes], Item] = field(default_factory=dict)
    _followers: list[tuple[tuple[int, bytes], Item]] = field(default_factory=list)

    def hear(self, entry: Entry, batch: Batch, refused: Mapping[int, str] = NOTHING_REFUSED) -> None:
        """Decide on the events of a batch, in their order, as far as claims decide.

        `refused` has the places whose events Postgres can't store, with why: they are quarantined and claim nothing
        (rule 13).
        """
        items = [Item(event, entry, batch, place=place) for place, event in enumerate(batch.events)]
        for place, detail in refused.items():
            items[place].close(Outcome.QUARANTINED, "data_refused", detail)
        for place in entry.conflicts:
            if items[place].outcome is None:
                items[place].close(Outcome.CONFLICT, "conflict")
        for claim in batch.claims:
            share = items[claim.first : claim.first + claim.count]
            if batch.accepted_at_us <= self.claim_floor_us:  # the claim may have been dropped (rule 15)
                _refuse_indexed(share)
            else:
                self._hear_claim(claim, share, batch)
        for item in items:
            if item.outcome is None:
                self._hear_item(item)
        self.items += items

    def _hear_claim(self, claim: Claim, share: list[Item], batch: Batch) -> None:
        state = self.claims.get(claim.key)
        if state is None:
            if share and all(item.outcome is Outcome.CONFLICT for item in share):
                return  # Redis knew another body under the key; that one, wherever it is, keeps its claim
            state = self.claims[claim.key] = ClaimState(claim.digest, set(), batch.accepted_at_us)
            self.changed_claims.add(claim.key)
        if state.digest != claim.digest or state.covered is None:
            for item in share:
                if item.outcome is not Outcome.QUARANTINED:
                    item.close(Outcome.CONFLICT, "idempotency_key_reused")
            return
        for item in share:
            if item.event.identity == Identity.INDEXED and item.outcome is None:
                if item.event.index in state.covered:
                    item.close(Outcome.DUPLICATE)
                else:
                    state.covered.add(item.event.index)
                    state.accepted_at_us = max(state.accepted_at_us, batch.accepted_at_us)
                    self.changed_claims.add(claim.key)

    def _hear_item(self, item: Item) -> None:
        event, batch = item.event, item.batch
        if event.time_us <= self.event_floor_us:
            item.close(Outcome.QUARANTINED, "too_old")
            return
        if event.identity == Identity.CLAIMED:
            if batch.accepted_at_us <= self.claim_floor_us:
                item.close(Outcome.QUARANTINED, "too_old")
                return
            state = self.claims.get(event.key)
            if state is not None:
                _compare(item, state.digest)
                return
            self.claims[event.key] = ClaimState(event.fingerprint, None, batch.accepted_at_us)
            self.changed_claims.add(event.key)
        place = (event.time_us, event.key)
        if place in self.candidates:
            self._followers.append((place, item))
        else:
            self.candidates[place] = item

    def settle(self, there: Mapping[tuple[int, bytes], bytes]) -> None:
        """Decide the rest: `there` has the fingerprints of the candidates that Postgres had before the chunk."""
        for place, item in self.candidates.items():
            if place in there:
                _compare(item, there[place])
            else:
                item.close(Outcome.INSERTED)
        for place, item in self._followers:
            _compare(item, there.get(place, self.candidates[place].event.fingerprint))


def _refuse_indexed(share: Iterable[Item]) -> None:
    """Quarantine what only a claim could recognise again."""
    for item in share:
        if item.event.identity == Identity.INDEXED and item.outcome is None:
            item.close(Outcome.QUARANTINED, "too_old")


def _compare(item: Item, fingerprint: bytes) -> None:
    if item.event.fingerprint == fingerprint:
        item.close(Outcome.DUPLICATE)
    else:
        item.close(Outcome.CONFLICT, "conflict")


@dataclass(slots=True)
class Tally:
    """How many events, and how many nanos, had each outcome."""

    events: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    nanos: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    def add(self, outcome: Outcome, events: int, nanos: int) -> None:
        """Add to one outcome."""
        self.events[outcome] += events
        self.nanos[outcome] += nanos


def tally(items: Iterable[Item], into: dict[str, Tally]) -> None:
    """Add the outcomes of decided items to the tallies of their producers."""
    sums: dict[tuple[str, Outcome], list[int]] = {}
    for item in items:
        if item.outcome is None:
            raise ValueError("an event was left undecided")
        counted = sums.setdefault((item.entry.producer, item.outcome), [0, 0])
        counted[0] += 1
        counted[1] += item.event.nanos
    for (producer, outcome), (events, nanos) in sums.items():
        into.setdefault(producer, Tally()).add(outcome, events, nanos)
