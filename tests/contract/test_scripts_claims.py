"""ingest.lua under an Idempotency-Key: a claim a share, which holds the digest of the body and the covered indices."""

from collections.abc import Sequence

import pytest

from sidecar.contract import keys
from sidecar.contract.codec import Batch, Claim
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import claim_key
from sidecar.contract.units import NANO
from tests.contract.store import GENERATION, TTL_S, Producer, Store, folded, nonzero
from tests.contract.values import a_batch, a_claim, an_event, indexed

ONE, OTHER = b"1" * 16, b"2" * 16


@pytest.fixture
def producer(store: Store) -> Producer:
    """The producer of a generation that is open."""
    made = Producer()
    store.open(made)
    return made


def share(key: str, events: Sequence[Event], digest: bytes = ONE) -> Batch:
    """Returns a batch that is one share of a request."""
    return a_batch(events, [a_claim(key, events, digest=digest)])


def shares(*parts: tuple[str, Sequence[Event], bytes]) -> Batch:
    """Returns a batch of several shares."""
    events: list[Event] = []
    claims: list[Claim] = []
    for key, mine, digest in parts:
        claims.append(a_claim(key, mine, digest=digest, first=len(events)))
        events += mine
    return a_batch(events, claims)


def claim_of(store: Store, key: str) -> tuple[bytes, str]:
    """Returns the digest and the covered indices that Redis holds of a claim."""
    name = keys.identity_prefix(0, GENERATION) + claim_key(key, 0)
    assert 0 < store.client.ttl(name) <= TTL_S
    held: bytes = store.client.get(name)
    return held[:16], held[16:].decode()


def test_a_share_is_held_by_one_key_whatever_its_size(store: Store, producer: Producer) -> None:
    events = indexed("k", range(100))
    before = len(store.dump())
    assert store.ingest(producer, share("k", events)).taken() == ((), ())
    assert len(store.dump()) == before + 4
    assert claim_of(store, "k") == (ONE, "0-99")
    assert store.counters() == folded(events)


def test_the_same_request_again_is_all_duplicates(store: Store, producer: Producer) -> None:
    events = indexed("k", range(5))
    store.ingest(producer, share("k", events))
    assert store.ingest(producer, share("k", events)).taken() == ((0, 1, 2, 3, 4), ())
    assert store.counters() == folded(events)
    assert claim_of(store, "k") == (ONE, "0-4")


def test_another_body_under_the_key_applies_nothing(store: Store, producer: Producer) -> None:
    events = indexed("k", range(3))
    store.ingest(producer, share("k", events))
    other = indexed("k", range(6), nanos=7 * NANO)
    assert store.ingest(producer, share("k", other, OTHER)).taken() == ((), (0, 1, 2, 3, 4, 5))
    assert store.counters() == folded(events)
    assert claim_of(store, "k") == (ONE, "0-2")


def test_indices_that_were_rejected_the_first_time_still_count(store: Store, producer: Producer) -> None:
    # given a request whose events 2, 3 and 7 were rejected
    first = indexed("k", [0, 1, 4, 5, 6, 8])
    store.ingest(producer, share("k", first))
    assert claim_of(store, "k") == (ONE, "0-1,4-6,8-8")
    # when all of them are valid in the retry
    again = indexed("k", range(9))
    assert store.ingest(producer, share("k", again)).taken() == ((0, 1, 4, 5, 6, 8), ())
    # then exactly those three are added, and a third time nothing is
    assert store.counters() == folded(again)
    assert claim_of(store, "k") == (ONE, "0-1,4-6,8-8,0-8")
    assert store.ingest(producer, share("k", again)).taken() == (tuple(range(9)), ())
    assert store.counters() == folded(again)


def test_a_retry_that_covers_less_takes_nothing_back(store: Store, producer: Producer) -> None:
    events = indexed("k", range(5))
    store.ingest(producer, share("k", events))
    assert store.ingest(producer, share("k", events[1:3])).taken() == ((0, 1), ())
    assert store.ingest(producer, share("k", events)).taken() == ((0, 1, 2, 3, 4), ())
    assert store.counters() == folded(events)


def test_retries_with_other_indices_each_cover_theirs(store: Store, producer: Producer) -> None:
    for indices in ([0, 1], [1, 2], [3]):
        store.ingest(producer, share("k", indexed("k", indices)))
    assert store.ingest(producer, share("k", indexed("k", range(5)))).taken() == ((0, 1, 2, 3), ())
    assert store.counters() == folded(indexed("k", range(5)))


