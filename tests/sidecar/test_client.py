"""The client library against a sidecar whose core does what the test tells it, over each of its three ways there."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.client import Meter, QueueFullError, Rejected
from sidecar.contract.event import Event
from sidecar.errors import Unavailable
from sidecar.fields import time_us_of
from sidecar.ingest import Receipt
from tests.sidecar.conftest import Serve, Served
from tests.sidecar.support import until

WAYS: dict[str, Callable[[Served], str]] = {
    "unix": lambda served: f"unix://{served.socket_path}",
    "http": lambda served: f"http://127.0.0.1:{served.port}",
    "stream": lambda served: f"stream://{served.stream_path}",
}
EARLIER = "2025-07-21T09:00:00Z"  # the core's clock stands; what the client sends by itself is ahead of it


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Served], str]:
    return WAYS[request.param]


@pytest.fixture
async def meters() -> AsyncIterator[Callable[..., Meter]]:
    """Returns `meters(address, ...)`; what it makes is closed in the end, without waiting."""
    made: list[Meter] = []

    def make(address: str, **options: Any) -> Meter:
        made.append(Meter(address, **{"linger_s": 0.002, **options}))
        return made[-1]

    yield make
    for meter in made:
        await asyncio.to_thread(meter.close, 0.0)


Meters = Callable[..., Meter]


def events_of(served: Served) -> list[Event]:
    return [event for submitted in served.core.submitted for event in submitted.events]


async def flushed(meter: Meter) -> None:
    assert await asyncio.to_thread(meter.flush, 20)


async def test_what_is_tracked_arrives_as_it_is(served: Served, meters: Meters, way: Callable[[Served], str]) -> None:
    meter = meters(way(served))
    meter.track("cus_1", "api_call", timestamp=EARLIER)
    meter.track("cus_2", "tokens", Decimal("1E+2"), id="e-1", source="s", timestamp=EARLIER, region="eu", big=True)
    meter.track("cus_2", "tokens", "0.5", timestamp=EARLIER, properties={"a": 1, "b": Decimal("0.25")}, a=2)
    await flushed(meter)

    first, second, third = events_of(served)
    assert (first.user_id, first.event_type, first.units, first.properties) == ("cus_1", "api_call", 1, "")
    assert (second.units, second.id, second.source) == (100, "e-1", "s")
    assert (second.properties, third.properties) == ('{"big":true,"region":"eu"}', '{"a":2,"b":0.25}')
    assert {event.time_us for event in (first, second, third)} == {time_us_of(EARLIER)}
    assert all(submitted.key is not None for submitted in served.core.submitted)
    assert meter.stats._replace(problem="") == (3, 3, 0, 0, 0, 0, 0, 0, "")


async def test_the_time_is_that_of_the_call(served: Served, meters: Meters) -> None:
    rejected: list[Rejected] = []
    meter = meters(WAYS["stream"](served), on_rejected=rejected.append)
    before = datetime.now(UTC)
    meter.track("cus_1", "api_call")
    after = datetime.now(UTC)
    await flushed(meter)
    (one,) = rejected  # it is ahead of the core's clock
    assert one.code == "timestamp_out_of_range"
    assert before <= datetime.fromisoformat(one.event["timestamp"]) <= after


async def test_datetimes_are_sent_as_the_moment_that_they_are(served: Served, meters: Meters) -> None:
    meter = meters(WAYS["stream"](served))
    moment = datetime(2025, 7, 21, 2, 34, 21, 5, tzinfo=timezone(timedelta(hours=-7, seconds=30)))
    meter.track("cus_1", "api_call", timestamp=moment)
    await flushed(meter)
    (event,) = events_of(served)
    assert event.time_us == round(moment.timestamp()) * 1_000_000 + 5


async def test_rejected_and_conflicting_events_are_told_of_and_never_sent_again(
    served: Served, meters: Meters, way: Callable[[Served], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rejected: list[Rejected] = []

    def tell(one: Rejected) -> None:
        rejected.append(one)
        raise ValueError("a fault of the app")

    submit = served.core.submit

    async def judged(*arguments: Any) -> Receipt:
        await submit(*arguments)
        events = served.core.submitted[-1].events
        duplicates, conflicts = (tuple(one.index for one in events if one.id == what) for what in ("a", "b"))
        return Receipt(applied=True, duplicates=duplicates, conflicts=conflicts)

    # given four events, in however many batches: the first is refused, then a duplicate, a conflict and a good one
    monkeypatch.setattr(served.core, "submit", judged)
    meter = meters(way(served), on_rejected=tell, linger_s=0.05)
    meter.track("", "api_call", timestamp=EARLIER)
    meter.track("cus_1", "api_call", timestamp=EARLIER, id="a")
    meter.track("cus_1", "api_call", timestamp=EARLIER, id="b")
    meter.track("cus_1", "api_call", timestamp=EARLIER, id="c")
    await flushed(meter)

    assert sorted((each.code, each.event["user_id"], each.event.get("id")) for each in rejected) == [
        ("conflict", "cus_1", "b"),
        ("user_id_invalid", "", None),
    ]
    assert meter.stats[:6] == (4, 1, 1, 1, 1, 0)
    assert sorted(event.id or "" for event in events_of(served)) == ["a", "b", "c"]

    # nothing of a batch is left: not one is sent again either
    meter.track("", "api_call")
    await flushed(meter)
    assert meter.stats[:6] == (5, 1, 1, 1, 2, 0)
    assert len(events_of(served)) == 3


async def test_a_batch_that_is_not_taken_is_sent_again_when_the_sidecar_said_so(
    served: Served, meters: Meters, way: Callable[[Served], str]
) -> None:
    code = "journal_full" if way is WAYS["unix"] else "overloaded"  # 503 and 429
    meter = meters(way(served))
    served.core.error = Unavailable(code, "try again", retry_after_s=1)
    began_at = time.monotonic()
    meter.track("cus_1", "api_call", timestamp=EARLIER)
    await until(lambda: code in meter.stats.problem)
    served.core.error = None
    await flushed(meter)

    first, *again = served.core.submitted  # once more, or more often where the machine stood still meanwhile
    assert time.monotonic() - began_at > 0.8 * len(again) > 0
    for one in again:
        assert (first.key, first.digest, first.events) == (one.key, one.digest, one.events)
    assert meter.stats == (1, 1, 0, 0, 0, len(again), 0, 0, "")


async def test_a_batch_that_is_not_answered_is_sent_again_with_the_same_key_and_bytes(
    served: Served, meters: Meters, way: Callable[[Served], str]
) -> None:
    meter = meters(way(served), answer_timeout_s=0.2)
    served.core.gate.clear()
    meter.track("cus_1", "api_call", timestamp=EARLIER)
    await until(lambda: len(served.core.submitted) >= 2)
    assert "no answer" in meter.stats.problem
    assert not await asyncio.to_thread(meter.flush, 0.01)
    served.core.gate.set()
    await flushed(meter)

    assert len({(each.key, each.digest) for each in served.core.submitted}) == 1
    assert (meter.stats.sent, meter.stats.accepted) == (1, 1)
    assert meter.stats.retried >= len(served.core.submitted) - 1  # what is given up may never be read


async def test_a_sidecar_that_comes_late_gets_everything(
    served: Served, meters: Meters, way: Callable[[Served], str], tmp_path: Path
) -> None:
    address = way(served)
    if address.startswith("http:"):
        address = "http://127.0.0.1:1"
    else:
        paths = [served.socket_path, served.stream_path]
        for path in paths:
            path.rename(path.with_suffix(".away"))
    meter = meters(address)
    meter.track("cus_1", "api_call", timestamp=EARLIER)
    await until(lambda: "can't connect" in meter.stats.problem)
    assert meter.stats[:1] == (0,)
    assert meter.stats.waiting == 1
    if not address.startswith("http:"):
        for path in paths:
            path.with_suffix(".away").rename(path)
        await flushed(meter)
        assert meter.stats.accepted == 1


async def test_answers_that_are_no_sidecars_leave_the_events_waiting(meters: Meters, tmp_path: Path) -> None:
    for nonsense in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\x00\x00\x00\x01\xc1", b"\xff" * 64, b""):
        path = tmp_path / f"{len(nonsense)}.sock"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = nonsense) -> None:
            await reader.read(10)
            writer.write(said)
            writer.close()

        server = await asyncio.start_unix_server(answer, str(path))
        for scheme in ("unix", "stream"):
            meter = meters(f"{scheme}://{path}")
            meter.track("cus_1", "api_call")
            await until(partial(_has_problem, meter))
            assert (meter.stats.waiting, meter.stats.rejected) == (1, 0)
        server.close()


async def test_a_sidecar_that_takes_less_at_once_gets_halves(
    serve: Serve, meters: Meters, way: Callable[[Served], str]
) -> None:
    served = await serve(request_events_max=3, body_bytes_max=2000)
    meter = meters(way(served), linger_s=0.05)
    for number in range(40):
        meter.track("cus_1", "api_call", number, timestamp=EARLIER, a="x" * 200)
    await flushed(meter)
    assert sorted(int(event.units) for event in events_of(served)) == list(range(40))
    assert meter.stats[:6] == (40, 40, 0, 0, 0, 0)


def _has_problem(meter: Meter) -> bool:
    return bool(meter.stats.problem)


async def test_a_token_opens_tcp(serve: Serve, meters: Meters) -> None:
    served = await serve(tokens=(hashlib.sha256(b"t" * 40).digest(),))
    stranger = meters(WAYS["http"](served))
    stranger.track("cus_1", "api_call", timestamp=EARLIER)
    await until(lambda: "401 unauthorized" in stranger.stats.problem)
    assert stranger.stats.waiting == 1  # a token may be changed while it runs
    meter = meters(WAYS["http"](served), token="t" * 40)
    meter.track("cus_1", "api_call", timestamp=EARLIER)
    await flushed(meter)
    assert meter.stats.accepted == 1


async def test_a_full_queue_blocks_if_it_is_told_to_and_goes_on_when_there_is_room(
    served: Served, meters: Meters
) -> None:
    meter = meters(WAYS["stream"](served), queue_events_max=2, when_full="block")
    served.core.gate.clear()

    def track() -> None:
        for number in range(50):
            meter.track("cus_1", "a", number, timestamp=EARLIER)

    tracking = asyncio.create_task(asyncio.to_thread(track))
    await until(lambda: meter.stats.waiting == 2)
    await asyncio.sleep(0.05)
    assert not tracking.done()
    served.core.gate.set()
    await asyncio.wait_for(tracking, timeout=20)
    await flushed(meter)
    assert [int(event.units) for event in events_of(served)] == list(range(50))

    # and not for ever
    served.core.gate.clear()
    short = meters(WAYS["stream"](served), queue_events_max=1, when_full="block", block_max_s=0.05)
    short.track("cus_1", "a", timestamp=EARLIER)
    with pytest.raises(QueueFullError):
        await asyncio.to_thread(short.track, "cus_1", "a")
    served.core.gate.set()


async def test_threads_and_coroutines_share_a_meter(
    served: Served, meters: Meters, way: Callable[[Served], str]
) -> None:
    meter = meters(way(served), linger_s=0.0)

    def track(first: int) -> None:
        for number in range(first, first + 500):
            meter.track("cus_1", "api_call", number, timestamp=EARLIER)

    threads = [threading.Thread(target=track, args=(1000 * one,)) for one in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4000, 4500):
        meter.track("cus_1", "api_call", number, timestamp=EARLIER)
        if number % 50 == 0:
            await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await flushed(meter)

    expected = [first + number for first in (0, 1000, 2000, 3000, 4000) for number in range(500)]
    assert sorted(int(event.units) for event in events_of(served)) == expected
    assert len({submitted.key for submitted in served.core.submitted}) == len(served.core.submitted)


async def test_a_flush_waits_for_what_was_tracked_before_it_and_for_nothing_else(
    served: Served, meters: Meters
) -> None:
    meter = meters(WAYS["unix"](served))
    assert await asyncio.to_thread(meter.flush, 0.0)  # nothing to wait for
    stopping = threading.Event()

    def track() -> None:
        while not stopping.is_set():
            meter.track("cus_1", "api_call", timestamp=EARLIER)
            time.sleep(0.0005)

    thread = threading.Thread(target=track)
    thread.start()
    await until(lambda: meter.stats.sent > 0)
    await flushed(meter)
    stopping.set()
    await asyncio.to_thread(thread.join)


async def test_a_closed_meter_has_sent_everything_and_takes_nothing_more(
    served: Served, meters: Meters, way: Callable[[Served], str]
) -> None:
    meter = meters(way(served), linger_s=0.5)
    with meter:
        for _ in range(10):
            meter.track("cus_1", "api_call", timestamp=EARLIER)
        closed = await asyncio.to_thread(meter.close)
    assert closed
    assert len(events_of(served)) == 10
    with pytest.raises(RuntimeError, match="closed"):
        meter.track("cus_1", "api_call")
    await until(lambda: served.serving.connections == 0)
