"""ingest.lua against a dictionary: any mix of ids, keys, bodies and retries, and what the drain folds of it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flusher.entry import decode_entry
from sidecar.contract import keys
from sidecar.contract.codec import Batch, Claim, decode_batch
from sidecar.contract.event import Event, Identity
from sidecar.contract.meters import Amount, Counter, Meter, Revision
from tests.contract.store import GENERATION, Producer, Store, nonzero
from tests.contract.values import LARGEST, a_batch, a_claim, an_event, indexed, nanos

METERS = Revision(2, [Meter("calls", "api_call"), Meter("requests", "api_call", "count")])

amounts = nanos | st.sampled_from([0, 1, -1, LARGEST, -LARGEST])
free = st.builds(
    lambda name, amount, user: an_event(name, nanos=amount, user_id=user),
    st.none() | st.sampled_from(["e-1", "e-2", "e-3"]),
    amounts,
    st.sampled_from(["cus_1", "cus_2"]),
)


class Share(NamedTuple):
    """A share of a request: its key, the digest of its body, and its events."""

    key: str
    digest: bytes
    events: list[Event]


shares = st.builds(
    lambda key, body, indices, others, amount: Share(
        key, bytes([body]) * 16, [*indexed(key, indices, nanos=amount), *others]
    ),
    st.sampled_from(["k-1", "k-2"]),
    st.integers(1, 2),
    st.lists(st.integers(0, 5), unique=True, max_size=5).map(sorted),
    st.lists(free, max_size=2),
    amounts,
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draws a batch of shares and of events of nobody's request."""
    events: list[Event] = []
    claims: list[Claim] = []
    for part in draw(st.lists(free | shares, max_size=4)):
        if isinstance(part, Share):
            claims.append(a_claim(part.key, part.events, digest=part.digest, first=len(events)))
            events += part.events
        else:
            events.append(part)
    return a_batch(events, claims, revision=2)


@dataclass
class Memory:
    """What Redis remembers: fingerprints by event key, digests and indices by claim key."""

    events: dict[bytes, bytes] = field(default_factory=dict)
    claims: dict[bytes, tuple[bytes, set[int]]] = field(default_factory=dict)

    def taken(self, batch: Batch) -> dict[int, str]:
        """Returns the places that are repeats: claims first, then ids, each in their order."""
        found: dict[int, str] = {}
        for claim in batch.claims:
            places = range(claim.first, claim.first + claim.count)
            covered = [at for at in places if batch.events[at].identity == Identity.INDEXED]
            digest, seen = self.claims.setdefault(claim.key, (claim.digest, set()))
            if digest != claim.digest:
                found |= dict.fromkeys(places, "c")
                continue
            found |= {at: "d" for at in covered if batch.events[at].index in seen}
            seen |= {batch.events[at].index for at in covered}
        for at, event in enumerate(batch.events):
            if event.identity <= Identity.CLAIMED and at not in found:
                known = self.events.get(event.key)
                if known is not None:
                    found[at] = "d" if known == event.fingerprint else "c"
                self.events.setdefault(event.key, event.fingerprint)
        return found


@given(st.lists(batches(), max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_repeats_are_those_of_the_dictionary_and_counters_what_the_drain_folds(
    store: Store, stream: list[Batch]
) -> None:
    # given an empty Redis and an empty dictionary
    store.client.flushall()
    producer, memory = Producer(), Memory()
    store.open(producer)
    for batch in stream:
        # when a batch is applied, then its repeats are those of the dictionary
        taken = memory.taken(batch)
        duplicates = tuple(sorted(at for at, how in taken.items() if how == "d"))
        conflicts = tuple(sorted(at for at, how in taken.items() if how == "c"))
        assert store.ingest(producer, batch, METERS).taken() == (duplicates, conflicts)
    # and the counters are what the stream adds up to (rule 9), as the drain reads it
    streamed: dict[Counter, Amount] = {}
    for identifier, fields in store.client.xrange(keys.open_epoch(0, GENERATION).stream):
        entry = decode_entry(identifier, [part for pair in fields.items() for part in pair])
        assert entry is not None
        repeats = {*entry.duplicates, *entry.conflicts}
        events = decode_batch(entry.record).events
        METERS.fold((event for at, event in enumerate(events) if at not in repeats), streamed)
    assert nonzero(store.counters()) == nonzero(streamed)
