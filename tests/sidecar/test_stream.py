"""The stream socket over a core that does what the test tells it: every message, every limit, every way to end."""

import asyncio
import os
import re
import struct
from pathlib import Path

import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.identity import body_digest
from sidecar.errors import Unavailable
from sidecar.ingest import Receipt
from tests.contract.independent import pack
from tests.sidecar.conftest import Serve, Served
from tests.sidecar.streaming import EVENT, HELLO, Stream, framed
from tests.sidecar.support import until

PAGE = Path(__file__).parents[2] / "sidecar" / "STREAM.md"


def exchanges() -> list[list[tuple[str, bytes]]]:
    """Returns the hex of each example on the page: who says it, and the bytes."""
    blocks = re.findall(r"```\n([CS] .*?)```", PAGE.read_text(), re.DOTALL)
    return [[(said[0], bytes.fromhex(said[1:])) for said in re.split(r"\n(?=[CS])", block.strip())] for block in blocks]


async def test_the_exchange_on_the_page_is_what_is_said(serve: Serve) -> None:
    served = await serve(body_bytes_max=8 << 20, waiting_bytes_max=64 << 20, request_events_max=10_000)
    async with Stream(served.stream_path) as stream:
        for who, said in exchanges()[0]:
            if who == "C":
                stream.writer.write(said)
            else:
                assert await asyncio.wait_for(stream.reader.readexactly(len(said)), timeout=10) == said

        # the refusal and the goodbye that the page shows next
        refusal, goodbye = (said for _, said in exchanges()[1])
        served.core.error = Unavailable("journal_full", "the journal is full")
        stream.batch(2, EVENT)
        assert await asyncio.wait_for(stream.reader.readexactly(len(refusal)), timeout=10) == refusal
        await served.serving.stop()
        assert await asyncio.wait_for(stream.reader.read(), timeout=10) == goodbye


async def test_many_batches_are_in_flight_and_each_is_answered_by_its_number(served: Served) -> None:
    async with Stream(served.stream_path) as stream:
        limits = await stream.greet()
        served.core.gate.clear()
        for number in range(limits["unanswered_batches_max"]):
            stream.batch(number, EVENT, EVENT)
        await until(lambda: len(served.core.submitted) == limits["unanswered_batches_max"])
        served.core.gate.set()
        answers = [await stream.receive() for _ in range(limits["unanswered_batches_max"])]

    assert sorted(answer[1] for answer in answers) == list(range(limits["unanswered_batches_max"]))
    assert all(answer[2:] == ["applied", 2, 0, 0, 0, []] for answer in answers)
    assert served.metric("taximeter_stream_batches_total", code="applied") == len(answers)
    assert served.metric("taximeter_events_total", result="accepted") == 2 * len(answers)


async def test_an_answer_says_of_each_event_what_http_says(served: Served) -> None:
    served.core.receipt = Receipt(applied=True, duplicates=(1,), conflicts=(2,))
    body = pack([EVENT, {**EVENT, "id": "a"}, {**EVENT, "id": "b"}, {**EVENT, "units": "x", "id": "c"}])
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(7, body=body)
        streamed = await stream.receive()
    async with served.http.post("/v1/events", data=body, headers={"Content-Type": "application/msgpack"}) as response:
        answer = await response.json()

    assert streamed[:3] == [2, 7, answer["status"]]
    assert streamed[3:7] == [answer[name] for name in ("accepted", "duplicates", "conflicts", "rejected")]
    assert streamed[7] == [[each["index"], each["id"], each["code"], each.get("message")] for each in answer["results"]]
    assert [each[2] for each in streamed[7]] == ["duplicate", "conflict", "units_invalid"]


async def test_a_key_is_the_idempotency_key_of_http(served: Served) -> None:
    body = pack([EVENT])
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(1, key="k-1", body=body)
        await stream.receive()
    headers = {"Content-Type": "application/msgpack", "Idempotency-Key": "k-1"}
    async with served.http.post("/v1/events", data=body, headers=headers):
        pass

    streamed, posted = served.core.submitted
    assert (streamed.key, streamed.digest, streamed.events) == (posted.key, posted.digest, posted.events)
    assert streamed.digest == body_digest("application/msgpack", body)


async def test_journaled_says_that_nothing_more_is_known(served: Served) -> None:
    served.core.receipt = Receipt(applied=False)
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(1, EVENT)
        assert await stream.receive() == [2, 1, "journaled", 1, None, None, 0, []]


