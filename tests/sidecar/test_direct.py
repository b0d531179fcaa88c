"""The usual request is answered past aiohttp as aiohttp would, and everything unusual is left to it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import pytest

from sidecar import serving
from sidecar.api import Api
from sidecar.direct import HEAD_BYTES_MAX, HEADS_REMEMBERED, Desk
from sidecar.errors import Unavailable
from sidecar.ingest import Receipt
from sidecar.intake import Intake
from sidecar.metrics import Metrics
from sidecar.taking import Taking
from tests.sidecar.conftest import FakeCore, FakeUsage, Serve, Served
from tests.sidecar.support import GOOD, until

BAD = {"user_id": "cus_1", "event_type": "api_call", "units": "ten"}
JSON = ("Content-Type: application/json",)


def request(body: object, *headers: str, path: str = "/v1/events") -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(payload)}", "", ""]
    return "\r\n".join(lines).encode() + payload


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[str, dict[str, str], bytes]:
        """Returns the next answer: status line, headers, body."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
            first, *lines = head.split("\r\n")
            headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
            return first, headers, await self.reader.readexactly(int(headers["Content-Length"]))


async def over_tcp(served: Served) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", served.port))


class Connect(Protocol):
    """Returns a connection that is closed in the end."""

    async def __call__(self, served: Served, over: Callable[[Served], Awaitable[Client]] = ...) -> Client: ...


@pytest.fixture
async def connected() -> AsyncIterator[Connect]:
    made: list[Client] = []

    async def connect(served: Served, over: Callable[[Served], Awaitable[Client]] = over_tcp) -> Client:
        made.append(await over(served))
        return made[-1]

    yield connect
    for client in made:
        client.writer.close()


async def in_pieces(client: Client, data: bytes) -> None:
    """Sends bytes so that they arrive apart, which is not usual."""
    client.writer.write(data[:30])
    await asyncio.sleep(0.05)
    client.writer.write(data[30:])


@pytest.mark.parametrize(
    "sent",
    [
        request(GOOD, *JSON),
        request([GOOD, BAD], *JSON, "Idempotency-Key: k-1", "User-Agent: a (b; c)", "Connection: keep-alive"),
        request(BAD, *JSON),
        request(GOOD, "content-type: APPLICATION/JSON; charset=utf-8", path="/track"),
        request([GOOD, GOOD], *JSON, path="/track"),
        request(b"{oops", *JSON),
        request(b"", *JSON),
    ],
    ids=["one", "a key", "rejected", "track", "two for one", "unreadable", "empty"],
)
@pytest.mark.parametrize("receipt", [Receipt(applied=True), Receipt(applied=False), Receipt(applied=True, reused=True)])
async def test_a_usual_request_is_answered_as_it_is_in_pieces(
    served: Served, connected: Connect, sent: bytes, receipt: Receipt
) -> None:
    # Given the same request in one piece and in two
    served.core.receipt = receipt
    usual, unusual = await connected(served), await connected(served)
    usual.writer.write(sent)
    await in_pieces(unusual, sent)
    # Then it was answered past aiohttp, and by it, with the same words
    first, headers, body = await usual.answer()
    their_first, their_headers, their_body = await unusual.answer()
    assert "Server" in their_headers
    assert headers.keys() == their_headers.keys() - {"Server"}
    assert (first, body) == (their_first, their_body)
    assert {name: headers[name] for name in headers if name != "Date"} == {
        name: their_headers[name] for name in headers if name != "Date"
    }
    # And what was submitted is the same too
    assert len({(one.key, one.digest) for one in served.core.submitted}) <= 1
    assert len(served.core.submitted) in (0, 2)
    assert served.intake.waiting_bytes == 0


async def test_a_refusal_says_when_to_come_again_and_keeps_the_connection(served: Served, connected: Connect) -> None:
    client = await connected(served)
    served.core.error = Unavailable("journal_full", "the journal is full", retry_after_s=7)
    client.writer.write(request(GOOD, *JSON))
    first, headers, body = await client.answer()
    assert first == "HTTP/1.1 503 Service Unavailable"
    assert (headers["Retry-After"], json.loads(body)["code"]) == ("7", "journal_full")
    served.core.error = ValueError("a fault")
    client.writer.write(request(GOOD, *JSON))
    assert (await client.answer())[0] == "HTTP/1.1 500 Internal Server Error"
    served.core.error = None
    client.writer.write(request(GOOD, *JSON))
    assert (await client.answer())[0] == "HTTP/1.1 200 OK"
    assert served.metric("taximeter_requests_total", status="503", code="journal_full") == 1
    assert served.intake.waiting_bytes == 0