def test_several_claims_in_a_batch_are_decided_apart(store: Store, producer: Producer) -> None:
    one, two, three = (indexed(key, range(3)) for key in ("k-1", "k-2", "k-3"))
    store.ingest(producer, shares(("k-1", one, ONE), ("k-2", two, ONE)))
    # when the first comes again, the second with another body, and a third is new
    batch = shares(("k-1", one, ONE), ("k-2", two, OTHER), ("k-3", three, ONE))
    assert store.ingest(producer, batch).taken() == ((0, 1, 2), (3, 4, 5))
    assert store.counters() == folded([*one, *two, *three])


def test_the_same_request_twice_in_a_batch_counts_once(store: Store, producer: Producer) -> None:
    events = indexed("k", range(3))
    batch = shares(("k", events, ONE), ("k", events, ONE), ("k", events, OTHER))
    assert store.ingest(producer, batch).taken() == ((3, 4, 5), (6, 7, 8))
    assert store.counters() == folded(events)


def test_events_with_ids_in_a_keyed_request_keep_identities_of_their_own(store: Store, producer: Producer) -> None:
    # given a request of an event without an id, one with, one without
    first, last = indexed("k", [0, 2])
    middle = an_event("e-1")
    request = [first, middle, last]
    assert store.ingest(producer, share("k", request)).taken() == ((), ())
    assert claim_of(store, "k") == (ONE, "0-0,2-2")
    # when it comes again, and when its event with an id comes alone
    assert store.ingest(producer, share("k", request)).taken() == ((0, 1, 2), ())
    assert claim_of(store, "k") == (ONE, "0-0,2-2")
    assert store.ingest(producer, a_batch([middle])).taken() == ((0,), ())
    assert store.counters() == folded(request)


def test_a_body_that_may_not_be_applied_burns_no_id(store: Store, producer: Producer) -> None:
    # given a key that was used, and another body under it with an event that has an id
    store.ingest(producer, share("k", indexed("k", [0])))
    fresh = an_event("e-9", nanos=5)
    refused = share("k", [fresh, *indexed("k", [1])], OTHER)
    assert store.ingest(producer, refused).taken() == ((), (0, 1))
    # when that event comes under a key of its own
    assert store.ingest(producer, share("k-2", [fresh])).taken() == ((), ())
    # then it counts
    assert store.counters() == folded([*indexed("k", [0]), fresh])


def test_places_and_indices_are_told_apart(store: Store, producer: Producer) -> None:
    # given a share far behind in its batch whose indices are large
    filler = [an_event(f"e-{number}") for number in range(300)]
    events = indexed("k", [256, 9_999, 4_000])
    batch = shares(("first", filler, ONE), ("k", events, ONE))
    assert store.ingest(producer, batch).taken() == ((), ())
    assert claim_of(store, "k") == (ONE, "256-256,9999-9999,4000-4000")
    assert claim_of(store, "first") == (ONE, "")
    assert store.ingest(producer, batch).taken() == (tuple(range(303)), ())
    assert store.counters() == folded(batch.events)


def test_an_event_that_no_identity_covers_counts_in_every_retry_of_a_batch_with_claims(
    store: Store, producer: Producer
) -> None:
    made, covered = an_event(None), indexed("k", [0])
    events = [made, *covered]
    batch = a_batch(events, [a_claim("k", covered, first=1)])
    assert store.ingest(producer, batch).taken() == ((), ())
    assert store.ingest(producer, batch).taken() == ((1,), ())
    assert store.counters() == folded([made, *events])


def test_what_a_claim_takes_out_is_exact(store: Store, producer: Producer) -> None:
    events = [event for nanos in (1, -1, 10**24 - 1, 1 - 10**24, 0) for event in indexed(f"k{nanos}", [0], nanos=nanos)]
    assert all(event.identity == Identity.INDEXED for event in events)
    parts = [(f"k{event.nanos}", [event], ONE) for event in events]
    store.ingest(producer, shares(*parts))
    assert store.ingest(producer, shares(*parts)).taken() == ((0, 1, 2, 3, 4), ())
    assert nonzero(store.counters()) == folded(events)