@pytest.mark.parametrize(
    ("error", "code", "retry_after_s"),
    [
        (Unavailable("journal_full", "full"), "journal_full", 1),
        (Unavailable("overloaded", "busy", 3), "overloaded", 3),
        (ValueError("a fault"), "internal", 1),
    ],
    ids=["full", "overloaded", "a fault"],
)
async def test_what_can_be_sent_again_says_when(
    served: Served, error: Exception, code: str, retry_after_s: int
) -> None:
    served.core.error = error
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(1, EVENT)
        assert [part for at, part in enumerate(await stream.receive()) if at != 3] == [3, 1, code, retry_after_s]

        # and the connection goes on
        served.core.error = None
        stream.batch(2, EVENT)
        assert (await stream.receive())[:3] == [2, 2, "applied"]
    assert served.intake.waiting_bytes == 0


async def test_what_will_never_be_taken_says_so_and_spoils_no_other_batch(serve: Serve) -> None:
    served = await serve(request_events_max=2, body_bytes_max=2048)
    served.core.receipt = Receipt(applied=True, reused=True)
    bomb = b"\x91" * 2000
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(1, body=b"\xc1")
        stream.batch(2, body=bomb)
        stream.batch(3, body=b"\xdd\xff\xff\xff\xff")
        stream.batch(4, EVENT, EVENT, EVENT)
        stream.batch(5, body=b"\x90" * 2100)
        stream.batch(6, EVENT, key="no spaces")
        stream.batch(7, EVENT, key="")
        stream.batch(8, EVENT, key="used")
        answers = sorted([await stream.receive() for _ in range(8)], key=lambda answer: int(answer[1]))

    assert [(answer[0], answer[2]) for answer in answers] == [
        (3, "body_invalid"),
        (3, "body_invalid"),
        (3, "too_many_events"),
        (3, "too_many_events"),
        (3, "body_too_large"),
        (3, "idempotency_key_invalid"),
        (3, "idempotency_key_invalid"),
        (3, "idempotency_key_reused"),
    ]
    assert all(answer[4] is None for answer in answers)
    assert served.intake.waiting_bytes == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (framed(1, 1, None, b"\x90"), "body_invalid"),
        (framed(0, [2, 3]), "protocol_unsupported"),
        (framed(0, "1"), "body_invalid"),
        (framed(9), "body_invalid"),
        (struct.pack(">I", 1 << 31), "body_too_large"),
        (struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff", "body_invalid"),
        (struct.pack(">I", 60_000) + b"\x91" * 60_000, "body_invalid"),
        (b"GET / HTTP/1.1\r\n\r\n", "body_too_large"),
        (framed(*HELLO) + framed(*HELLO), "body_invalid"),
        (framed(*HELLO) + struct.pack(">I", 0), "body_invalid"),
        (framed(*HELLO) + struct.pack(">I", 60_000) + b"\x94\x01\x01\xc0" + b"\x91" * 59_996, "body_invalid"),
        (framed(*HELLO) + framed(1, -1.5, None, b""), "body_invalid"),
        (framed(*HELLO) + framed(1, 1, None, [EVENT]), "body_invalid"),
        (framed(*HELLO) + struct.pack(">I", 0xFFFFFFFF), "body_too_large"),
    ],
)
async def test_what_is_no_message_ends_the_connection_with_a_reason(served: Served, said: bytes, code: str) -> None:
    async with Stream(served.stream_path) as stream:
        stream.writer.write(said)
        message = await stream.receive()
        if said.startswith(framed(*HELLO)):
            assert message[0] == 0
            message = await stream.receive()
        assert message[:2] == [4, code]
        assert await stream.ended()
    await until(lambda: served.serving.connections == 0)
    assert served.intake.waiting_bytes == 0


async def test_half_a_frame_is_waited_for_within_the_deadline_and_an_idle_connection_stays(serve: Serve) -> None:
    served = await serve(read_deadline_s=1.0)
    whole = framed(1, 1, None, pack([EVENT]))

    async def times_out(said: bytes, *, greeted: bool) -> None:
        async with Stream(served.stream_path) as stream:
            if greeted:
                await stream.greet()
            stream.writer.write(said)
            assert (await stream.receive())[:2] == [4, "read_timeout"]
            assert await stream.ended()

    async with Stream(served.stream_path) as idle:
        await idle.greet()
        await asyncio.gather(
            *(times_out(half, greeted=False) for half in (b"", framed(*HELLO)[:5])),
            *(times_out(half, greeted=True) for half in (whole[:2], whole[:9])),
        )
        idle.batch(1, EVENT)
        assert (await idle.receive())[:3] == [2, 1, "applied"]
    assert served.intake.waiting_bytes == 0