async def test_bodies_that_there_is_no_room_for_are_429(serve: Serve, connected: Connect) -> None:
    served = await serve(body_bytes_max=3000, waiting_bytes_max=4000)
    served.core.gate.clear()
    first, second = await connected(served), await connected(served)
    data = request(json.dumps(GOOD).encode().ljust(3000), *JSON)
    first.writer.write(data)
    await until(lambda: bool(served.core.submitted))
    second.writer.write(data)
    line, headers, _ = await second.answer()
    assert (line, headers["Retry-After"]) == ("HTTP/1.1 429 Too Many Requests", "1")
    served.core.gate.set()
    assert (await first.answer())[0] == "HTTP/1.1 200 OK"
    assert served.intake.waiting_bytes == 0


async def test_requests_behind_each_other_are_answered_in_their_order(served: Served, connected: Connect) -> None:
    client = await connected(served)
    served.core.gate.clear()
    client.writer.write(request({**GOOD, "id": "0"}, *JSON))
    await until(lambda: len(served.core.submitted) == 1)
    # When more come before the first is answered, in one piece and in several
    for number in range(1, 6):
        client.writer.write(request([{**GOOD, "id": str(number)}] * (number + 1), *JSON))
    client.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.sleep(0.05)
    # Then they wait
    assert len(served.core.submitted) == 1
    served.core.gate.set()
    accepted = [json.loads((await client.answer())[2])["accepted"] for _ in range(6)]
    assert accepted == [1, 2, 3, 4, 5, 6]
    assert json.loads((await client.answer())[2]) == {"status": "ok"}


async def test_it_is_seen_through_when_the_client_leaves(served: Served, connected: Connect) -> None:
    served.core.gate.clear()
    client = await connected(served)
    client.writer.write(request(GOOD, *JSON))
    await until(lambda: bool(served.core.submitted))
    client.writer.close()
    await until(lambda: served.serving.connections == 0)
    served.core.gate.set()
    await until(lambda: served.core.finished == 1)
    await until(lambda: served.intake.waiting_bytes == 0)
    assert served.metric("taximeter_requests_total", status="200", code="applied") == 1


async def over_unix(served: Served) -> Client:
    return Client(*await asyncio.open_unix_connection(str(served.socket_path)))


async def test_who_reads_no_answers_is_not_answered_for_ever(served: Served, connected: Connect) -> None:
    client = await connected(served, over_unix)
    answered = 0
    with suppress(TimeoutError):
        while answered < 100:  # each is 30 KB
            client.writer.write(request([BAD] * 300, *JSON))
            answered += 1
            await until(partial(_is_answered, served, answered), timeout_s=1.0)
    assert 0 < answered < 100
    # And once it reads, it gets all of them
    for _ in range(answered):
        await client.answer()


def _is_answered(served: Served, times: int) -> bool:
    return served.metric("taximeter_requests_total", status="422", code="no_event_accepted") == times


async def test_what_comes_before_an_answer_is_not_read_for_ever(served: Served, connected: Connect) -> None:
    client = await connected(served, over_unix)
    served.core.gate.clear()
    client.writer.write(request(GOOD, *JSON))
    await until(lambda: bool(served.core.submitted))
    client.writer.write(request(b" " * 1_000_000, *JSON) * 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.writer.drain(), timeout=0.5)
    served.core.gate.set()
    assert (await client.answer())[0] == "HTTP/1.1 200 OK"


async def test_a_request_in_the_body_of_another_is_its_body(served: Served, connected: Connect) -> None:
    client = await connected(served)
    inner = request(GOOD, *JSON)
    head = request(inner, *JSON).removesuffix(inner)
    client.writer.write(head)
    await asyncio.sleep(0.05)
    client.writer.write(inner)
    first, _, body = await client.answer()
    assert (first, json.loads(body)["code"]) == ("HTTP/1.1 400 Bad Request", "body_invalid")
    assert served.core.submitted == []


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    serve: Serve, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "KEEPALIVE_S", 0.5)
    monkeypatch.setitem(serving._OPTIONS, "keepalive_timeout", 0.5)
    served = await serve()
    busy, idle = await connected(served), await connected(served)
    for client in (busy, idle):
        client.writer.write(request(GOOD, *JSON))
        await client.answer()
    for _ in range(10):
        await asyncio.sleep(0.1)
        busy.writer.write(request(GOOD, *JSON))
        await busy.answer()
    async with asyncio.timeout(20):
        assert await idle.reader.read() == b""


async def test_a_connection_is_not_idle_while_its_request_is_worked_on(
    serve: Serve, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "KEEPALIVE_S", 0.2)
    monkeypatch.setitem(serving._OPTIONS, "keepalive_timeout", 0.2)
    served = await serve()
    client = await connected(served)
    served.core.gate.clear()
    client.writer.write(request(GOOD, *JSON))
    await until(lambda: bool(served.core.submitted))
    await asyncio.sleep(0.7)
    served.core.gate.set()
    assert (await client.answer())[0] == "HTTP/1.1 200 OK"


