"""A Redis without memory: ingest is denied before it writes, what gives memory back still runs (rule 4)."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from redis.exceptions import OutOfMemoryError

from flusher.embedded.valkey import ValkeyServer
from sidecar.contract import keys, scripts
from sidecar.contract.codec import Position
from sidecar.contract.scripts import DayTotals
from tests.contract.conftest import connect
from tests.contract.store import GENERATION, Producer, Store, folded
from tests.contract.values import a_batch, an_event

EVENTS = [an_event(f"e-{number}", user_id=f"cus_{number}") for number in range(200)]
PROGRAMS = [None, *(["redis-server"] if shutil.which("redis-server") or os.environ.get("CI") == "true" else [])]


@pytest.fixture(params=PROGRAMS, ids=lambda program: program or "valkey")
def full(request: pytest.FixtureRequest, start_valkey: Callable[..., ValkeyServer]) -> Iterator[tuple[Store, Producer]]:
    """A store with one epoch sealed and one open, on a server that has no memory left."""
    server = start_valkey(program=request.param, appendonly="no")
    client = connect(server.url)
    store, producer = Store(client), Producer()
    store.open(producer)
    store.ingest(producer, a_batch(EVENTS))
    store.run(scripts.seal(0, GENERATION, "token-1"))
    store.ingest(producer, a_batch([an_event("f-1")]))
    store.stage("genera-2", [producer])
    store.client.config_set("maxmemory", "1mb")  # less than an empty server takes
    yield store, producer
    client.close()


def test_ingest_is_denied_and_writes_nothing(full: tuple[Store, Producer]) -> None:
    store, producer = full
    before = store.dump()
    batch = a_batch([an_event("f-2"), an_event("e-1")])
    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            store.ingest(producer, batch)
    assert store.dump() == before
    # and with memory again the same batch is applied
    store.client.config_set("maxmemory", "0")
    assert store.ingest(producer, batch).outcome == "applied"
    assert store.counters() == folded([an_event("f-1"), an_event("f-2")])  # e-1 is a repeat


def test_the_flusher_goes_on(full: tuple[Store, Producer]) -> None:
    store, producer = full
    # when everything that the flusher does is done
    assert store.run(scripts.seal(0, GENERATION, "token-2"))[:2] == [b"sealed", b"token-1"]
    assert len(store.run(scripts.read_entries(0, GENERATION, "token-1", "-", 9))[1]) == 1
    assert store.run(scripts.read_counters(0, GENERATION, "token-1", "0", 9))[0] == b"ok"
    assert store.run(scripts.live(0, GENERATION, "token-1", "cus_1", None, (0, 1)))[0] == b"ok"
    assert store.run(scripts.inspect(0, GENERATION, "token-1"))[0] == b"ok"
    totals = DayTotals("cus_1", 20_290, 4_000_000_000, {"total": "1 1"})
    publish = scripts.publish(0, GENERATION, "token-1", [(producer.name, producer.position)], [totals])
    assert store.run(publish) == [b"published"]
    assert store.run(scripts.seal(0, GENERATION, "token-2"))[:2] == [b"sealed", b"token-2"]
    assert store.run(scripts.register(0, GENERATION, "producer-2", Position(0, bytes(16)))) == [b"registered"]
    assert store.run(scripts.fence(0, GENERATION)) == [b"fenced"]
    staged = scripts.StagedHash(keys.staged_state(0, "genera-3"), 4_000_000_000, {"generation": "genera-3"})
    assert store.run(scripts.stage([staged])) == [b"staged"]
    assert store.run(scripts.swap(0, GENERATION, "genera-2", "token-9")) == [b"swapped"]
    # then what was committed is gone from Redis, and a new generation is open
    assert not store.client.exists(*keys.sealed_epoch(0, GENERATION, "token-1"))
    assert store.state()["generation"] == "genera-2"
