"""`taximeter rebuild`, and what a flusher does by itself: Redis is restored from Postgres, and nothing counts twice."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from flusher.cli.main import main
from flusher.clock import Clock
from flusher.database import connect
from flusher.days import read_days
from flusher.janitor import Janitor
from flusher.ledger import Ledger
from flusher.source import Source
from flusher.totals import day_totals
from flusher.worker import Worker
from sidecar.contract import keys
from sidecar.contract.identity import shard_of
from sidecar.contract.meters import Amount, Counter, canonical_dimensions
from sidecar.contract.scripts import DayTotals
from sidecar.contract.units import NANO, to_decimal
from tests.protocol.system import System, an_event
from tests.protocol.test_faults import TODAY_US, live_events, load
from tests.protocol.test_proof import prove

TOTAL_KEYS = "{t1:0}*:totals:*"


class Killed(BaseException):
    pass


async def rebuild(system: System, *arguments: str) -> int:
    target = ("--redis-url", system.redis_url, "--database-url", system.database_url)
    return await asyncio.to_thread(main, ["rebuild", *target, *arguments])


def generation(system: System, shard: int = 0) -> bytes | None:
    with redis.Redis.from_url(system.redis_url) as client:
        found = client.hget(keys.state(shard), "generation")
    assert found is None or isinstance(found, bytes)
    return found


async def test_a_wiped_redis_is_restored_with_what_the_sidecars_are_told(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given usage in Postgres, and a Redis that lost everything
    await system.send([an_event(f"e-{number}", time_us=TODAY_US) for number in range(5)])
    await system.flush()
    with redis.Redis.from_url(system.redis_url) as client:
        told = client.hgetall(keys.LEDGER), client.hgetall(keys.METERS)
        client.flushall()
        capsys.readouterr()
        # when it is rebuilt
        assert await rebuild(system, "--json") == 0
        # then it says what it wrote, the sidecars are told the same as before, and live usage is right
        said = json.loads(capsys.readouterr().out)
        assert (said["totals"], said["events"], [one["shard"] for one in said["shards"]]) == (1, 0, [0])
        assert (client.hgetall(keys.LEDGER), client.hgetall(keys.METERS)) == told
    await system.until(lambda: all(sender.streaming for sender in system.sidecars["a"].senders))
    assert await live_events(system) == 5
    assert (await prove(system)).ok


async def test_totals_and_meters_that_vanished_behind_everybodys_back_are_restored(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a Redis that lost single keys, which no flusher notices, and events that are not drained yet
    await system.send([an_event("e-1", time_us=TODAY_US)])
    await system.flush()
    await system.send([an_event("e-2", time_us=TODAY_US)])
    with redis.Redis.from_url(system.redis_url) as client:
        client.delete(keys.METERS, *client.keys(TOTAL_KEYS))
        # when it is rebuilt
        assert await rebuild(system) == 0
        # then they are there again, and what was not drained counts once
        assert client.exists(keys.METERS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("shard 0: 1 totals written (")
    assert lines[2] == "1 new events in PostgreSQL, from 1 epochs that were in Redis"
    assert await live_events(system) == 2
    await system.flush()
    assert system.usage() == {("cus_1", "api_call"): (Decimal(2), 2)}
    assert (await prove(system)).ok


async def test_rebuilding_under_load_counts_once(system: System) -> None:
    await system.sidecar(ack_deadline_s=0.2)
    # given load, and a flusher of its own beside the one that the load waits with
    flusher = Worker.connect(system.redis_url, system.database_url)
    acknowledged: set[str] = set()
    for round_ in range(4):
        running = asyncio.create_task(load(system, 12, round_ * 12))
        await asyncio.sleep(0.02)
        # when Redis is rebuilt meanwhile, again and again
        done, _ = await asyncio.gather(rebuild(system), asyncio.to_thread(flusher.run_once))
        assert done == 0
        acknowledged |= await running
    flusher.close()
    await system.flush()
    # then every acknowledged event counts once, live too
    assert sum(events for _, events in system.usage().values()) == len(acknowledged)
    assert await live_events(system) == len(acknowledged)
    assert (await prove(system)).ok


async def test_a_rebuild_that_is_killed_midway_is_done_again_and_what_it_left_goes(system: System) -> None:
    # given a flusher that dies when it has written totals of a generation that is not open yet
    await system.send([an_event("e-1", time_us=TODAY_US)])
    await system.flush()
    before = generation(system)
    doomed = Worker.connect(system.redis_url, system.database_url)
    stage = Source.stage_totals

    def dies(source: Source, shard: int, name: str, totals: list[DayTotals]) -> None:
        stage(source, shard, name, totals)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "stage_totals", dies)
        with pytest.raises(Killed):
            await asyncio.to_thread(doomed.rebuild, [0], lambda *_: None)
    doomed.close()
    with redis.Redis.from_url(system.redis_url) as client:
        left = set(client.keys(TOTAL_KEYS))
        staged = set(client.keys("{t1:0}*:state"))
        assert len(left) == 2
        # then nobody reads it, the old one answers, and the next cycle opens another
        assert generation(system) == before
        assert await live_events(system) == 1
        await asyncio.to_thread(system.worker.run_once)
        await system.send([an_event("e-2", time_us=TODAY_US)])
        await system.flush()
        assert await live_events(system) == 2
        assert (await prove(system)).ok
        # and the janitor leaves it alone as long as somebody may be writing it, and unlinks it then
        source = Source.connect(system.redis_url)
        janitor = Janitor(source, Clock(), grace_s=0.0, interval_s=0.0)
        for _ in range(3):
            janitor.clean()
        (one,) = left & set(client.keys(TOTAL_KEYS))
        client.delete(*staged)
        for _ in range(3):
            janitor.clean()
        assert one not in set(client.keys(TOTAL_KEYS))
        source.close()


async def test_a_flusher_whose_clock_is_a_day_slow_opens_a_generation(system: System) -> None:
    class Slow(Clock):
        def wall_s(self) -> float:
            return super().wall_s() - 86_400

    await system.send([an_event("e-1", time_us=TODAY_US)])
    await system.flush()
    slow = Worker(Source.connect(system.redis_url), Ledger(system.database_url), clock=Slow())
    assert (await asyncio.to_thread(slow.rebuild, [0], lambda *_: None)).totals == 1
    slow.close()
    assert await live_events(system) == 1


async def test_a_users_day_of_thousands_of_totals_is_written_in_parts(system: System) -> None:
    # given a user with more dimensions on a day than one call takes
    await system.send([an_event("e-1", time_us=TODAY_US)])
    await system.flush()
    with connect(system.database_url) as connection:
        connection.execute(
            "INSERT INTO usage SELECT 0, 'cus_1', 'api_call', jsonb_build_object('n', n::text), window_start, 1, 1 "
            "FROM usage, generate_series(1, 2500) AS n"
        )
    # when Redis is rebuilt
    assert await rebuild(system) == 0
    # then all of it is there
    now = generation(system)
    assert now is not None
    with redis.Redis.from_url(system.redis_url) as client:
        (one,) = [name for name in client.keys(TOTAL_KEYS) if now in name]
        assert client.hlen(one) == 2501


async def test_two_rebuilds_at_once_open_a_generation_that_is_right(system: System) -> None:
    await system.send([an_event(f"e-{number}", time_us=TODAY_US) for number in range(10)])
    await system.flush()
    before = generation(system)
    # when two, and a flusher, do it at once
    first, second, _ = await asyncio.gather(rebuild(system), rebuild(system), asyncio.to_thread(system.worker.run_once))
    # then both say that it is done
    assert (first, second) == (0, 0)
    assert generation(system) not in {None, before}
    await system.send([an_event("e-1", time_us=TODAY_US), an_event("e-10", time_us=TODAY_US)])
    await system.flush()
    assert await live_events(system) == 11
    assert (await prove(system)).ok


async def test_a_flusher_leaves_a_shard_that_is_held_and_goes_on_with_the_others(
    redis_url: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    # given two shards with usage, a wiped Redis, and somebody who holds the first shard
    system = System(redis_url, make_database(shards=2), tmp_path)
    users = {shard_of(user, 2): user for user in ("cus_1", "cus_2", "cus_3", "cus_4", "cus_5")}
    await system.send([an_event(user_id=user) for user in users.values()])
    await system.flush()
    with redis.Redis.from_url(redis_url) as client, connect(system.database_url) as holder:
        client.flushall()
        holder.execute("SELECT 1 FROM shards WHERE shard = 0 FOR UPDATE")
        # when a flusher cycles
        await asyncio.wait_for(asyncio.to_thread(system.worker.run_once), timeout=60)
        # then the other shard is open
        assert (generation(system, 0), generation(system, 1) is not None) == (None, True)
        holder.rollback()
        await asyncio.to_thread(system.worker.run_once)
        assert generation(system, 0) is not None
    await system.close()


async def test_a_rival_that_commits_between_two_readings_does_not_make_a_generation_unsound(system: System) -> None:
    # given a flusher that read Redis before another one sealed, and asks Postgres after that one committed
    await system.send([an_event("e-1")])
    await system.flush()
    before = generation(system)
    rival = Worker.connect(system.redis_url, system.database_url)
    await system.send([an_event("e-2")])
    state = Source.state
    raced: list[int] = []

    def late(source: Source, shard: int) -> object:
        found = state(source, shard)
        if not raced:
            raced.append(shard)
            rival.flush()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "state", late)
        found, sound = await asyncio.to_thread(system.worker._generations.observe, 0)
    rival.close()
    # then it looks again, and the generation is sound
    assert raced
    assert sound
    assert found.generation is not None
    assert found.generation.encode() == before


async def test_a_rebuild_needs_both_servers_and_a_shard_that_there_is(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await rebuild(system, "--shard", "0") == 0
    assert await rebuild(system, "--shard", "1") == 2
    assert "--shard: expected 0 to 0, got 1" in capsys.readouterr().err
    nobody = f"unix://{tmp_path}/nobody.sock"
    target = ["--redis-url", nobody, "--database-url", system.database_url]
    assert await asyncio.to_thread(main, ["rebuild", *target]) == 75
    assert "error: redis_unavailable" in capsys.readouterr().err


def test_usage_is_read_as_the_totals_that_a_drain_publishes(database_url: str) -> None:
    # given usage of every kind: dimensions that jsonb writes in its own way, and units with and without a fraction
    texts = ("{}", '{"region":"eu"}', '{"b":"x\\": \\"y","aa":"ä, \\"z\\"","a":"{}"}', '{"a":""}')
    dimensions = [canonical_dimensions(text) for text in texts]
    day = keys.day_of(TODAY_US // 1_000_000 // 900)
    wanted: dict[Counter, Amount] = {}
    for place, nanos in enumerate((0, 1, -NANO // 2, 10**23 + 1, 100 * NANO, -(10**24))):
        for user in ("cus_1", "küche"):
            for text in dimensions:
                counter = Counter(user, "api_call", (day - place % 3) * keys.WINDOWS_PER_DAY + place, text)
                wanted[counter] = Amount(nanos, place)
    with connect(database_url) as connection:
        for counter, amount in wanted.items():
            connection.execute(
                "INSERT INTO usage VALUES (0, %s, %s, %s, 'epoch'::timestamptz + %s * interval '15 minutes', %s, %s)",
                (counter.user_id, counter.meter, counter.dimensions, counter.window)
                + (to_decimal(amount.nanos), amount.events),
            )
        # when it is read for a new generation
        found = [one for some in read_days(connection, 0, datetime(2020, 1, 1, tzinfo=UTC)) for one in some]
        later = datetime.fromtimestamp(day * 86_400, UTC)
        rest = [one for some in read_days(connection, 0, later) for one in some]
    # then it is what would be published, to the byte
    assert sorted(found) == sorted(day_totals(wanted))
    assert {one.day for one in rest} == {day}
