"""The thinnest whole path: events into a sidecar, drained into Postgres, counted once."""

from decimal import Decimal

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
