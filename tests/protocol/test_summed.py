"""Summed rows on real servers: the same usage and proof in both settings, at a fraction of the rows."""

import asyncio
from contextlib import closing
from decimal import Decimal

import msgspec
import pytest
import redis

from flusher.catalog_store import apply_catalog
from flusher.database import connect
from flusher.law import Outcome
from flusher.ledger import Ledger
from flusher.proof import Proof, verify
from flusher.quarantine import retry
from flusher.summed import KeyedRows
from flusher.worker import Worker
from sidecar.contract.codec import Batch, decode_batch
from sidecar.contract.event import Event
from sidecar.contract.units import NANO
from tests.protocol.system import JULY_US, System, an_event, indexed

WINDOW_US = 900_000_000
FIRST, OTHER = b"1" * 16, b"2" * 16
CATALOG = """
[[meters]]
name = "calls"
event_type = "api_call"
aggregation = "count"
group_by = ["region"]
[[meters]]
name = "units"
event_type = "api_call"
"""


def keep(system: System, keyed_rows: KeyedRows) -> None:
    """Goes on with a flusher that has this setting."""
    system.worker.close()
    system.worker = Worker.connect(system.redis_url, system.database_url, keyed_rows=keyed_rows)


async def prove(system: System) -> Proof:
    proof = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert proof.ok, proof.as_json()
    return proof


