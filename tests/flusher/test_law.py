"""The law: every accepted event has exactly one outcome, and it is the one that a plain dictionary gives."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.law import NO_FLOOR_US, ClaimState, Court, Decision, Outcome, Tally, claim_keys, tally
from sidecar.contract.codec import Batch
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import claim_key
from tests.flusher.rulings import BASE_US, Postgres, a_batch, a_claim, an_entry, an_event, outcomes, settle

INSERTED, DUPLICATE, CONFLICT, QUARANTINED = (
    Outcome.INSERTED,
    Outcome.DUPLICATE,
    Outcome.CONFLICT,
    Outcome.QUARANTINED,
)


def ruled(
    *batches: Batch,
    conflicts: Sequence[Sequence[int]] = (),
    event_floor_us: int = NO_FLOOR_US,
    claim_floor_us: int = NO_FLOOR_US,
) -> list[list[Outcome]]:
    """Returns what becomes of the events of batches that come in one chunk, with nothing stored before."""
    court = Court({}, event_floor_us, claim_floor_us)
    for number, batch in enumerate(batches):
        court.hear(an_entry(conflicts[number] if conflicts else ()), batch)
    settle(court, {})
    return [[case.outcome(place) for place in range(case.batch.count)] for case in court.cases]


def under(key: str, *indices: int, payload: int = 1) -> list[Event]:
    """Returns events without ids under an Idempotency-Key."""
    return [an_event(Identity.INDEXED, key, payload, index=index) for index in indices]


# -- identities


def test_an_id_with_a_timestamp_is_held_by_both_together() -> None:
    one = an_event(Identity.TIMED, "e-1")
    later = an_event(Identity.TIMED, "e-1", time_us=BASE_US + 1)
    other = an_event(Identity.TIMED, "e-1", payload=2)
    assert ruled(a_batch([one, one, other, later])) == [[INSERTED, DUPLICATE, CONFLICT, INSERTED]]


def test_an_id_alone_is_held_by_its_claim_whatever_time_it_was_given() -> None:
    one = an_event(Identity.CLAIMED, "e-1")
    again = an_event(Identity.CLAIMED, "e-1", time_us=BASE_US + 1)
    other = an_event(Identity.CLAIMED, "e-1", payload=2, time_us=BASE_US + 2)
    assert ruled(a_batch([one]), a_batch([again, other])) == [[INSERTED], [DUPLICATE, CONFLICT]]


def test_what_the_sidecar_made_is_never_a_repeat_of_anything_but_itself() -> None:
    assert ruled(a_batch([an_event(Identity.MADE, "1"), an_event(Identity.MADE, "2")])) == [[INSERTED, INSERTED]]


def test_an_index_under_a_key_counts_once_and_later_ones_still_do() -> None:
    first = a_batch(under("k", 0, 2), [a_claim("k", 2)])
    retry = a_batch(under("k", 0, 1, 2), [a_claim("k", 3)])
    assert ruled(first, retry, retry) == [[INSERTED] * 2, [DUPLICATE, INSERTED, DUPLICATE], [DUPLICATE] * 3]


def test_another_body_under_a_key_counts_nothing_even_with_ids() -> None:
    first = a_batch(under("k", 0), [a_claim("k", 1)])
    other = a_batch([*under("k", 1, payload=2), an_event(Identity.TIMED, "e-1")], [a_claim("k", 2, digest=b"2" * 16)])
    assert ruled(first, other) == [[INSERTED], [CONFLICT, CONFLICT]]
    court = Court({})
    court.hear(an_entry(), first)
    court.hear(an_entry(), other)
    settle(court, {})
    reasons = [decision.reason for case in court.cases for decision in case.decided.values()]
    assert reasons == ["idempotency_key_reused", "idempotency_key_reused"]


# -- Redis's word


def test_a_conflict_of_redis_is_believed_and_claims_nothing() -> None:
    # given an id that Redis knew under another timestamp
    claimed = an_event(Identity.CLAIMED, "e-1")
    assert ruled(a_batch([claimed]), a_batch([claimed]), conflicts=[(0,), ()]) == [[CONFLICT], [INSERTED]]


def test_a_duplicate_of_redis_is_decided_again() -> None:
    court = Court({})
    court.hear(an_entry(duplicates=[0]), a_batch([an_event(Identity.TIMED, "e-1")]))
    settle(court, {})
    assert outcomes(court) == [INSERTED]


def test_a_body_that_redis_refused_does_not_take_the_key_from_the_one_that_it_knew() -> None:
    # given a share that Redis took for a reuse of its key, while the body that had it first comes later, sent again
    refused = a_batch(under("k", 0, 1, payload=2), [a_claim("k", 2, digest=b"2" * 16)])
    known = a_batch(under("k", 0, 1), [a_claim("k", 2)])
    # then the first one counts
    assert ruled(refused, known, conflicts=[(0, 1), ()]) == [[CONFLICT, CONFLICT], [INSERTED, INSERTED]]


# -- the floor


@pytest.mark.parametrize("identity", [Identity.TIMED, Identity.CLAIMED, Identity.INDEXED, Identity.MADE])
def test_an_event_at_or_below_the_floor_is_quarantined(identity: Identity) -> None:
    events = [an_event(identity, f"e-{shift}", time_us=BASE_US + shift, index=shift + 1) for shift in (-1, 0, 1)]
    indexed = identity == Identity.INDEXED
    claims = [a_claim(f"e-{shift}", 1, first=shift + 1) for shift in (-1, 0, 1)] if indexed else []
    assert ruled(a_batch(events, claims), event_floor_us=BASE_US) == [[QUARANTINED, QUARANTINED, INSERTED]]


def test_what_was_accepted_at_or_below_the_floor_of_claims_is_quarantined_where_only_a_claim_knows_it() -> None:
    events = [
        an_event(Identity.CLAIMED, "e-1"),
        an_event(Identity.TIMED, "e-2"),
        an_event(Identity.MADE, "e-3"),
        *under("k", 3),
    ]
    claims = [a_claim("k", 4)]
    old, fresh = a_batch(events, claims), a_batch(events, claims, accepted_at_us=BASE_US + 1)
    assert ruled(old, claim_floor_us=BASE_US) == [[QUARANTINED, INSERTED, INSERTED, QUARANTINED]]
    assert ruled(fresh, claim_floor_us=BASE_US) == [[INSERTED] * 4]


def test_what_postgres_can_not_store_is_quarantined_and_claims_nothing() -> None:
    # given a batch of which Postgres refuses an id alone and an index, however Redis saw them
    claimed = an_event(Identity.CLAIMED, "e-1")
    batch = a_batch([claimed, *under("k", 0, 1)], [a_claim("k", 2, first=1)])
    court = Court({})
    court.hear(an_entry(conflicts=[0]), batch, {0: "no such text", 1: "no such number"})
    # when both come again, mended
    court.hear(an_entry(), batch)
    settle(court, {})
    # then they count
    assert outcomes(court) == [QUARANTINED, QUARANTINED, INSERTED, INSERTED, INSERTED, DUPLICATE]
    assert court.cases[0].decided == {
        0: Decision(QUARANTINED, "data_refused", "no such text"),
        1: Decision(QUARANTINED, "data_refused", "no such number"),
    }


def test_what_postgres_can_not_store_stays_in_quarantine_when_its_key_was_used_by_another_body() -> None:
    court = Court({})
    court.hear(an_entry(), a_batch(under("k", 0), [a_claim("k", 1)]))
    court.hear(an_entry(), a_batch(under("k", 0, 1), [a_claim("k", 2, digest=b"2" * 16)]), {1: "no such text"})
    settle(court, {})
    assert outcomes(court) == [INSERTED, CONFLICT, QUARANTINED]


def test_the_keys_of_the_claims_of_a_batch_are_known_beforehand() -> None:
    claimed = an_event(Identity.CLAIMED, "e-1")
    batch = a_batch([claimed, an_event(Identity.TIMED, "e-2"), *under("k", 0)], [a_claim("k", 1, first=2)])
    assert claim_keys(batch) == {claimed.key, claim_key("k", 0)}


# -- against the dictionary

FREE = st.builds(
    an_event,
    st.sampled_from([Identity.TIMED, Identity.CLAIMED]),
    st.sampled_from(["e-1", "e-2", "e-3"]),
    st.integers(1, 2),
    time_us=st.integers(BASE_US - 2, BASE_US + 2),
)


def copy(state: ClaimState) -> ClaimState:
    """Returns a claim as it would be read from Postgres."""
    return ClaimState(state.digest, None if state.covered is None else set(state.covered), 0)


class Share(NamedTuple):
    """A share of a request: its key, which body, and its events."""

    key: str
    digest: bytes
    events: list[Event]


shares = st.builds(
    lambda key, body, indices, with_ids: Share(
        key, bytes([body]) * 16, [*under(key, *indices, payload=body), *with_ids]
    ),
    st.sampled_from(["k-1", "k-2"]),
    st.integers(1, 2),
    st.lists(st.integers(0, 4), unique=True, max_size=4).map(sorted),
    st.lists(FREE, max_size=2),
)


@st.composite
def heard(draw: st.DrawFn) -> tuple[Batch, list[int]]:
    """Draws a batch, and the places that Redis took for conflicts."""
    events: list[Event] = []
    claims = []
    for part in draw(st.lists(FREE | shares, max_size=4)):
        if isinstance(part, Share):
            claims.append(a_claim(part.key, len(part.events), part.digest, len(events)))
            events += part.events
        else:
            events.append(part)
    places = st.lists(st.integers(0, len(events) - 1), unique=True, max_size=3) if events else st.just([])
    conflicts = draw(st.just([]) | places)
    return a_batch(events, claims, draw(st.integers(BASE_US - 1, BASE_US + 1))), conflicts


@given(
    st.lists(st.lists(heard(), max_size=4), max_size=4),
    st.sampled_from([BASE_US - 3, BASE_US - 1, BASE_US]),
    st.sampled_from([BASE_US - 2, BASE_US - 1]),
)
@settings(max_examples=200, deadline=None)
def test_the_court_rules_as_the_dictionary_does_however_batches_fall_into_chunks(
    chunks: list[list[tuple[Batch, list[int]]]], event_floor_us: int, claim_floor_us: int
) -> None:
    model = Postgres(event_floor_us=event_floor_us, claim_floor_us=claim_floor_us)
    events: dict[tuple[int, bytes], bytes] = {}
    claims: dict[bytes, ClaimState] = {}
    for chunk in chunks:
        # given a court that knows of the claims that the chunk may meet
        wanted = {key for batch, _ in chunk for key in claim_keys(batch)}
        known = {key: copy(claims[key]) for key in wanted & claims.keys()}
        court = Court(known, event_floor_us, claim_floor_us)
        # when it has heard the chunk, and Postgres has said what it had
        ruled_by_model: list[Outcome] = []
        for batch, conflicts in chunk:
            court.hear(an_entry(conflicts), batch)
            ruled_by_model += model.decide(batch, conflicts)
        settle(court, events)
        # then it rules as the dictionary does
        assert outcomes(court) == ruled_by_model
        claims |= {key: court.claims[key] for key in court.changed_claims}
    # and what is stored is what the dictionary has
    assert events == model.events
    assert {key: (state.digest, state.covered or set()) for key, state in claims.items()} == model.claims


# -- the tally


def test_every_event_is_tallied_under_its_producer_and_outcome() -> None:
    court = Court({}, event_floor_us=BASE_US - 1)
    old = an_event(Identity.TIMED, "e-0", time_us=0, payload=5)
    one, two = an_event(Identity.TIMED, "e-1", payload=3), an_event(Identity.TIMED, "e-1", payload=4)
    court.hear(an_entry(), a_batch([old, one, one]))
    court.hear(an_entry(producer="producer-2"), a_batch([two, one]))
    settle(court, {})
    tallies: dict[str, Tally] = {}
    tally(court.cases, tallies)
    nano = 10**9
    assert tallies["producer-1"].events == {INSERTED: 1, DUPLICATE: 1, CONFLICT: 0, QUARANTINED: 1}
    assert tallies["producer-1"].nanos == {INSERTED: 3 * nano, DUPLICATE: 3 * nano, CONFLICT: 0, QUARANTINED: 5 * nano}
    assert tallies["producer-2"].events == {INSERTED: 0, DUPLICATE: 1, CONFLICT: 1, QUARANTINED: 0}
    assert tallies["producer-2"].nanos == {INSERTED: 0, DUPLICATE: 3 * nano, CONFLICT: 4 * nano, QUARANTINED: 0}


def test_what_is_not_settled_is_never_tallied() -> None:
    court = Court({})
    court.hear(an_entry(), a_batch([an_event(Identity.TIMED, "e-1")]))
    with pytest.raises(ValueError, match="undecided"):
        tally(court.cases, {})
