"""Voids on real servers: each cancels an event once, before or after it comes, whatever dies in between."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal

import msgspec
import pytest

from flusher.catalog_store import apply_catalog
from flusher.database import connect
from flusher.law import Outcome
from flusher.ledger import Ledger
from flusher.quarantine import retry
from flusher.retention import Dropped
from flusher.summed import KeyedRows
from flusher.worker import Worker
from sidecar.contract.event import VOID_TYPE, Event
from sidecar.contract.meters import WINDOW_US, Amount, Counter, Meter, encode_meters
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event, indexed
from tests.protocol.test_retention import KEEP_LITTLE, clean, hear_of_the_floor
from tests.protocol.voiding import NOW_US, a_void, die_before_publishing, forget, live_nanos, recent, settle


def waiting(system: System) -> list[bool]:
    """Returns of every void whether it waits for its event."""
    return [voided_at is None for (voided_at,) in system.rows("SELECT voided_at FROM void_list ORDER BY id")]


@pytest.mark.parametrize("order", ["together", "behind", "before", "later", "long before"])
async def test_an_event_and_its_void_come_to_nothing_in_whatever_order_they_come(system: System, order: str) -> None:
    # given an event that stays, and one that is cancelled
    event = recent("e-1", nanos=5 * NANO)
    stays, void = recent("e-2", nanos=2 * NANO), a_void(event)
    orders: dict[str, list[list[Event] | str]] = {
        "together": [[stays, event, void]],
        "behind": [[stays, void, event]],
        "before": [[void], [stays, event]],
        "later": [[stays, event], "drain", [void]],
        "long before": [[void], "drain", [stays], "drain", [event]],
    }
    # when they come
    for step in orders[order]:
        if isinstance(step, str):
            await settle(system)
        else:
            assert (await system.send(step)).duplicates == ()
    await settle(system)
    # then only the other one counts, everywhere
    assert system.usage() == {("cus_1", "api_call"): (Decimal(2), 1)}
    assert await live_nanos(system) == 2 * NANO
    assert system.rows("SELECT id FROM event_list") == [("e-2",)]
    assert system.rows("SELECT id, reason, voided_at IS NULL FROM void_list") == [("e-1", "a mistake", False)]
    assert system.rows("SELECT count(*) FROM events") == [(3,)]


async def test_a_voided_id_stays_used_and_a_void_is_made_once(system: System) -> None:
    event, void = recent("e-1"), a_void(recent("e-1"))
    other_payload, other_reason = recent("e-1", nanos=7 * NANO), a_void(event, "another one")
    await system.send([event])
    await system.send([void])

    async def repeated() -> None:
        # when everything is sent again, then the same is a duplicate and something else a conflict
        receipt = await system.send([event, void, other_payload, other_reason])
        assert (receipt.duplicates, receipt.conflicts) == ((0, 1), (2, 3))
        drained = await system.flush()
        assert (drained.duplicates, drained.conflicts, drained.voided) == (2, 2, 0)

    assert (await system.flush()).voided == 1
    await repeated()
    # also where Redis has forgotten everything: Postgres decides
    forget(system)
    await system.flush()
    receipt = await system.send([event, void])
    assert receipt.duplicates == ()
    drained = await system.flush()
    assert (drained.events, drained.duplicates, drained.conflicts, drained.voided) == (0, 2, 0, 0)
    # and nothing has come back
    assert system.usage() == {("cus_1", "api_call"): (Decimal(0), 0)}
    assert await live_nanos(system) == 0
    assert system.rows("SELECT reason FROM void_list") == [("a mistake",)]
    await settle(system)


async def test_a_void_of_nothing_waits_and_is_in_nobodys_way(system: System) -> None:
    # given voids that name a wrong time, a wrong id, another user's event
    event = recent("e-2")
    wrong = [a_void(event, time_us=NOW_US + 1), a_void(recent("e-1")), a_void(recent("e-3", user_id="cus_2"))]
    await system.send([event, *wrong])
    await settle(system)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    assert waiting(system) == [True, True, True]
    # when the right one comes
    receipt = await system.send([a_void(event)])
    await settle(system)
    # then it is none of theirs
    assert receipt.duplicates == ()
    assert system.usage() == {("cus_1", "api_call"): (Decimal(0), 0)}
    assert sorted(waiting(system)) == [False, True, True, True]


async def test_an_id_without_a_timestamp_is_voided_at_the_time_that_it_was_given(system: System) -> None:
    await system.send([an_event("e-1", time_us=None)])
    await system.flush()
    ((time_us,),) = system.rows("SELECT (extract(epoch FROM event_time) * 1000000)::bigint FROM event_list")
    await system.send([a_void(an_event("e-1"), time_us=time_us)])
    await settle(system)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(0), 0)}


async def test_what_a_void_takes_out_is_what_was_counted_under_the_meters_of_then(system: System) -> None:
    # given an event that was counted under meters that read its properties, and other meters since
    def apply(number: int, meters: Sequence[Meter]) -> None:
        with connect(system.database_url) as connection:
            text = encode_meters(meters).decode()
            connection.execute("INSERT INTO revisions (revision, meters) VALUES (%s, %s)", (number, text))

    def traffic(name: str) -> Meter:
        wanted: dict[str, tuple[str, ...]] = {"region": ("eu", "us")}
        return Meter(name, "api_call", "sum", "properties.bytes", group_by=("region",), filter=wanted)

    def sent(name: str, amount: str) -> Event:
        return recent(name, properties=f'{{"bytes":{amount},"region":"eu"}}')

    def used() -> dict[str, tuple[Decimal, int]]:
        found = system.rows('SELECT meter, units, events FROM usage WHERE dimensions = \'{"region": "eu"}\'')
        return {meter: (units, events) for meter, units, events in found}

    first, second = sent("e-1", "0.30"), sent("e-2", "41")
    apply(1, [traffic("old")])
    ingest = await system.sidecar()
    await system.until(lambda: ingest.revision.number == 1)
    await system.send([first, second])
    await system.flush()
    apply(2, [traffic("new"), Meter("voids", VOID_TYPE, "count")])
    await system.until(lambda: ingest.revision.number == 2)
    await system.send([sent("e-3", "5")])
    await system.flush()
    assert used() == {"old": (Decimal("41.3"), 2), "new": (Decimal(5), 1)}
    # when it is voided
    await system.send([a_void(first)])
    await settle(system)
    # then it is taken out of what it was counted in, and no meter counts the void
    assert used() == {"old": (Decimal(41), 1), "new": (Decimal(5), 1)}
    assert system.rows("SELECT count(*) FROM usage") == [(2,)]


async def test_a_flusher_that_dies_between_commit_and_publishing_leaves_nothing_behind_in_redis(system: System) -> None:
    # given an event that is published, and a flusher that dies before it publishes that it is voided
    event = recent("e-1")
    await system.send([event, recent("e-2", user_id="cus_2")])
    await settle(system)
    assert await live_nanos(system) == NANO

    await system.send([a_void(event)])
    await die_before_publishing(system)
    assert system.usage()["cus_1", "api_call"] == (Decimal(0), 0)
    assert await live_nanos(system) == NANO
    # when another one goes on
    await settle(system)
    # then live usage shows it
    assert await live_nanos(system) == 0
    assert await live_nanos(system, "cus_2") == NANO


async def test_live_usage_shows_a_voided_event_until_the_next_drain(system: System) -> None:
    await system.send([recent("e-1")])
    await system.send([a_void(recent("e-1"))])
    assert await live_nanos(system) == NANO
    await system.flush()
    assert await live_nanos(system) == 0


async def test_a_void_without_an_event_and_one_that_only_looks_like_one_do_no_harm(system: System) -> None:
    # given what a faulty or older sidecar may let in under the reserved type
    event = recent("e-1")
    looks_like = [
        recent("e-2", event_type=VOID_TYPE, nanos=5 * NANO, properties='{"reason":"x"}'),
        msgspec.structs.replace(an_event(), event_type=VOID_TYPE),
        msgspec.structs.replace(a_void(event), properties='{"reason":7}'),
        msgspec.structs.replace(a_void(recent("e-3")), properties=""),
    ]
    await system.send([event, *looks_like])
    await settle(system)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    assert system.rows("SELECT count(*) FROM voids") == [(0,)]


async def test_an_event_in_quarantine_is_voided_when_it_is_counted_after_all(system: System) -> None:
    # given an event that is quarantined, and its void, which came in time
    event = an_event("e-1", nanos=5 * NANO)
    with connect(system.database_url) as connection:
        connection.execute("UPDATE ledger SET event_floor = '2025-08-01'")
    await system.send([event])
    assert (await system.flush()).quarantined == 1
    with connect(system.database_url) as connection:
        connection.execute("UPDATE ledger SET event_floor = '-infinity'")
    await system.send([a_void(event), an_event("e-2")])
    await settle(system)
    assert waiting(system) == [True]
    # when it is retried
    ((number,),) = system.rows("SELECT quarantined FROM quarantine")
    with closing(Ledger(system.database_url)) as ledger:
        assert (await asyncio.to_thread(retry, ledger, number))[Outcome.INSERTED] == 1
    # then it is stored, and does not count
    await settle(system)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    assert waiting(system) == [False]


async def test_a_void_in_quarantine_cancels_when_it_is_retried_and_one_below_the_floor_is_refused(
    system: System,
) -> None:
    # given a void of a time at or before which all is closed (rule 15)
    event = an_event("e-1")
    await system.send([event])
    await system.flush()
    with connect(system.database_url) as connection:
        connection.execute("UPDATE ledger SET event_floor = '2025-08-01'")
    await system.send([a_void(event)])
    drained = await system.flush()
    # then it is held in quarantine, and cancels nothing
    assert (drained.quarantined, drained.voided) == (1, 0)
    assert system.rows("SELECT reason FROM quarantine") == [("too_old",)]
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    await settle(system)
    # and when it can be counted after all, live usage follows too
    with connect(system.database_url) as connection:
        connection.execute("UPDATE ledger SET event_floor = '-infinity'")
    ((number,),) = system.rows("SELECT quarantined FROM quarantine")
    with closing(Ledger(system.database_url)) as ledger:
        await asyncio.to_thread(retry, ledger, number)
    await settle(system)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(0), 0)}


async def test_a_discrepancy_closes_on_what_is_left_after_a_void(system: System) -> None:
    event = recent("e-1")
    await system.send([event, recent("e-2")])
    await system.send([a_void(event)])
    await system.flush()
    with connect(system.database_url) as connection, closing(Ledger(system.database_url)) as ledger:
        counter = Counter("cus_1", "api_call", NOW_US // WINDOW_US, "{}")
        with ledger.transaction():
            ledger.record_discrepancy(0, "epoch", counter, Amount(NANO, 1), Amount())
            assert ledger.resolve_discrepancies() == 1
        assert connection.execute("SELECT resolved_at IS NULL FROM discrepancies").fetchall() == [(False,)]


async def test_events_under_a_key_are_summed_up_beside_voids_of_events_with_ids(system: System) -> None:
    # given a flusher that keeps sums, and a request under a key with an event that has an id
    system.worker.close()
    system.worker = Worker.connect(system.redis_url, system.database_url, keyed_rows=KeyedRows.SUMMED)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, '[[meters]]\nname = "calls"\nevent_type = "api_call"\n')
    keyed = [*indexed([recent("", nanos=NANO) for _ in range(4)], "k"), recent("e-1", nanos=5 * NANO)]
    await system.send(keyed, key="k", digest=b"1" * 16)
    # when that one is voided, and the request repeated
    await system.send([a_void(keyed[-1])])
    await system.send(keyed, key="k", digest=b"1" * 16)
    await settle(system)
    # then the sum stays
    assert system.rows("SELECT units, events FROM usage") == [(Decimal(4), 4)]


async def test_the_values_of_a_voided_event_are_taken_out_too(system: System) -> None:
    # given meters that keep the value of each event
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(
            connection,
            '[[meters]]\nname = "peak"\nevent_type = "api_call"\naggregation = "max"\n'
            '[[meters]]\nname = "hosts"\nevent_type = "api_call"\naggregation = "unique"\nfield = "properties.host"\n',
        )
    ingest = await system.sidecar()
    await system.until(lambda: ingest.revision.number == 1)
    events = [recent(f"e-{number}", nanos=number * NANO, properties=f'{{"host":"{number}"}}') for number in range(4)]
    # when some are voided: in the same drain, later, and before they come
    await system.send([a_void(events[3]), *events[:3], a_void(events[2])])
    await settle(system)
    await system.send([a_void(events[1]), events[3]])
    await settle(system)
    # then nothing is kept of them
    kept = system.rows("SELECT meter, value, label FROM usage_values ORDER BY meter")
    assert [(meter, label) for meter, _, label in kept] == [("hosts", "0"), ("peak", None)]
    assert {events for _, events in system.usage().values()} == {1}


async def test_a_dropped_month_keeps_the_proof_of_what_was_voided_in_it(system: System) -> None:
    # given a month with an event that is voided, and a void that waits
    event = an_event("e-1", nanos=5 * NANO)
    await system.send([event, an_event("e-2"), a_void(event), a_void(an_event("e-3"))])
    await settle(system)
    # when it is dropped
    assert await clean(system, KEEP_LITTLE) == Dropped()
    hear_of_the_floor(system)
    assert (await clean(system, KEEP_LITTLE)).events == 4
    # then the proof holds, and what comes for that month cancels nothing
    await settle(system)
    await system.send([a_void(an_event("e-2"))])
    drained = await system.flush()
    assert (drained.quarantined, drained.voided) == (1, 0)
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    await settle(system)
