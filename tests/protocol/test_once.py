"""The thinnest whole path: events into a sidecar, drained into Postgres, counted once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from sidecar.contract.identity import shard_of
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event, indexed


async def test_an_event_is_counted_once_however_often_it_is_sent(system: System) -> None:
    # given an event that was applied
    first = await system.send([an_event("e-1"), an_event("e-2", nanos=NANO // 2)])
    assert (first.applied, first.duplicates, first.conflicts) == (True, (), ())
    # when it is sent again, before and after a drain
    again = await system.send([an_event("e-1"), an_event("e-3")])
    assert again.duplicates == (0,)
    drained = await system.flush()
    assert (drained.events, drained.duplicates, drained.discrepancies) == (3, 1, 0)
    await system.send([an_event("e-1")])
    await system.flush()
    # then it counts once
    assert system.usage() == {("cus_1", "api_call"): (Decimal("2.5"), 3)}


async def test_a_batch_under_a_key_is_counted_once_and_another_body_under_it_not_at_all(system: System) -> None:
    events = indexed([an_event() for _ in range(5)], "key-1")
    first = await system.send(events, key="key-1", digest=b"1" * 16)
    assert (first.applied, first.reused, first.duplicates) == (True, False, ())
    again = await system.send(events, key="key-1", digest=b"1" * 16)
    assert again.duplicates == (0, 1, 2, 3, 4)
    other = await system.send(events[:2], key="key-1", digest=b"2" * 16)
    assert other.reused
    drained = await system.flush()
    assert (drained.events, drained.duplicates, drained.conflicts, drained.discrepancies) == (5, 5, 2, 0)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(5), 5)}


@pytest.fixture
async def wide(make_database: Callable[..., str], redis_url: str, tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, make_database(shards=2), tmp_path)
    yield made
    await made.close()


async def test_another_body_that_goes_to_other_shards_is_not_counted_either(wide: System) -> None:
    # given a key that was used for events of one shard
    users = [next(user for user in map("cus_{}".format, range(100)) if shard_of(user, 2) == shard) for shard in (0, 1)]
    first, second = (indexed([an_event(user_id=user)], "key-1", 2) for user in users)
    assert (await wide.send(first, key="key-1", digest=b"1" * 16)).applied
    # when it is used for another body, for events of both, or of the other shard alone
    both = [*first, msgspec.structs.replace(second[0], key=b"", index=1)]
    answers = [await wide.send(events, key="key-1", digest=b"2" * 16) for events in (both, second)]
    # then nothing of that counts
    assert [answer.reused for answer in answers] == [True, True]
    drained = await wide.flush()
    assert (drained.events, drained.conflicts) == (1, 0)
    assert wide.usage() == {(users[0], "api_call"): (Decimal(1), 1)}


async def test_requests_under_keys_that_share_a_batch_keep_to_their_own_claims(system: System) -> None:
    # given two requests that are journaled in one batch, behind one without a key
    ingest = await system.sidecar("a")
    bodies = {key: indexed([an_event() for _ in range(count)], key) for key, count in (("key-1", 2), ("key-2", 3))}
    async with ingest.lanes[0].still:
        sending = [asyncio.create_task(system.send([an_event("e-1")]))]
        sending += [asyncio.create_task(system.send(body, key=key, digest=b"1" * 16)) for key, body in bodies.items()]
        await system.until(lambda: ingest.lanes[0].waiting_events == 6)
    assert all(receipt.applied and not receipt.duplicates for receipt in await asyncio.gather(*sending))
    # when each is sent again, and one with another body
    again = [await system.send(body, key=key, digest=b"1" * 16) for key, body in bodies.items()]
    other = await system.send(bodies["key-2"], key="key-2", digest=b"2" * 16)
    # then their own events are repeats, and all count once
    assert ([receipt.duplicates for receipt in again], other.reused) == ([(0, 1), (0, 1, 2)], True)
    drained = await system.flush()
    assert (drained.events, drained.duplicates, drained.conflicts, drained.discrepancies) == (6, 5, 3, 0)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(6), 6)}
