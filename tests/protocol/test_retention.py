"""Floors move and what is below them is dropped (rule 15): nothing is lost by it and nothing counts again."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import LiteralString

import pytest

from flusher.clock import Clock
from flusher.database import connect
from flusher.drain import Drained
from flusher.ledger import Ledger
from flusher.proof import Proof, verify
from flusher.quarantine import retry
from flusher.retention import BUDGET_S, BUSY_INTERVAL_S, INTERVAL_S, Dropped, Keep, Retention
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event
from sidecar.fields import Refusal, event_time_us
from sidecar.ingest import Ingest
from tests.protocol.system import JULY_US, System, an_event, indexed

DAY_US = 86_400_000_000
KEEP = Keep(claims_days=35, events_days=None)
KEEP_LITTLE = Keep(claims_days=35, events_days=100)


class Standing(Clock):
    """A clock that a test moves: a look at it costs `cost_s`, so that a budget is used up when it should be."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self._now_s = 0.0
        self._cost_s = cost_s

    def monotonic_s(self) -> float:
        self._now_s += self._cost_s
        return self._now_s

    def move(self, seconds: float) -> None:
        self._now_s += seconds


@contextmanager
def a_retention(system: System, keep: Keep = KEEP, clock: Clock | None = None) -> Iterator[Retention]:
    with closing(Ledger(system.database_url)) as ledger:
        yield Retention(ledger, 1, keep, clock or Standing())


async def clean(system: System, keep: Keep = KEEP) -> Dropped:
    """Looks once, as a flusher that was just started, and drops all that it may."""
    with a_retention(system, keep) as retention:
        return await asyncio.to_thread(retention.clean)


def execute(system: System, text: LiteralString) -> None:
    with connect(system.database_url) as connection:
        connection.execute(text)


def us_ago(days: int) -> int:
    return time.time_ns() // 1000 - days * DAY_US


async def at(system: System, days_ago: int, to: str) -> Ingest:
    """Returns a sidecar that lives so many days ago."""
    ingest = await system.sidecar(to)
    ingest.wall_us = lambda: us_ago(days_ago)
    return ingest


async def take(system: System, events: list[Event], days_ago: int, to: str) -> Drained:
    """Lets a sidecar accept events as of some days ago, and brings them into Postgres."""
    await at(system, days_ago, to)
    await system.send(events, to=to)
    return await system.flush()


async def proof_of(system: System) -> Proof:
    proof = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert proof.ok, proof.as_json()
    return proof


def give_up(system: System) -> None:
    execute(system, "UPDATE producers SET retired_at = now()")


def hear_of_the_floor(system: System) -> None:
    """Lets two days pass since the floor was told, in which every sidecar was heard of."""
    execute(system, "UPDATE ledger SET event_floor_next_at = event_floor_next_at - interval '2 days'")


def counted(drained: Drained) -> tuple[int, int, int]:
    return drained.events, drained.duplicates, drained.quarantined


# -- claims


async def test_a_claim_is_dropped_and_a_repeat_in_a_late_batch_does_not_count_again(system: System) -> None:
    # given an event without a timestamp of 50 days ago, and a younger one, and nobody who may still bring a repeat
    await take(system, [an_event("old", time_us=None)], 50, to="a")
    await take(system, [an_event("young", time_us=None)], 30, to="a")
    give_up(system)
    # when claims are cleaned
    assert await clean(system) == Dropped(claims=1)
    assert system.rows("SELECT count(*) FROM claims") == [(1,)]
    # then a repeat in a batch that was accepted long ago is quarantined, a younger one is known
    assert counted(await take(system, [an_event("old", time_us=None)], 20, to="late")) == (0, 0, 1)
    assert counted(await take(system, [an_event("young", time_us=None)], 1, to="late")) == (0, 1, 0)
    assert system.usage()["cus_1", "api_call"][1] == 2
    # and a retry does not count it either
    with closing(Ledger(system.database_url)) as ledger, pytest.raises(TaximeterError, match="still_refused"):
        retry(ledger, int(system.rows("SELECT quarantined FROM quarantine")[0][0]))
    await asyncio.to_thread(system.worker.run_once)


async def test_claims_wait_for_the_journal_of_a_sidecar_that_is_away(system: System) -> None:
    # given an event of 50 days ago, which another sidecar was sent too 40 days ago, and that one is away since
    await take(system, [an_event("e", time_us=None)], 50, to="a")
    await system.sidecar("away")
    execute(system, "UPDATE positions SET watermark = now() - interval '40 days'")
    # when claims are cleaned
    assert await clean(system) == Dropped()
    # then the repeat is known when it comes, although its claim is older than claims are kept
    assert counted(await take(system, [an_event("e", time_us=None)], 40, to="away")) == (0, 1, 0)
    # and goes when nobody is waited for
    give_up(system)
    assert await clean(system) == Dropped(claims=1)


