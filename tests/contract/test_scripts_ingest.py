"""ingest.lua: a batch is applied once, whole or not at all, and the counters are what its events add up to."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from sidecar.contract import keys, scripts
from sidecar.contract.codec import decode_running
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import event_key
from sidecar.contract.meters import Amount, Counter, Meter, Revision
from sidecar.contract.units import NANO
from tests.contract.store import GENERATION, LEDGER, TTL_S, Producer, Store, folded, nonzero
from tests.contract.values import JULY_US, LARGEST, a_batch, an_event, nanos

METERS = Revision(
    4,
    [
        Meter("calls", "api_call"),
        Meter("by_region", "api_call", group_by=("region",)),
        Meter("in_europe", "api_call", "count", filter={"region": ("eu",)}),
    ],
)
OPEN = keys.open_epoch(0, GENERATION)


def opened(store: Store, *names: str) -> list[Producer]:
    """Opens a generation and returns its producers."""
    producers = [Producer(name) for name in names or ("producer-1",)]
    store.open(*producers)
    return producers


# -- once


def test_a_batch_is_counted_streamed_and_moves_the_position(store: Store) -> None:
    (producer,) = opened(store)
    # when a batch comes
    batch = a_batch([an_event("e-1", nanos=1_500_000_000), an_event("e-2", user_id="cus_2"), an_event(None)])
    step = producer.step(batch)
    assert store.ingest(producer, batch) == scripts.IngestReply("applied", "")
    # then counters, stream, position and the keys that recognise a repeat are there, and nothing else
    assert store.counters() == folded(batch.events)
    (entry,) = store.entries()
    assert entry == {
        "p": b"producer-1",
        "a": step.before.encode().encode(),
        "z": step.after.encode().encode(),
        "n": b"3 3.5",
        "t": b"",
        "b": step.record,
    }
    state = store.state()
    assert state["p:producer-1"] == step.after.encode()
    assert state["c:producer-1"] == step.before.encode()
    assert state["events"] == "3"
    prefix = keys.identity_prefix(0, GENERATION)
    repeats = {prefix + event.key for event in batch.events[:2]}
    assert set(store.dump()) == {keys.state(0).encode(), *(name.encode() for name in OPEN), *repeats}
    for name in repeats:
        assert store.client.get(name) in {event.fingerprint for event in batch.events}
        assert 0 < store.client.ttl(name) <= TTL_S


def test_the_same_call_again_writes_nothing_and_tells_the_position(store: Store) -> None:
    (producer,) = opened(store)
    batch = a_batch([an_event("e-1"), an_event(None)])
    call = store.call(producer, batch)
    after = producer.step(batch).after
    assert scripts.ingest_reply(store.run(call)).outcome == "applied"
    before = store.dump()
    for _ in range(3):
        assert scripts.ingest_reply(store.run(call)) == scripts.IngestReply("position", after.encode())
    assert store.dump() == before


def test_batches_follow_each_other_and_the_running_count_goes_along(store: Store) -> None:
    one, other = opened(store, "producer-1", "producer-2")
    for number in range(5):
        for producer in (one, other):
            batch = a_batch([an_event(f"{producer.name}-{number}", nanos=NANO // 4)])
            assert store.ingest(producer, batch).outcome == "applied"
    entries = store.entries()
    assert [entry["p"] for entry in entries] == [b"producer-1", b"producer-2"] * 5
    for producer in (one, other):
        mine = [entry for entry in entries if entry["p"].decode() == producer.name]
        assert [entry["z"] for entry in mine[:-1]] == [entry["a"] for entry in mine[1:]]
        assert [decode_running(entry["n"]).events for entry in mine] == [1, 2, 3, 4, 5]
        assert decode_running(mine[-1]["n"]).nanos == 5 * (NANO // 4)
    assert sum(amount.events for amount in store.counters().values()) == 10


def test_an_empty_batch_moves_the_position_and_counts_nothing(store: Store) -> None:
    (producer,) = opened(store)
    assert store.ingest(producer, a_batch(())).outcome == "applied"
    assert store.counters() == {}
    assert len(store.entries()) == 1
    assert store.state()["p:producer-1"] == producer.position.encode()


# -- refused


def refusals(store: Store) -> dict[str, tuple[scripts.Call, list[bytes]]]:
    """Returns calls that must be refused, with what they are answered."""
    one, stranger = Producer(), Producer("stranger-1")
    batch, next_batch = a_batch([an_event("e-1")]), a_batch([an_event("e-2")])
    ahead = Producer()
    ahead.advance(ahead.step(batch))
    foreign = Producer()
    foreign.advance(foreign.step(a_batch([an_event("another history")])))
    position = one.position.encode().encode()
    return {
        "a batch that is left out": (store.call(ahead, next_batch), [b"position", position]),
        "a foreign chain": (store.call(foreign, next_batch), [b"position", position]),
        "another generation": (store.call(one, batch, generation="genera-2"), [b"generation", GENERATION.encode()]),
        "another ledger": (store.call(one, batch, ledger="ledger-2"), [b"ledger", LEDGER.encode(), b"1"]),
        "another shard count": (store.call(one, batch, shards=2), [b"ledger", LEDGER.encode(), b"1"]),
        "a producer that is not registered": (store.call(stranger, batch), [b"unregistered"]),
    }


@pytest.mark.parametrize("why", list(refusals(Store(None))))
def test_what_is_refused_writes_nothing(store: Store, why: str) -> None:
    opened(store)
    call, answer = refusals(store)[why]
    before = store.dump()
    assert store.run(call) == answer
    assert store.dump() == before


def test_nothing_is_applied_where_no_generation_is_open(store: Store) -> None:
    call = store.call(Producer(), a_batch([an_event("e-1")]))
    assert store.run(call) == [b"closed"]
    assert store.dump() == {}


def test_nothing_is_applied_to_a_fenced_generation(store: Store) -> None:
    (producer,) = opened(store)
    assert store.run(scripts.fence(0, GENERATION)) == [b"fenced"]
    before = store.dump()
    assert store.ingest(producer, a_batch([an_event("e-1")])).outcome == "closed"
    assert store.dump() == before


@pytest.mark.parametrize(("argument", "most"), [(10, 2), (11, 3)], ids=["events", "fields of counters"])
def test_nothing_is_applied_to_a_full_epoch(store: Store, argument: int, most: int) -> None:
    # given an epoch with two events of two users, which are four fields
    (producer,) = opened(store)
    store.ingest(producer, a_batch([an_event("e-1"), an_event("e-2", user_id="cus_2")]))
    before = store.dump()
    # when a batch comes where no more are allowed
    call = store.call(producer, a_batch([an_event("e-3")]))
    args = list(call.args)
    args[argument] = most
    assert store.run(call._replace(args=args)) == [b"full"]
    # then nothing is written, and there is room again once the epoch is sealed
    assert store.dump() == before
    store.run(scripts.seal(0, GENERATION, "token-1"))
    assert store.run(call._replace(args=args))[0] == b"applied"


@pytest.mark.parametrize("place", range(4), ids=["state", "stream", "counters", "index"])
def test_a_key_of_the_wrong_type_stops_the_batch_before_its_first_write(store: Store, place: int) -> None:
    # given a key that somebody made a list of
    (producer,) = opened(store)
    name = (keys.state(0), *OPEN)[place]
    saved = store.client.dump(name)
    store.client.delete(name)
    store.client.lpush(name, "not ours")
    before = store.dump()
    # when a batch comes, again and again
    batch = a_batch([an_event("e-1"), an_event("e-2")])
    for _ in range(3):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            store.ingest(producer, batch)
        assert store.dump() == before
    # then it is not lost: with the key mended the same batch counts, once
    store.client.delete(name)
    if saved is not None:
        store.client.restore(name, 0, saved)
    assert store.ingest(producer, batch) == scripts.IngestReply("applied", "")
    assert store.counters() == folded(batch.events)


def test_a_key_of_the_wrong_type_for_a_repeat_leaves_position_counters_and_stream(store: Store) -> None:
    # given a list in the place of the second event's key
    (producer,) = opened(store)
    batch = a_batch([an_event("e-1"), an_event("e-2")])
    name = keys.identity_prefix(0, GENERATION) + batch.events[1].key
    store.client.lpush(name, "not ours")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        store.ingest(producer, batch)
    # then the position has not moved and nothing was counted
    assert store.state()["p:producer-1"] == producer.position.encode()
    assert (store.counters(), store.entries()) == ({}, [])
    # and with the key mended it is applied: the first event is taken for a repeat, which Postgres decides again
    store.client.delete(name)
    assert store.ingest(producer, batch) == scripts.IngestReply("applied", "d0")
    assert nonzero(store.counters()) == folded(batch.events, taken=[0])


# -- repeats


def test_a_repeat_is_not_counted_and_another_payload_is_a_conflict(store: Store) -> None:
    one, other = opened(store, "producer-1", "producer-2")
    first = [an_event("e-1"), an_event("e-2")]
    assert store.ingest(one, a_batch(first)).taken() == ((), ())
    # when both come again from another sidecar, the second with other units, between new ones
    again = [an_event("e-0"), an_event("e-1"), an_event("e-2", nanos=7 * NANO), an_event("e-3")]
    assert store.ingest(other, a_batch(again)).taken() == ((1,), (2,))
    # then the first payload stays
    assert store.counters() == folded([*first, again[0], again[3]])
    assert store.entries()[-1]["t"] == b"d1,c2"
    prefix = keys.identity_prefix(0, GENERATION)
    assert store.client.get(prefix + first[1].key) == first[1].fingerprint


def test_the_same_id_twice_in_a_batch_counts_once(store: Store) -> None:
    (producer,) = opened(store)
    events = [an_event("e-1"), an_event("e-1"), an_event("e-1", nanos=2 * NANO), an_event("e-2"), an_event("e-1")]
    assert store.ingest(producer, a_batch(events)).taken() == ((1, 4), (2,))
    assert store.counters() == folded(events, taken=[1, 2, 4])


def test_an_id_is_recognised_with_and_without_a_timestamp(store: Store) -> None:
    (producer,) = opened(store)
    timed, claimed = an_event("e-1"), an_event("e-1", identity=Identity.CLAIMED, time_us=JULY_US + 1)
    assert store.ingest(producer, a_batch([timed])).taken() == ((), ())
    assert store.ingest(producer, a_batch([claimed])).taken() == ((0,), ())


def test_events_without_an_identity_are_never_repeats(store: Store) -> None:
    (producer,) = opened(store)
    batch = a_batch([an_event(None), an_event(None)])
    for _ in range(2):
        assert store.ingest(producer, batch).taken() == ((), ())
    assert len(store.dump()) == 4


def test_a_counter_that_came_to_nothing_is_nothing(store: Store) -> None:
    (one,) = opened(store)
    store.ingest(one, a_batch([an_event("e-1")]))
    other_user = [an_event("e-2", user_id="cus_2")]
    store.ingest(one, a_batch(other_user))
    assert store.ingest(one, a_batch(other_user)).taken() == ((0,), ())
    assert store.counters()[Counter("cus_2", "api_call", JULY_US // 900_000_000, "{}")] == Amount(NANO, 1)


# -- exactness


@pytest.mark.parametrize(
    "value",
    [LARGEST, -LARGEST, 1, -1, NANO - 1, NANO, 10**18, 10**18 - 1, 10**18 + NANO, 2**53 + 1, -(2**63) - 1, 0],
)
def test_counters_are_exact_and_so_is_taking_out_again(store: Store, value: int) -> None:
    (producer,) = opened(store)
    events = [an_event(f"e-{number}", nanos=value) for number in range(3)]
    store.ingest(producer, a_batch(events))
    counter = Counter("cus_1", "api_call", JULY_US // 900_000_000, "{}")
    assert store.counters() == {counter: Amount(3 * value, 3)}
    # when they come again with a new one among them
    again = [events[0], an_event("new", nanos=value), *events[1:]]
    assert store.ingest(producer, a_batch(again)).taken() == ((0, 2, 3), ())
    # then exactly the new one is added
    assert store.counters() == {counter: Amount(4 * value, 4)}


def test_limbs_that_are_nothing_make_no_field(store: Store) -> None:
    (producer,) = opened(store)
    store.ingest(producer, a_batch([an_event("e-1", nanos=5 * NANO), an_event("e-2", nanos=0, user_id="cus_2")]))
    fields = [name.decode().split(keys.SEPARATOR) for name in store.client.hkeys(OPEN.counters)]
    assert sorted((field[0], field[-1]) for field in fields) == [("cus_1", "1"), ("cus_1", "n"), ("cus_2", "n")]


def test_an_event_is_taken_out_of_every_meter_that_it_fed(store: Store) -> None:
    (producer,) = opened(store)
    europe, plain = '{"region":"eu"}', ""
    events = [
        an_event("e-1", properties=europe, nanos=3),
        an_event("e-2", properties=plain, nanos=NANO * NANO),
        an_event("e-3", event_type="other"),
    ]
    store.ingest(producer, a_batch(events, revision=4), METERS)
    again = [*events, an_event("e-4", properties=europe, nanos=-3)]
    assert store.ingest(producer, a_batch(again, revision=4), METERS).taken() == ((0, 1, 2), ())
    assert store.counters() == folded([*events, again[3]], METERS)


streams = st.lists(
    st.lists(
        st.builds(
            lambda name, amount, user, type_, region: an_event(
                name,
                nanos=amount,
                user_id=user,
                event_type=type_,
                properties=f'{{"region":"{region}"}}' if region else "",
            ),
            st.none() | st.sampled_from([f"e-{number}" for number in range(6)]),
            nanos | st.sampled_from([0, 1, -1, LARGEST, -LARGEST]),
            st.sampled_from(["cus_1", "cus_2"]),
            st.sampled_from(["api_call", "other"]),
            st.sampled_from(["eu", "us", ""]),
        ),
        max_size=6,
    ),
    max_size=5,
)


@given(streams)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stream_is_counted_as_a_dictionary_counts_it(store: Store, batches: list[list[Event]]) -> None:
    store.client.flushall()
    (producer,) = opened(store)
    known: dict[bytes, bytes] = {}
    counted: list[Event] = []
    for events in batches:
        duplicates: list[int] = []
        conflicts: list[int] = []
        for place, event in enumerate(events):
            if event.identity == Identity.MADE:
                counted.append(event)
                continue
            assert event.key == event_key(event.user_id, "", event.id or "")
            if event.key not in known:
                known[event.key] = event.fingerprint
                counted.append(event)
            else:
                (duplicates if known[event.key] == event.fingerprint else conflicts).append(place)
        reply = store.ingest(producer, a_batch(events, revision=4), METERS)
        assert reply.taken() == (tuple(duplicates), tuple(conflicts))
    assert nonzero(store.counters()) == nonzero(folded(counted, METERS))