async def test_the_answer_of_a_sidecar_that_stops_closes_the_connection(served: Served, connected: Connect) -> None:
    served.core.gate.clear()
    client = await connected(served)
    client.writer.write(request(GOOD, *JSON))
    await until(lambda: bool(served.core.submitted))
    stopping = asyncio.create_task(served.serving.stop())
    await asyncio.sleep(0.05)
    served.core.gate.set()
    first, headers, _ = await client.answer()
    assert (first, headers["Connection"]) == ("HTTP/1.1 200 OK", "close")
    assert await client.reader.read() == b""
    await stopping


async def test_a_token_is_asked_for(serve: Serve, connected: Connect) -> None:
    served = await serve(tokens=(hashlib.sha256(b"t" * 40).digest(),))
    client = await connected(served)
    client.writer.write(request(GOOD, *JSON, "Authorization: Bearer " + "t" * 40))
    assert (await client.answer())[0] == "HTTP/1.1 200 OK"
    client.writer.write(request(GOOD, *JSON, "Authorization: Bearer " + "u" * 40))
    first, headers, _ = await client.answer()
    assert (first, headers["WWW-Authenticate"]) == ("HTTP/1.1 401 Unauthorized", "Bearer")
    assert len(served.core.submitted) == 1


def desk() -> Desk:
    core, metrics = FakeCore(), Metrics()
    intake = Intake(body_bytes_max=5000, waiting_bytes_max=5000, read_deadline_s=1)
    taking = Taking(core, intake, metrics, request_events_max=10)
    return Desk(Api(core, FakeUsage(), intake, metrics, taking), None)


def understood(data: bytes) -> bool:
    return desk().understand(data) is not None


USUAL = request(GOOD, *JSON, "Accept: */*")


def test_the_usual_is_understood() -> None:
    assert understood(USUAL)
    assert understood(USUAL.replace(b"/v1/events", b"/track"))
    assert understood(USUAL.replace(b"Accept: */*", b"Connection: Keep-Alive"))
    assert understood(USUAL.replace(b"Accept: */*", b'X-Trace: a b;c=d, "e"'))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"post"),
        (b"POST", b"PUT"),
        (b"/v1/events", b"/v1/events?atomic=true"),
        (b"/v1/events", b"/v1/event"),
        (b"/v1/events", b"http://localhost/v1/events"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.1 "),
        (b"\r\nAccept", b"\nAccept"),
        (b"Accept: */*", b"Accept: a\r\n b"),
        (b"Accept: */*", b"Accept:*/*"),
        (b"Accept: */*", b"Accept : */*"),
        (b"Accept: */*", b"Accept: "),
        (b"Accept: */*", b"Accept: \xe9"),
        (b"Accept: */*", b"Accept: a\tb"),
        (b"Accept: */*", b"Accept: a\x00b"),
        (b"Accept: */*", b"Accept: a\rb"),
        (b"Accept: */*", b"Acc_ept: a"),
        (b"Accept: */*", b"Content-Length: 62"),
        (b"Accept: */*", b"content-length: 62"),
        (b"Accept: */*", b"Host: localhost"),
        (b"Accept: */*", b"Transfer-Encoding: chunked"),
        (b"Accept: */*", b"Content-Encoding: identity"),
        (b"Accept: */*", b"Expect: 100-continue"),
        (b"Accept: */*", b"Upgrade: h2c"),
        (b"Accept: */*", b"Connection: close"),
        (b"Accept: */*", b"Connection: keep-alive, Upgrade"),
        (b"Content-Length: ", b"Content-Length: 0"),
        (b"Content-Length: ", b"Content-Length: +"),
        (b"Content-Length: ", b"X: "),
        (b'"id"', b'"id" '),
        (b'"id": ', b'"id":'),
        (b"Accept: */*", b"Accept: " + b"a" * HEAD_BYTES_MAX),
        (b'{"', b" " * 9000 + b'{"'),
    ],
    ids=lambda value: value[:32].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_what_could_be_read_in_another_way_is_left_to_aiohttp(old: bytes, new: bytes) -> None:
    assert old in USUAL
    changed = USUAL.replace(old, new, 1)
    if b" " * 9000 in new:
        changed = request(b" " * 9000, *JSON)
    assert not understood(changed)
    for at in range(1, len(USUAL)):
        assert not understood(USUAL[:at])
    assert not understood(USUAL + b"P")
    assert not understood(USUAL * 2)


def test_what_a_head_means_is_worked_out_once_and_remembered_for_so_many() -> None:
    counter = desk()
    heads = [request(GOOD, *JSON, f"X: {number}") for number in range(HEADS_REMEMBERED + 1)]
    for _ in range(3):
        assert counter.understand(heads[0]) is not None
    assert counter._head.cache_info().misses == 1
    for head in (*heads, heads[0]):
        assert counter.understand(head) is not None
    assert counter._head.cache_info().misses == HEADS_REMEMBERED + 2