async def test_a_claim_that_comes_to_cover_more_is_kept_for_as_long_as_a_new_one(system: System) -> None:
    events = indexed([an_event(time_us=JULY_US), an_event(time_us=JULY_US + 1)], "k")
    await at(system, 50, "a")
    await system.send(events[:1], key="k", digest=b"1" * 16)
    await system.flush()
    await at(system, 30, "a")
    await system.send(events, key="k", digest=b"1" * 16)
    await system.flush()
    give_up(system)
    assert await clean(system) == Dropped()


async def test_claims_are_kept_for_as_long_as_the_setting_says(system: System) -> None:
    await take(system, [an_event("e", time_us=None)], 50, to="a")
    give_up(system)
    assert await clean(system, Keep(60, None)) == Dropped()
    assert await clean(system, Keep(40, None)) == Dropped(claims=1)


# -- events


async def _july_and_today(system: System) -> None:
    await system.send([an_event("july"), an_event("july-2", nanos=5), an_event("today", time_us=us_ago(0))])
    await system.flush()


async def test_sidecars_refuse_what_goes_before_it_goes(system: System) -> None:
    await _july_and_today(system)
    # when there is a floor
    await clean(system, KEEP_LITTLE)
    ingest = await system.sidecar()
    await system.until(lambda: ingest.event_floor_us > 0)
    # then an event below it is refused at the edge
    assert us_ago(135) < ingest.event_floor_us < us_ago(100)
    with pytest.raises(Refusal, match="too_old"):
        event_time_us("2025-07-21T09:34:21Z", us_ago(0), ingest.event_floor_us)
    # but what a journal has from before still counts, as long as a sidecar was not heard of since
    assert counted(await take(system, [an_event("journaled")], 0, to="away")) == (1, 0, 0)
    hear_of_the_floor(system)
    execute(system, "UPDATE positions SET watermark = now() - interval '3 days'")
    assert await clean(system, KEEP_LITTLE) == Dropped()
    assert counted(await take(system, [an_event("journaled-2")], 0, to="away")) == (1, 0, 0)
    execute(system, "UPDATE positions SET watermark = now()")
    assert await clean(system, KEEP_LITTLE) == Dropped(events=4)


async def test_a_dropped_month_leaves_proof_and_usage_as_they_were(system: System) -> None:
    await _july_and_today(system)
    before, usage = await proof_of(system), system.usage()
    await clean(system, KEEP_LITTLE)
    hear_of_the_floor(system)
    # when July goes
    assert await clean(system, KEEP_LITTLE) == Dropped(events=2)
    # then its partition is gone, and everything adds up as before
    assert system.rows("SELECT count(*) FROM events") == [(1,)]
    assert system.rows("SELECT to_regclass('events_202507')") == [(None,)]
    after = await proof_of(system)
    assert (after.accepted, after.postgres, system.usage()) == (before.accepted, before.postgres, usage)
    (told,) = [check.detail for check in after.checks if check.name == "dropped"]
    assert told == "2 events of 1 months are dropped, their usage stays"
    # and what an old journal brings of it is quarantined, also again
    assert counted(await take(system, [an_event("july")], 0, to="a")) == (0, 0, 1)
    with closing(Ledger(system.database_url)) as ledger, pytest.raises(TaximeterError, match="still_refused"):
        retry(ledger, int(system.rows("SELECT quarantined FROM quarantine")[0][0]))
    assert (await proof_of(system)).quarantined.events == 1
    # and a change of what was dropped would be noticed
    execute(system, "UPDATE usage SET events = events + 1 WHERE window_start < '2025-08-01'")
    broken = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert "dropped" in {check.name for check in broken.checks if check.ok is False}


async def test_an_event_whose_month_was_dropped_is_not_brought_back_from_quarantine(system: System) -> None:
    # given an id of long ago, its repeat in quarantine, and claims that are kept for longer than events
    await take(system, [an_event("e", time_us=None)], 0, to="a")
    execute(system, "UPDATE claims SET accepted_at = now() - interval '200 days'")
    execute(system, "UPDATE ledger SET claim_floor = now() + interval '1 day'")
    assert counted(await take(system, [an_event("e", time_us=None)], 0, to="b")) == (0, 0, 1)
    execute(system, "UPDATE ledger SET claim_floor = '-infinity', event_floor = now() - interval '100 days'")
    execute(system, "DELETE FROM events")
    # when it is retried
    with closing(Ledger(system.database_url)) as ledger:
        outcomes = retry(ledger, int(system.rows("SELECT quarantined FROM quarantine")[0][0]))
    # then it is a repeat
    assert {outcome.value: count for outcome, count in outcomes.items() if count} == {"duplicate": 1}


@pytest.mark.parametrize("told", [False, True], ids=["known", "came_later"])
@pytest.mark.parametrize(
    "needed",
    [
        "INSERT INTO subscriptions (id, customer, plan, start_at) VALUES ('s', 'c', 'p', '2025-07-01')",
        "INSERT INTO discrepancies VALUES (DEFAULT, 0, 'e', 'u', 'm', '{}', '2025-07-02', 2, 2, 1, 1)",
        "INSERT INTO holes (producer, shard, first_sequence, last_sequence, events) VALUES ('p', 0, 5, 6, 7)",
    ],
    ids=["subscription", "discrepancy", "hole"],
)
async def test_what_is_still_needed_stays(system: System, needed: LiteralString, told: bool) -> None:
    await _july_and_today(system)
    execute(system, "INSERT INTO plans (name) VALUES ('p')")
    if told:
        await clean(system, KEEP_LITTLE)
    execute(system, needed)
    await clean(system, KEEP_LITTLE)
    hear_of_the_floor(system)
    assert await clean(system, KEEP_LITTLE) == Dropped()
    assert system.rows("SELECT count(*) FROM events") == [(3,)]
    assert system.rows("SELECT event_floor_next < '2025-07-01' FROM ledger") == [(not told,)]


