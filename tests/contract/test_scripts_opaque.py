"""ingest_opaque.lua: a batch that ingest can't apply is taken on as it is, once, and counts nowhere yet (rule 13)."""

import pytest

from flusher.entry import decode_entry
from sidecar.contract import keys, scripts
from sidecar.contract.codec import Batch
from sidecar.contract.scripts import Call, Shard
from tests.contract.store import GENERATION, LEDGER, Producer, Store, folded
from tests.contract.values import a_batch, a_claim, an_event, indexed


@pytest.fixture
def producer(store: Store) -> Producer:
    """The producer of an open generation."""
    made = Producer()
    store.open(made)
    return made


def opaque(
    producer: Producer, batch: Batch, *, generation: str = GENERATION, ledger: str = LEDGER, shards: int = 1
) -> Call:
    """Returns the call that takes a batch on."""
    shard = Shard(ledger, shards, 0, generation)
    return scripts.ingest_opaque(shard, producer.name, producer.step(batch), batch.count)


def test_an_opaque_batch_moves_the_position_and_counts_nothing(store: Store, producer: Producer) -> None:
    # given an event that was counted
    store.ingest(producer, a_batch([an_event("e-1")]))
    counted, before = store.counters(), store.dump()
    # when a batch with it, and with a claim, is taken on
    events = [an_event("e-1"), *indexed("k", [0])]
    batch = a_batch(events, [a_claim("k", events)])
    step = producer.step(batch)
    assert store.run(opaque(producer, batch)) == [b"applied", b""]
    # then only position and stream changed
    after = store.dump()
    stream, state = keys.open_epoch(0, GENERATION).stream.encode(), keys.state(0).encode()
    assert {name for name in after.keys() | before.keys() if before.get(name) != after.get(name)} == {stream, state}
    assert store.counters() == counted
    assert (store.state()["p:producer-1"], store.state()["events"]) == (step.after.encode(), "3")
    # and the entry says so
    identifier, fields = store.client.xrange(stream)[-1]
    entry = decode_entry(identifier, [part for pair in fields.items() for part in pair])
    assert entry is not None
    assert (entry.opaque, entry.before, entry.after, entry.record) == (True, step.before, step.after, step.record)
    assert (entry.duplicates, entry.conflicts, entry.running) == ((), (), step.running)


def test_the_next_batch_follows_an_opaque_one_and_the_other_way_round(store: Store, producer: Producer) -> None:
    for number in range(4):
        batch = a_batch([an_event(f"e-{number}")])
        if number % 2:
            step = producer.step(batch)
            assert store.run(opaque(producer, batch))[0] == b"applied"
            producer.advance(step)
        else:
            assert store.ingest(producer, batch).outcome == "applied"
    entries = store.entries()
    assert [entry["a"] for entry in entries[1:]] == [entry["z"] for entry in entries[:-1]]
    assert ["o" in entry for entry in entries] == [False, True, False, True]
    assert store.counters() == folded([an_event("e-0"), an_event("e-2")])
    assert store.run(scripts.seal(0, GENERATION, "token-1"))[3] == b"4"


def test_a_repeat_is_told_the_position_whichever_script_took_the_batch(store: Store, producer: Producer) -> None:
    batch = a_batch([an_event("e-1")])
    position = producer.step(batch).after.encode().encode()
    calls = opaque(producer, batch), store.call(producer, batch)
    assert store.run(calls[0])[0] == b"applied"
    before = store.dump()
    for call in calls:
        assert store.run(call) == [b"position", position]
    assert store.dump() == before


def test_what_is_refused_writes_nothing(store: Store, producer: Producer) -> None:
    batch = a_batch([an_event("e-1")])
    ahead = Producer()
    ahead.advance(ahead.step(batch))
    position = producer.position.encode().encode()
    before = store.dump()
    full = opaque(producer, batch)
    for call, answer in (
        (opaque(ahead, a_batch([an_event("e-2")])), [b"position", position]),
        (opaque(producer, batch, generation="genera-2"), [b"generation", GENERATION.encode()]),
        (opaque(producer, batch, ledger="ledger-2"), [b"ledger", LEDGER.encode(), b"1"]),
        (opaque(producer, batch, shards=2), [b"ledger", LEDGER.encode(), b"1"]),
        (opaque(Producer("stranger-1"), batch), [b"unregistered"]),
        (full._replace(args=[*full.args[:-1], 0]), [b"full"]),
    ):
        assert store.run(call) == answer
        assert store.dump() == before
    store.run(scripts.fence(0, GENERATION))
    before = store.dump()
    assert store.run(opaque(producer, batch)) == [b"closed"]
    assert store.dump() == before


def test_it_goes_on_where_a_key_of_another_type_stops_ingest(store: Store, producer: Producer) -> None:
    batch = a_batch([an_event("e-1")])
    name = keys.identity_prefix(0, GENERATION) + batch.events[0].key
    store.client.lpush(name, "not ours")
    assert store.run(opaque(producer, batch)) == [b"applied", b""]
    assert store.client.lrange(name, 0, -1) == [b"not ours"]