async def test_a_connection_with_too_much_unanswered_is_not_read(served: Served) -> None:
    async with Stream(served.stream_path) as stream:
        limits = await stream.greet()
        served.core.gate.clear()
        for number in range(limits["unanswered_batches_max"] + 20):
            stream.batch(number, EVENT)
        await until(lambda: len(served.core.submitted) == limits["unanswered_batches_max"])
        await asyncio.sleep(0.05)
        assert len(served.core.submitted) == limits["unanswered_batches_max"]
        served.core.gate.set()
        for _ in range(limits["unanswered_batches_max"] + 20):
            assert (await stream.receive())[2] == "applied"


async def test_all_connections_together_hold_no_more_than_the_setting_and_nobody_is_refused(serve: Serve) -> None:
    served = await serve(body_bytes_max=200_000, waiting_bytes_max=400_000)
    served.core.gate.clear()
    large = pack([{**EVENT, "properties": {"a": "x" * 250}}] * 600)
    streams = [Stream(served.stream_path) for _ in range(6)]
    for stream in streams:
        await stream.__aenter__()
        await stream.greet()
        stream.batch(1, body=large)
    await until(lambda: len(served.core.submitted) == 2)
    held: list[int] = []
    served.core.gate.set()
    for stream in streams:
        held.append(served.intake.waiting_bytes)
        assert (await stream.receive())[2:4] == ["applied", 600]
        await stream.__aexit__(None, None, None)
    assert max(held) <= 400_000
    assert len(served.core.submitted) == 6
    assert served.intake.waiting_bytes == 0


async def test_a_client_that_reads_no_answers_is_let_go(serve: Serve) -> None:
    served = await serve(read_deadline_s=1.0, request_events_max=1000)
    refused = pack([{**EVENT, "user_id": 1}] * 1000)
    async with Stream(served.stream_path, buffer_bytes=1024) as stream:
        await stream.greet()
        for number in range(200):
            stream.batch(number, body=refused)
        await until(lambda: served.serving.connections == 0)
    assert served.intake.waiting_bytes == 0


async def test_what_was_read_is_seen_through_when_the_client_has_left(served: Served) -> None:
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        served.core.gate.clear()
        stream.batch(1, EVENT)
        await until(lambda: len(served.core.submitted) == 1)
    served.core.gate.set()
    await until(lambda: served.core.finished == 1)
    await until(lambda: served.serving.connections == 0)


async def test_a_stop_answers_what_was_read_and_says_goodbye(served: Served) -> None:
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        served.core.gate.clear()
        stream.batch(1, EVENT)
        await until(lambda: len(served.core.submitted) == 1)
        stopping = asyncio.create_task(served.serving.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        served.core.gate.set()
        assert (await stream.receive())[:3] == [2, 1, "applied"]
        assert (await stream.receive())[:2] == [4, "stopping"]
        assert await stream.ended()
        await stopping


async def test_connections_of_http_and_stream_are_counted_together(serve: Serve) -> None:
    served = await serve(connections_max=2)
    async with Stream(served.stream_path) as first, Stream(served.stream_path) as second:
        await first.greet()
        await second.greet()
        assert served.serving.connections == 2
        async with Stream(served.stream_path) as third:
            assert (await third.receive())[:2] == [4, "overloaded"]
            assert await third.ended()
        assert b"503 Service Unavailable" in await served.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def test_a_sidecar_that_does_not_accept_says_so_in_a_refusal(served: Served) -> None:
    served.core.refusal = TaximeterError("not_registered", "waits for a flusher")
    async with Stream(served.stream_path) as stream:
        await stream.greet()
        stream.batch(1, EVENT)
        assert await stream.receive() == [3, 1, "not_registered", "waits for a flusher", 1]


async def test_random_bytes_end_in_a_reason_or_wait_for_more(serve: Serve) -> None:
    served = await serve(read_deadline_s=1.0)

    async def ends(size: int) -> None:
        async with Stream(served.stream_path) as stream:
            stream.writer.write(framed(*HELLO) + struct.pack(">I", size) + os.urandom(size))
            assert (await stream.receive())[0] == 0
            assert (await stream.receive())[1] in {"body_invalid", "read_timeout"}

    await asyncio.gather(*map(ends, range(1, 40)))
    assert served.intake.waiting_bytes == 0