def body(count: int = 12) -> list[Event]:
    """Returns the events of a request: of two users, two regions and two windows."""
    return [
        an_event(
            user_id=f"cus_{number % 2}",
            nanos=(number + 1) * NANO // 4,
            time_us=JULY_US + number // 8 * WINDOW_US,
            properties=f'{{"region":"{"eu" if number % 3 else "us"}","session":"s-{number}"}}',
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("keyed_rows", KeyedRows)
async def test_whatever_is_repeated_usage_and_proof_are_the_same_in_both_settings(
    system: System, keyed_rows: KeyedRows
) -> None:
    # given meters, a flusher with the setting, and two sidecars
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, CATALOG)
    keep(system, keyed_rows)
    await system.sidecar("a")
    await system.sidecar("b")
    # when a request is sent in parts, repeated to another sidecar, mixed with ids, and its key is used again
    events = indexed(body(), "k")
    await system.send(events[:9], key="k", digest=FIRST)
    await system.flush()
    await system.send(events[3:], to="b", key="k", digest=FIRST)
    await system.send([*indexed(body(3), "l"), an_event("e-1", user_id="cus_0")], key="l", digest=FIRST)
    await system.send(events, key="k", digest=FIRST)
    await system.send(indexed(body(2), "k"), to="b", key="k", digest=OTHER)
    drained = await system.flush()
    # then every event counts once
    assert system.usage() == {
        ("cus_0", "units"): (Decimal(11), 9),
        ("cus_0", "calls"): (Decimal(9), 9),
        ("cus_1", "units"): (Decimal(11), 7),
        ("cus_1", "calls"): (Decimal(7), 7),
    }
    assert (drained.events, drained.duplicates, drained.conflicts) == (7, 18, 2)
    proof = await prove(system)
    assert (proof.postgres.events, proof.conflicts.events) == (16, 2)
    # and the rows say how many events they stand for
    ((events_in, rows, largest),) = system.rows("SELECT sum(events)::int, count(*), max(events) FROM event_list")
    assert events_in == 16
    assert (rows < 16, largest > 1) == (keyed_rows is KeyedRows.SUMMED,) * 2


async def test_a_summed_row_has_the_window_and_what_meters_read(system: System) -> None:
    keep(system, KeyedRows.SUMMED)
    await system.send(indexed([an_event(nanos=NANO // 2), an_event(time_us=JULY_US + 1)], "k"), key="k", digest=FIRST)
    await system.flush()
    rows = system.rows(
        "SELECT extract(epoch FROM event_time)::bigint % 900, user_id, source, id, event_type, units, properties,"
        " events FROM event_list"
    )
    assert rows == [(0, "cus_1", "", None, "api_call", Decimal("1.5"), None, 2)]
    assert system.rows("SELECT covered::text, summed::text FROM claims") == [("{[0,2)}", "{[0,2)}")]


async def test_what_is_larger_than_one_event_may_be_is_a_sum_all_the_same(system: System) -> None:
    keep(system, KeyedRows.SUMMED)
    large = NANO * 10**15 - 1
    await system.send(indexed([an_event(nanos=large), an_event(nanos=large)], "k"), key="k", digest=FIRST)
    await system.flush()
    assert system.rows("SELECT units, events FROM events") == [(Decimal("1999999999999999.999999998"), 2)]
    assert system.rows("SELECT count(*) FROM quarantine") == [(0,)]


async def test_the_setting_may_change_at_any_time(system: System) -> None:
    # given a request that is counted by a flusher with one setting
    events = indexed(body(), "k")
    await system.send(events[:6], key="k", digest=FIRST)
    await system.flush()
    # when flushers with the other one, and again this one, meet what was repeated
    for keyed_rows in (KeyedRows.SUMMED, KeyedRows.SINGLE):
        keep(system, keyed_rows)
        await system.send(events, key="k", digest=FIRST)
        await system.flush()
    # then each event counts once
    proof = await prove(system)
    assert (proof.postgres.events, proof.duplicates.events) == (12, 18)
    assert sum(events for _, events in system.usage().values()) == 12


async def test_users_whose_periods_begin_inside_a_window_keep_single_events(system: System) -> None:
    # given a customer with a subscription from 10:07:30 on, and one from 10:15 on
    with connect(system.database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO plans VALUES ('pro')")
        connection.execute("INSERT INTO customers VALUES ('big', 'big', 'UTC')")
        connection.execute("INSERT INTO customer_users VALUES ('cus_1', 'big', 0)")
        connection.execute(
            "INSERT INTO subscriptions VALUES ('a', 'big', 'pro', '2025-07-01T10:07:30Z'),"
            " ('b', 'cus_0', 'pro', '2025-07-01T10:15:00Z')"
        )
    keep(system, KeyedRows.SUMMED)
    await system.send(indexed(body(8), "k"), key="k", digest=FIRST)
    await system.flush()
    rows = system.rows("SELECT user_id, count(*), sum(events)::int FROM events GROUP BY 1 ORDER BY 1")
    assert rows == [("cus_0", 1, 4), ("cus_1", 4, 4)]


async def test_what_postgres_refuses_is_quarantined_and_the_rest_is_summed_up(system: System) -> None:
    keep(system, KeyedRows.SUMMED)
    events = [an_event(), an_event(user_id="cus_\0"), an_event(), an_event()]
    await system.send(indexed(events, "k"), key="k", digest=FIRST)
    drained = await system.flush()
    assert (drained.events, drained.quarantined) == (3, 1)
    assert system.rows("SELECT events FROM events") == [(3,)]
    await prove(system)


async def test_what_a_summed_row_counts_is_not_brought_back_from_quarantine(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a record that was quarantined whole, by a program that can't read it
    def unreadable(record: bytes) -> Batch:
        if decode_batch(record).count:
            raise msgspec.DecodeError("a newer form")
        return decode_batch(record)

    events = indexed(body(4), "k")
    await system.sidecar("b")
    with monkeypatch.context() as patch:
        patch.setattr("flusher.drain.decode_batch", unreadable)
        await system.send(events[:3], key="k", digest=FIRST)
        await system.flush()
    # and the same request, of which Redis knows nothing any more, counted as a sum
    keep(system, KeyedRows.SUMMED)
    with closing(redis.Redis.from_url(system.redis_url)) as client:
        client.flushall()
    await system.send(events, to="b", key="k", digest=FIRST)
    await system.flush()
    # when the record is retried
    ((number,),) = system.rows("SELECT quarantined FROM quarantine")
    with closing(Ledger(system.database_url)) as ledger:
        outcomes = retry(ledger, number)
    # then all of it is a repeat
    assert (outcomes[Outcome.INSERTED], outcomes[Outcome.DUPLICATE]) == (0, 3)
    assert sum(events for _, events in system.usage().values()) == 4
    await system.flush()
    await prove(system)


async def test_usage_is_counted_again_from_summed_rows(system: System) -> None:
    keep(system, KeyedRows.SUMMED)
    await system.send(indexed(body(), "k"), key="k", digest=FIRST)
    await system.flush()
    assert (await prove(system)).postgres.events == 12
    # when a sum is tampered with, then the proof fails
    with connect(system.database_url, autocommit=True) as connection:
        connection.execute("UPDATE events SET units = units + 1 WHERE events > 1 AND user_id = 'cus_0'")
    broken = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert not broken.ok