async def test_a_month_whose_usage_is_not_what_its_events_say_stays(system: System) -> None:
    await _july_and_today(system)
    execute(system, "UPDATE usage SET units = units + 1 WHERE window_start < '2025-08-01'")
    await clean(system, KEEP_LITTLE)
    hear_of_the_floor(system)
    assert await clean(system, KEEP_LITTLE) == Dropped()
    assert system.rows("SELECT count(*) FROM events") == [(3,)]


async def test_a_discrepancy_of_a_dropped_month_is_closed(system: System) -> None:
    await _july_and_today(system)
    await clean(system, KEEP_LITTLE)
    hear_of_the_floor(system)
    await clean(system, KEEP_LITTLE)
    execute(
        system,
        "INSERT INTO discrepancies"
        " VALUES (DEFAULT, 0, 'e', 'cus_1', 'api_call', '{}', '2025-07-21 09:30Z', 2, 2, 1, 1)",
    )
    await asyncio.to_thread(system.worker.run_once)
    await proof_of(system)


# -- several at once, killed anywhere, and who is in the way


async def test_whoever_judges_by_the_older_floor_is_waited_for(system: System) -> None:
    await take(system, [an_event("e", time_us=None)], 50, to="a")
    give_up(system)
    clock = Standing()
    with a_retention(system, KEEP, clock) as retention, connect(system.database_url) as drain:
        # given a drain under way
        drain.execute("SELECT FROM shards WHERE shard = 0 FOR UPDATE")
        # when a floor moves, nothing is dropped until it ends
        assert await asyncio.to_thread(retention.clean) == Dropped()
        clock.move(BUSY_INTERVAL_S)
        assert await asyncio.to_thread(retention.clean) == Dropped()
        drain.rollback()
        clock.move(BUSY_INTERVAL_S)
        assert await asyncio.to_thread(retention.clean) == Dropped(claims=1)


async def test_a_month_waits_for_whoever_reads_it(system: System) -> None:
    await _july_and_today(system)
    await clean(system, KEEP_LITTLE)
    hear_of_the_floor(system)
    clock = Standing()
    with a_retention(system, KEEP_LITTLE, clock) as retention, connect(system.database_url) as reader:
        reader.execute("SELECT count(*) FROM events")
        assert await asyncio.to_thread(retention.clean) == Dropped()
        reader.rollback()
        clock.move(INTERVAL_S)
        assert await asyncio.to_thread(retention.clean) == Dropped(events=2)


async def test_a_drop_that_was_killed_anywhere_is_gone_on_with(system: System) -> None:
    await system.send([an_event(f"e-{day}", time_us=JULY_US - day * DAY_US) for day in range(20)])
    await system.flush()
    await take(system, [an_event("e", time_us=None)], 50, to="old")
    await clean(system, Keep(1000, 100))
    give_up(system)
    usage = system.usage()
    hear_of_the_floor(system)
    # when every flusher dies after a few steps, the first of them when the floors have just moved
    dropped = Dropped()
    with closing(Ledger(system.database_url)) as ledger:
        Retention(ledger, 1, KEEP_LITTLE, Standing())._move_floors()
        for _ in range(20):
            retention = Retention(ledger, 1, KEEP_LITTLE, Standing(cost_s=BUDGET_S / 4))
            found = await asyncio.to_thread(retention.clean)
            dropped = Dropped(dropped.claims + found.claims, dropped.events + found.events)
    # then each thing was dropped once
    assert dropped == Dropped(claims=1, events=20)
    assert system.usage() == usage
    execute(system, "UPDATE producers SET retired_at = NULL")
    await system.flush()
    await proof_of(system)


async def test_two_flushers_at_once_drop_everything_once(system: System) -> None:
    await _july_and_today(system)
    execute(
        system,
        "INSERT INTO claims SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), '\\x0000000000000000', NULL, '2025-01-01'"
        " FROM generate_series(1, 20000) AS n",
    )
    give_up(system)
    await clean(system, Keep(1000, 100))
    hear_of_the_floor(system)
    found: list[Dropped] = []

    def work() -> None:
        clock = Standing()
        with a_retention(system, KEEP_LITTLE, clock) as retention:
            for _ in range(100):
                found.append(retention.clean())
                clock.move(INTERVAL_S)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
    assert (sum(one.claims for one in found), sum(one.events for one in found)) == (20000, 2)
    execute(system, "UPDATE producers SET retired_at = NULL")
    await system.flush()
    await proof_of(system)
