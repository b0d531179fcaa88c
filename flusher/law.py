"""Which events count: the law of Postgres, applied to a chunk of batches (design 2.2). Pure.

`Court.hear` decides what claims and floors decide, the primary key decides the rest, and `Court.settle` takes its
word. An event counts unless something says otherwise, so a batch without repeats costs next to nothing. The repeats
that Redis saw are not believed but looked up again: Redis forgets, Postgres does not. Its conflicts are: for 24 hours
it knows an id under any timestamp.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from flusher.entry import Entry
from flusher.summed import Sum, Summing
from sidecar.contract.codec import Batch, Claim, numbers
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import FINGERPRINT_BYTES, KEY_BYTES

NO_FLOOR_US: Final = -(1 << 62)
NOTHING_REFUSED: Final[Mapping[int, str]] = {}


class Outcome(Enum):
    """What became of an accepted event. Each is counted under exactly one (rule 11)."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"


class Decision(NamedTuple):
    """Why an event does not count: `reason` is a code, `detail` a sentence."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""


_DUPLICATE: Final = Decision(Outcome.DUPLICATE)
_CONFLICT: Final = Decision(Outcome.CONFLICT, "conflict")
_REUSED: Final = Decision(Outcome.CONFLICT, "idempotency_key_reused")
_TOO_OLD: Final = Decision(Outcome.QUARANTINED, "too_old")


@dataclass(slots=True)
class Case:
    """A batch before the court. Every event counts but those that are decided; `sums` are by their first place.

    Nothing is known for sure before it is settled.
    """

    entry: Entry
    batch: Batch
    decided: dict[int, Decision] = field(default_factory=dict)
    sums: dict[int, Sum] = field(default_factory=dict)
    settled: bool = False

    def singles(self) -> Sequence[int]:
        """Return the places of the events that are stored one by one, as far as they count."""
        every = range(self.batch.count)
        if not self.decided and not self.sums:
            return every
        if sum(len(one.places) for one in self.sums.values()) + len(self.decided) == len(every):
            return ()
        apart = {place for one in self.sums.values() for place in one.places}
        return [place for place in every if place not in self.decided and place not in apart]

    def outcome(self, place: int) -> Outcome:
        """Return what became of an event. Raises ValueError where that is not known yet."""
        if not self.settled:
            raise ValueError("a batch was left undecided")
        decision = self.decided.get(place)
        return Outcome.INSERTED if decision is None else decision.outcome


class Stored(NamedTuple):
    """What a row of `events` stands for: the number of a case among those of a chunk, and a place in it."""

    case: int
    place: int


@dataclass(slots=True)
class ClaimState:
    """A claim: the digest that holds it, and the indices that are counted under it, None for an id alone.

    `accepted_at_us` is when it was made or last came to cover more; 0 for what Postgres knows. `summed`: the indices
    that are counted in a row with others.
    """

    digest: bytes
    covered: set[int] | None
    accepted_at_us: int
    summed: set[int] = field(default_factory=set)


def claim_keys(batch: Batch) -> set[bytes]:
    """Return the keys of the claims that the events of a batch make or meet."""
    found = {claim.key for claim in batch.claims}
    if Identity.CLAIMED in batch.identities:
        found.update(key for _, key, _ in _with_id_alone(batch))
    return found


def _with_id_alone(batch: Batch) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield place, key and fingerprint of the events that have an id and no time of their own."""
    key_at = fingerprint_at = 0
    for place, identity in enumerate(batch.identities):
        if identity == Identity.CLAIMED:
            key = batch.keys[key_at : key_at + KEY_BYTES]
            yield place, key, batch.fingerprints[fingerprint_at : fingerprint_at + FINGERPRINT_BYTES]
        if identity <= Identity.CLAIMED:
            fingerprint_at += FINGERPRINT_BYTES
        if identity != Identity.INDEXED:
            key_at += KEY_BYTES


