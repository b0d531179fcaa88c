"""GET /v1/usage of every aggregation: live where counters tell it, else asked of a flusher, as of the last drain."""

import asyncio
import time

import msgspec
import pytest
import redis

from flusher.answers import Answers
from flusher.catalog_store import apply_catalog
from flusher.database import connect
from sidecar.asked import ASKING_MAX, Asked
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event
from sidecar.contract.meters import WINDOW_US
from sidecar.contract.units import NANO
from sidecar.contract.usage import QUESTIONS_MAX, UsageFound, UsageQuestion, decode_answer, decode_question
from sidecar.errors import Unavailable
from sidecar.live import LiveUsage
from tests.protocol.system import System, an_event

CATALOG = """
[[meters]]
name = "calls"
event_type = "call"
[[meters]]
name = "mean"
event_type = "call"
aggregation = "avg"
[[meters]]
name = "peak"
event_type = "call"
aggregation = "max"
group_by = ["region"]
[[meters]]
name = "visitors"
event_type = "visit"
aggregation = "unique"
field = "properties.session"
[[customers]]
id = "acme"
user_ids = ["cus_1", "cus_2"]
"""

Row = tuple[str, str, dict[str, str], int, int]


def hours() -> tuple[int, int]:
    """Returns the last hours, in whole windows: what was just sent lies in them."""
    now_us = time.time_ns() // 1000
    return (now_us // WINDOW_US - 8) * WINDOW_US, (now_us // WINDOW_US + 1) * WINDOW_US


async def live(system: System, meter: str | None = None, event_type: str | None = None) -> list[Row]:
    ingest = system.sidecars["a"]
    reading = await LiveUsage(ingest).read("cus_1", meter, *hours(), event_type)
    return [(row.customer, row.meter, row.dimensions, row.nanos, row.events) for row in reading.rows]


async def start(system: System) -> None:
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, CATALOG)
    ingest = await system.sidecar()
    await system.until(lambda: ingest.revision.number == 1)


def call(number: int, region: str = "eu", user_id: str = "cus_1") -> Event:
    recent_us = time.time_ns() // 1000 - 1_000_000
    properties = f'{{"region":"{region}"}}'
    nanos = number * NANO
    return an_event(
        f"e-{number}", user_id=user_id, event_type="call", nanos=nanos, time_us=recent_us, properties=properties
    )


async def test_averages_are_live_and_maxima_as_of_the_last_drain(system: System) -> None:
    # given events that are drained, of two users of a customer, and some that are only in Redis
    await start(system)
    await system.send([call(4), call(9, "us"), call(50, user_id="cus_2")])
    await system.flush()
    with Answers(system.redis_url, system.database_url):
        await system.send([call(20)])
        # when a user's usage is asked for
        found = await live(system)
        # then what counters tell has all of it, and the rest what is drained
        assert found == [
            ("acme", "calls", {}, 33 * NANO, 3),
            ("acme", "mean", {}, 11 * NANO, 3),
            ("acme", "peak", {"region": "eu"}, 4 * NANO, 1),
            ("acme", "peak", {"region": "us"}, 9 * NANO, 1),
        ]
        await system.flush()
        assert ("acme", "peak", {"region": "eu"}, 20 * NANO, 2) in await live(system, "peak")
        assert {row[1] for row in await live(system, event_type="call")} == {"calls", "mean", "peak"}


