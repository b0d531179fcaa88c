"""Batches that the script or Postgres can't digest: nothing stands still, the rest counts (rule 13)."""

from decimal import Decimal

import redis

from sidecar.contract import keys
from sidecar.contract.identity import event_key
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event, indexed
from tests.protocol.test_proof import prove


async def test_a_batch_that_the_script_fails_on_goes_on_opaque_and_counts_once(system: System) -> None:
    # given a key of another type where the identity of an event belongs
    await system.send([an_event("e-0")])
    client = redis.Redis.from_url(system.redis_url)
    generation = client.hget(keys.state(0), "generation")
    assert isinstance(generation, bytes)
    client.lpush(keys.identity_prefix(0, generation.decode()) + event_key("cus_1", "", "e-2"), "not ours")
    client.close()
    # when the batch with that event is sent, and others behind it
    receipt = await system.send([an_event("e-1"), an_event("e-2", nanos=5 * NANO), an_event("e-0")])
    behind = await system.send([an_event("e-3")])
    # then it is applied without its duplicates being known, and so is what is behind it
    assert receipt.applied
    assert behind.applied
    drained = await system.flush()
    assert (drained.events, drained.duplicates, drained.quarantined, drained.discrepancies) == (4, 1, 0, 0)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(8), 4)}
    proof = await prove(system)
    assert proof.ok, proof.as_json()


async def test_an_event_that_postgres_refuses_is_quarantined_and_its_neighbours_count(system: System) -> None:
    # given events that no column takes, as a faulty sidecar might let them in, among others
    bad = an_event("e-bad", properties='{"note":"\\u0000"}', nanos=3 * NANO)
    large = an_event(nanos=10**15 * NANO)
    keyed = indexed([an_event(), large, an_event()], "k")
    await system.send([an_event(f"e-{number}") for number in range(40)])
    await system.send([an_event("f-1"), bad, an_event("f-2"), an_event("e-1")])
    await system.send(keyed, key="k", digest=b"1" * 16)
    # when they are drained
    drained = await system.flush()
    # then only those are in quarantine, with why, and all others count
    assert (drained.events, drained.duplicates, drained.quarantined) == (44, 1, 2)
    rows = system.rows("SELECT reason, events, units, detail FROM quarantine ORDER BY units")
    assert [row[:3] for row in rows] == [("data_refused", 1, Decimal(3)), ("data_refused", 1, Decimal(10**15))]
    assert "Unicode" in rows[0][3]
    assert "constraint" in rows[1][3]
    proof = await prove(system)
    assert proof.ok, proof.as_json()
    assert proof.quarantined.nanos == (3 + 10**15) * NANO


async def test_text_that_postgres_can_not_even_be_asked_for_does_not_stop_the_shard(system: System) -> None:
    # given an event whose user holds a NUL, as a faulty sidecar might let it in, so that its counter does too
    await system.send([an_event("e-1"), an_event("e-bad", user_id="cus\x00_1"), an_event("e-2", user_id="cus_2")])
    # when it is drained
    drained = await system.flush()
    # then it alone is in quarantine, and its neighbours are counted, published and proven
    assert (drained.events, drained.quarantined) == (2, 1)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1), ("cus_2", "api_call"): (Decimal(1), 1)}
    await system.send([an_event("e-3")])
    assert (await system.flush()).events == 1
    assert (await prove(system)).ok


async def test_a_record_that_is_no_batch_is_quarantined_whole(system: System) -> None:
    # given a record in the journal that this program can't decode
    ingest = await system.sidecar()
    ingest.journal.shards[0].append(b"\x91\x02 not a batch", 7, 9 * NANO)
    # when a good batch follows and both are drained
    await system.send([an_event("e-1")])
    drained = await system.flush()
    # then its events are accounted for by their running count, and what is behind it counts
    assert (drained.events, drained.quarantined) == (1, 7)
    assert system.rows("SELECT reason, events, units FROM quarantine") == [("record_invalid", 7, Decimal(9))]
    assert not (await prove(system)).failed