@dataclass(slots=True)
class Court:
    """Decides one chunk. `claims` are those that Postgres has of the chunk's `claim_keys`.

    With `summing`, what claims cover is summed up where it may be.
    """

    claims: dict[bytes, ClaimState]
    event_floor_us: int = NO_FLOOR_US
    claim_floor_us: int = NO_FLOOR_US
    summing: Summing | None = None
    cases: list[Case] = field(default_factory=list)
    changed_claims: set[bytes] = field(default_factory=set)

    def hear(self, entry: Entry, batch: Batch, refused: Mapping[int, str] = NOTHING_REFUSED) -> None:
        """Decide on the events of a batch, in their order, as far as claims and floors decide.

        `refused` has the places whose events Postgres can't store, with why: they are quarantined and claim nothing
        (rule 13).
        """
        case = Case(entry, batch)
        for place, detail in refused.items():
            case.decided[place] = Decision(Outcome.QUARANTINED, "data_refused", detail)
        for place in entry.conflicts:
            case.decided.setdefault(place, _CONFLICT)
        newly = [(claim, self._hear_claim(claim, case)) for claim in batch.claims]
        self._hear_times(case)
        if Identity.CLAIMED in batch.identities:
            self._hear_ids(case)
        if self.summing is not None:
            for claim, covered in newly:
                self._sum_up(self.summing, case, claim, covered)
        self.cases.append(case)

    def _hear_claim(self, claim: Claim, case: Case) -> dict[int, int]:
        """Return the indices that the claim newly covers, by places."""
        batch, decided = case.batch, case.decided
        if batch.accepted_at_us <= self.claim_floor_us:  # the claim may have been dropped (rule 15)
            decided.update(dict.fromkeys(_indexed(case, claim), _TOO_OLD))
            return {}
        state = self.claims.get(claim.key)
        share = range(claim.first, claim.first + claim.count)
        if state is None:
            if share and all(place in decided and decided[place].outcome is Outcome.CONFLICT for place in share):
                return {}  # Redis knew another body under the key; that one, wherever it is, keeps its claim
            state = self.claims[claim.key] = ClaimState(claim.digest, set(), batch.accepted_at_us)
            self.changed_claims.add(claim.key)
        if state.digest == claim.digest and state.covered is not None:
            return self._cover(claim, state, state.covered, case)
        for place in share:
            if place not in decided or decided[place].outcome is not Outcome.QUARANTINED:
                decided[place] = _REUSED
        return {}

    def _cover(self, claim: Claim, state: ClaimState, covered: set[int], case: Case) -> dict[int, int]:
        asked = _indexed(case, claim)
        indices = set(asked.values())
        if len(indices) == len(asked) and covered.isdisjoint(indices):  # the usual case
            newly = asked
            covered |= indices
        else:
            newly = {}
            for place, index in asked.items():
                if index in covered:
                    case.decided[place] = _DUPLICATE
                else:
                    covered.add(index)
                    newly[place] = index
        if newly:
            state.accepted_at_us = max(state.accepted_at_us, case.batch.accepted_at_us)
            self.changed_claims.add(claim.key)
        return newly

    def _hear_times(self, case: Case) -> None:
        times_us = numbers("q", case.batch.times_us)
        if times_us and min(times_us) <= self.event_floor_us:
            for place, time_us in enumerate(times_us):
                if time_us <= self.event_floor_us:
                    case.decided.setdefault(place, _TOO_OLD)

    def _hear_ids(self, case: Case) -> None:
        """Decide on the events that have an id alone."""
        accepted_at_us = case.batch.accepted_at_us
        for place, key, fingerprint in _with_id_alone(case.batch):
            if place in case.decided:
                continue
            state = self.claims.get(key)
            if accepted_at_us <= self.claim_floor_us:
                case.decided[place] = _TOO_OLD
            elif state is not None:
                case.decided[place] = _compared(fingerprint, state.digest)
            else:
                self.claims[key] = ClaimState(fingerprint, None, accepted_at_us)
                self.changed_claims.add(key)

    def _sum_up(self, summing: Summing, case: Case, claim: Claim, covered: dict[int, int]) -> None:
        if case.decided:
            covered = {place: index for place, index in covered.items() if place not in case.decided}
        sums = summing.sums(case.batch, claim, covered)
        if not sums:
            return
        case.sums |= {one.places[0]: one for one in sums}
        every = sum(len(one.places) for one in sums) == len(covered)
        summed = covered.values() if every else [covered[place] for one in sums for place in one.places]
        self.claims[claim.key].summed.update(summed)

    def settle(self, there: Mapping[Stored, bytes]) -> None:
        """Decide the rest.

        `there` has the fingerprints that Postgres had under the primary keys of what was to be stored: from before,
        or of an earlier event of the chunk.
        """
        events: dict[int, Sequence[Event]] = {}  # a batch makes its events anew each time that it is asked
        for (number, place), fingerprint in there.items():
            case = self.cases[number]
            one = case.sums.get(place)
            if one is None:
                if number not in events:
                    events[number] = case.batch.events
                case.decided[place] = _compared(events[number][place].fingerprint, fingerprint)
            else:
                case.decided |= dict.fromkeys(one.places, _compared(one.event.fingerprint, fingerprint))
        for case in self.cases:
            case.settled = True


def _indexed(case: Case, claim: Claim) -> dict[int, int]:
    """Return the indices of a share that are left to its claim to decide, by places."""
    batch, end = case.batch, claim.first + claim.count
    share = zip(range(claim.first, end), numbers("H", batch.indices[2 * claim.first : 2 * end]), strict=True)
    if not case.decided and batch.identities.count(Identity.INDEXED, claim.first, end) == claim.count:
        return dict(share)
    return {
        place: index
        for place, index in share
        if batch.identities[place] == Identity.INDEXED and place not in case.decided
    }


def _compared(fingerprint: bytes, known: bytes) -> Decision:
    return _DUPLICATE if fingerprint == known else _CONFLICT


@dataclass(slots=True)
class Tally:
    """How many events, and how many nanos, had each outcome."""

    events: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    nanos: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    def add(self, outcome: Outcome, events: int, nanos: int) -> None:
        """Add to one outcome."""
        self.events[outcome] += events
        self.nanos[outcome] += nanos


def tally(cases: Iterable[Case], into: dict[str, Tally]) -> None:
    """Add the outcomes of settled cases to the tallies of their producers."""
    for case in cases:
        mine = into.setdefault(case.entry.producer, Tally())
        batch = case.batch
        nanos, content_of = batch.nanos, numbers("H", batch.content_of)
        for place in case.decided:
            event_nanos = batch.contents[content_of[place]].nanos
            mine.add(case.outcome(place), 1, event_nanos)
            nanos -= event_nanos
        if not case.settled:
            raise ValueError("a batch was left undecided")
        mine.add(Outcome.INSERTED, batch.count - len(case.decided), nanos)