async def test_without_a_flusher_it_says_so_and_counters_still_tell_theirs(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given no flusher that answers
    await start(system)
    await system.send([call(7)])
    monkeypatch.setattr("sidecar.asked.WAIT_S", 0.2)
    # then a maximum can't be told, in time
    with pytest.raises(Unavailable) as caught:
        await live(system, "peak")
    assert (caught.value.code, caught.value.retry_after_s > 0) == ("usage_unavailable", True)
    # and sums and averages can
    assert await live(system, "mean") == [("acme", "mean", {}, 7 * NANO, 1)]
    assert await live(system, "calls") == [("acme", "calls", {}, 7 * NANO, 1)]


async def test_questions_that_nobody_takes_are_bounded_and_go(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    await start(system)
    monkeypatch.setattr("sidecar.asked.WAIT_S", 0.3)
    asked = Asked(system.sidecars["a"].redis)
    for _ in range(QUESTIONS_MAX // ASKING_MAX + 1):
        asking = (asked.usage("cus_1", "peak", *hours()) for _ in range(ASKING_MAX + 1))
        *waited, refused = await asyncio.gather(*asking, return_exceptions=True)
        assert all("no flusher answered" in str(answer) for answer in waited)
        assert "wait for a flusher already" in str(refused)
    with redis.Redis.from_url(system.redis_url) as client:
        assert 0 < client.llen(keys.USAGE_QUESTIONS) <= QUESTIONS_MAX
        assert 0 < client.ttl(keys.USAGE_QUESTIONS) <= 5


async def test_what_is_no_question_is_passed_over(system: System) -> None:
    # given texts that are no questions before one that is
    await start(system)
    good = UsageQuestion("0123456789abcdef", "cus_1", *hours())
    bad = [
        b"no json",
        msgspec.json.encode({"id": "0123456789abcdef", "user_id": "cus_1"}),
        msgspec.json.encode(good).replace(b"0123456789abcdef", b"{t1}:ledger"),
        msgspec.json.encode(UsageQuestion("0123456789abcdee", "u" * 257, *hours())),
    ]
    with redis.Redis.from_url(system.redis_url) as client:
        client.rpush(keys.USAGE_QUESTIONS, *bad, msgspec.json.encode(good))
        with Answers(system.redis_url, system.database_url):
            await system.until(lambda: client.exists(keys.usage_answer(good.id)) == 1)
        text = client.get(keys.usage_answer(good.id))
        assert isinstance(text, bytes)
        assert decode_answer(text).rows == []
        assert 0 < client.ttl(keys.usage_answer(good.id)) <= 10
        assert client.keys("{t1}:usage*") == [keys.usage_answer(good.id).encode()]


async def test_a_flusher_whose_postgres_is_gone_says_so_and_answers_when_it_is_back(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a flusher that can't connect to Postgres
    await start(system)
    await system.send([call(3)])
    await system.flush()
    with Answers(system.redis_url, system.database_url) as answers:
        away = "postgresql://localhost:1/nothing"
        monkeypatch.setattr(answers, "_database_url", away)
        with pytest.raises(Unavailable, match="PostgreSQL"):
            await live(system, "peak")
        # when it can again
        monkeypatch.setattr(answers, "_database_url", system.database_url)
        assert await live(system, "peak") == [("acme", "peak", {"region": "eu"}, 3 * NANO, 1)]


async def test_ranges_that_nobody_can_tell_are_refused_before_anybody_is_asked(system: System) -> None:
    await start(system)
    usage = LiveUsage(system.sidecars["a"])
    for start_us, end_us in ((-WINDOW_US, 0), (WINDOW_US, 0), (0, 1), (0, 1 << 60)):
        with pytest.raises(TaximeterError) as caught:
            await usage.read("cus_1", "peak", start_us, end_us)
        assert caught.value.code == "query_invalid"


def test_a_question_and_its_answer_are_bounded_on_both_sides() -> None:
    question = UsageQuestion("0123456789abcdef", "cus_1", 0, WINDOW_US, "peak")
    assert decode_question(msgspec.json.encode(question)) == question
    for keys_ in ({"start_us": 1}, {"end_us": 0}, {"user_id": ""}, {"meter": "m" * 257}, {"more": 1}):
        changed = {**msgspec.to_builtins(question), **keys_}
        with pytest.raises(msgspec.DecodeError):
            decode_question(msgspec.json.encode(changed))
    found = UsageFound("acme", "peak", {"region": "eu"}, "1.5", 2)
    assert decode_answer(b'{"rows":[["acme","peak",{"region":"eu"},"1.5",2]]}').rows == [found]
