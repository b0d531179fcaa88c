"""Requests that are wrong as a whole, too large, too slow or too many; and everything that is not about events."""

import asyncio
import gzip
import json
import re
from typing import Any

import aiohttp
import pytest

from sidecar.contract.codes import CODES, TaximeterError
from sidecar.contract.meters import Meter, Revision
from sidecar.errors import Unavailable
from sidecar.live import LiveReading, LiveRow
from tests.sidecar.conftest import Serve, Served
from tests.sidecar.support import GOOD, NOW_US, until

JSON = {"Content-Type": "application/json"}
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def problem_of(response: aiohttp.ClientResponse) -> tuple[int, str, str]:
    """Returns the status, the code and the detail of a problem, and checks its form."""
    assert response.content_type == "application/problem+json"
    answer = await response.json(content_type=None)
    assert answer["status"] == response.status
    assert answer["code"] in CODES
    assert {"type", "title", "status", "code", "detail"} <= set(answer)
    return response.status, answer["code"], answer["detail"]


def split(received: bytes) -> tuple[int, Any]:
    """Returns the status of a raw answer and its body."""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body) if body else None


class TestRoutes:
    async def test_an_unknown_path_is_404(self, served: Served) -> None:
        async with served.http.get("/v2/events") as response:
            status, code, detail = await problem_of(response)

        assert (status, code) == (404, "not_found")
        assert "/v1/events" in detail

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [("GET", "/v1/events", "POST"), ("POST", "/v1/usage", "GET"), ("DELETE", "/track", "POST")],
    )
    async def test_another_method_is_405(self, served: Served, method: str, path: str, allow: str) -> None:
        async with served.http.request(method, path) as response:
            assert (await problem_of(response))[:2] == (405, "method_not_allowed")
            assert response.headers["Allow"] == allow

    async def test_head_is_get_without_a_body(self, served: Served) -> None:
        async with served.http.head("/livez") as response:
            assert (response.status, await response.read()) == (200, b"")

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("atomc=true", 'query: expected atomic, return, got "atomc"'),
            ("atomic=1", 'atomic: expected "false" or "true", got "1"'),
            ("return=everything", 'return: expected "ids", got "everything"'),
            ("atomic=true&atomic=false", "atomic: expected it once"),
        ],
    )
    async def test_an_unknown_option_is_400(self, served: Served, query: str, detail: str) -> None:
        async with served.http.post(f"/v1/events?{query}", data=b"{}", headers=JSON) as response:
            assert await problem_of(response) == (400, "query_invalid", detail)
        assert served.core.submitted == []


class TestBodies:
    @pytest.mark.parametrize(
        "content_type",
        ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1", "json"],
    )
    async def test_another_content_type_is_415(self, served: Served, content_type: str) -> None:
        async with served.http.post("/v1/events", data=b"{}", headers={"Content-Type": content_type}) as response:
            assert (await problem_of(response))[:2] == (415, "content_type_unsupported")

    @pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, gzip"])
    async def test_a_compressed_body_is_415_and_is_not_unpacked(self, served: Served, encoding: str) -> None:
        bomb = gzip.compress(b"[" * 1_000_000)
        headers = {**JSON, "Content-Encoding": encoding}
        async with served.http.post("/v1/events", data=bomb, headers=headers) as response:
            assert (await problem_of(response))[:2] == (415, "content_encoding_unsupported")

    async def test_an_unreadable_body_is_400(self, served: Served) -> None:
        async with served.http.post("/v1/events", data=b"{oops", headers=JSON) as response:
            status, code, detail = await problem_of(response)

        assert (status, code) == (400, "body_invalid")
        assert detail.startswith("body: expected a JSON event or an array of events: JSON is malformed")

    async def test_too_many_events_are_413(self, serve: Serve) -> None:
        served = await serve(request_events_max=3)
        async with served.http.post("/v1/events", data=json.dumps([GOOD] * 4), headers=JSON) as response:
            assert (await problem_of(response))[:2] == (413, "too_many_events")

    async def test_a_declared_size_above_the_limit_is_413_before_it_is_sent(self, serve: Serve) -> None:
        served = await serve(body_bytes_max=2000)

        status, answer = split(await served.raw(HEAD + b"Content-Length: 2001\r\n\r\n"))

        assert (status, answer["code"]) == (413, "body_too_large")

    async def test_a_chunked_body_above_the_limit_is_413(self, serve: Serve) -> None:
        served = await serve(body_bytes_max=2000)
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"

        status, answer = split(await served.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3))

        assert (status, answer["code"]) == (413, "body_too_large")
        assert served.intake.waiting_bytes == 0

    async def test_a_body_of_exactly_the_limit_is_read(self, serve: Serve) -> None:
        served = await serve(body_bytes_max=2000)
        body = json.dumps(GOOD).encode().ljust(2000)
        async with served.http.post("/v1/events", data=body, headers=JSON) as response:
            assert response.status == 200

    async def test_a_slow_body_is_408_within_the_deadline(self, serve: Serve) -> None:
        # Given a client that sends its head and a little of its body, and then nothing
        served = await serve(read_deadline_s=0.3)

        # When the deadline has passed, then it is answered and its connection closed
        async with asyncio.timeout(10):
            status, answer = split(await served.raw(HEAD + b"Content-Length: 100\r\n\r\n{"))
        assert (status, answer["code"]) == (408, "read_timeout")
        assert served.intake.waiting_bytes == 0

    async def test_a_trickle_does_not_move_the_deadline(self, serve: Serve) -> None:
        served = await serve(read_deadline_s=0.4)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        answered = asyncio.create_task(reader.read(20))
        async with asyncio.timeout(10):
            while not answered.done():
                writer.write(b" ")
                await asyncio.wait((answered,), timeout=0.05)
        assert b"408" in answered.result()
        writer.close()

    async def test_a_client_that_waits_to_be_told_is_told_to_go_on(self, served: Served) -> None:
        body = json.dumps(GOOD).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert split(await reader.read())[0] == 200
        writer.close()

    async def test_more_bodies_at_once_than_there_is_room_for_are_429(self, serve: Serve) -> None:
        # Given a body that is being worked on and takes most of the room
        served = await serve(body_bytes_max=3000, waiting_bytes_max=4000)
        body = json.dumps(GOOD).encode().ljust(3000)
        served.core.gate.clear()
        first = asyncio.create_task(served.unix.post("/v1/events", data=body, headers=JSON))
        await until(lambda: bool(served.core.submitted))

        # When another one comes, then it has to come again later
        async with served.http.post("/v1/events", data=body, headers=JSON) as response:
            assert (await problem_of(response))[:2] == (429, "overloaded")
            assert response.headers["Retry-After"] == "1"

        # And the first is not harmed
        served.core.gate.set()
        assert (await first).status == 200
        assert served.intake.waiting_bytes == 0


class TestConnections:
    @pytest.mark.parametrize(
        "data",
        [
            HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            HEAD + b"Content-Length: -2\r\n\r\n{}",
            b"POST /v1/events HTTP/1.1\nHost: localhost\n\n",
            HEAD + b"X: a\r\n b\r\n\r\n",
            HEAD + b"X: y\r\n" * 200 + b"\r\n",
            b"\x16\x03\x01\x00\xff",
        ],
        ids=["both lengths", "two lengths", "negative", "bare line feed", "folded", "many headers", "tls"],
    )
    async def test_http_that_can_be_read_two_ways_is_400(self, served: Served, data: bytes) -> None:
        status, answer = split(await served.raw(data))

        assert (status, answer["code"]) == (400, "body_invalid")
        assert served.core.submitted == []

    async def test_connections_above_the_limit_are_turned_away(self, serve: Serve) -> None:
        # Given as many connections as there may be
        served = await serve(connections_max=2)
        kept = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        await until(lambda: served.serving.connections == 2)

        # When one more comes
        status, answer = split(await served.raw(b""))

        # Then it is told so, and a later one is served once another has gone
        assert (status, answer["code"]) == (503, "overloaded")
        for _, writer in kept:
            writer.close()
        await until(lambda: served.serving.connections == 0)
        async with served.http.get("/livez") as response:
            assert response.status == 200

    async def test_a_stop_answers_what_is_under_way_and_nothing_more(self, served: Served) -> None:
        # Given a submission under way
        served.core.gate.clear()
        first = asyncio.create_task(served.http.post("/v1/events", data=json.dumps(GOOD), headers=JSON))
        async with served.unix.get("/livez") as response:  # a connection that stays open
            assert response.status == 200
        await until(lambda: bool(served.core.submitted))

        # When the sidecar stops
        stopping = asyncio.create_task(served.serving.stop())
        await asyncio.sleep(0.05)
        async with served.unix.get("/readyz") as response:
            assert (await problem_of(response))[:2] == (503, "stopping")

        # Then the submission gets its answer first
        assert not stopping.done()
        served.core.gate.set()
        assert (await first).status == 200
        await stopping
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", served.port)


class TestProbes:
    async def test_livez_says_that_the_process_answers(self, served: Served) -> None:
        served.core.refusal = Unavailable("not_registered", "not yet")
        async with served.http.get("/livez") as response:
            assert response.status == 200

    async def test_readyz_says_whether_events_are_accepted(self, served: Served) -> None:
        async with served.http.get("/readyz") as response:
            assert response.status == 200
        served.core.refusal = Unavailable("journal_full", "it is full")
        async with served.http.get("/readyz") as response:
            assert await problem_of(response) == (503, "journal_full", "it is full")

    async def test_metrics_are_in_prometheus_format(self, served: Served) -> None:
        async with served.http.get("/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            assert "# TYPE taximeter_events_total counter" in await response.text()

    async def test_openapi_describes_every_route_and_every_reference_is_there(self, served: Served) -> None:
        async with served.http.get("/openapi.json") as response:
            document = await response.json()
        async with served.http.get("/nowhere") as response:
            routes = re.findall(r"/[\w/.]+", (await problem_of(response))[2])

        assert sorted(document["paths"]) == sorted(routes)
        for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
            assert reference in document["components"]["schemas"]


class TestUsage:
    ROWS = (
        LiveRow("acme", "api_call", {"region": "eu"}, 12_500_000_000, 3),
        LiveRow("acme", "storage", {}, 1, 1),
    )

    async def test_it_has_the_shape_of_the_command(self, served: Served) -> None:
        served.usage.reading = LiveReading(NOW_US + 5, list(self.ROWS))
        query = {"user_id": "cus_1", "from": "2025-07-01T00:00:00Z", "to": "2025-07-21T02:00:00+02:00"}
        async with served.http.get("/v1/usage", params=query) as response:
            assert response.status == 200
            answer = await response.json()

        assert answer["as_of"] == "2025-07-21T09:34:21.000005Z"
        assert answer["usage"][0] == {
            "customer": "acme",
            "meter": "api_call",
            "dimensions": {"region": "eu"},
            "from": "2025-07-01T00:00:00Z",
            "to": "2025-07-21T00:00:00Z",
            "units": "12.5",
            "events": 3,
        }
        assert answer["usage"][1]["units"] == "0.000000001"

    async def test_the_default_is_this_month_and_all_meters(self, served: Served) -> None:
        async with served.http.get("/v1/usage?user_id=cus_1") as response:
            assert response.status == 200

        assert served.usage.asked == [("cus_1", None, 1_751_328_000_000_000, 1_754_006_400_000_000)]

    async def test_an_event_type_means_the_meters_that_it_feeds(self, served: Served) -> None:
        served.usage.reading = LiveReading(NOW_US, list(self.ROWS))
        served.core.revision = Revision(1, [Meter(name="storage", event_type="stored")])

        for event_type, meters in (("stored", ["storage"]), ("api_call", ["api_call"]), ("other", [])):
            async with served.http.get(f"/v1/usage?user_id=cus_1&event_type={event_type}") as response:
                assert [row["meter"] for row in (await response.json())["usage"]] == meters

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ({}, "user_id: expected a user, but the parameter is missing"),
            ({"user_id": ""}, "user_id: expected a string of 1 to 256 bytes, got an empty one"),
            ({"user_id": "a", "meter": "m", "event_type": "t"}, "meter, event_type: expected one of them, got both"),
            ({"user_id": "a", "customer": "b"}, None),
            ({"user_id": "a", "from": "yesterday"}, None),
            ({"user_id": "a", "to": "2025-07-21"}, None),
        ],
    )
    async def test_a_query_that_cannot_be_read_is_400(
        self, served: Served, query: dict[str, str], detail: str | None
    ) -> None:
        async with served.http.get("/v1/usage", params=query) as response:
            status, code, found = await problem_of(response)

        assert (status, code) == (400, "query_invalid")
        assert detail is None or found == detail
        assert served.usage.asked == []

    @pytest.mark.parametrize(
        ("error", "status"),
        [(TaximeterError("range_not_live", "too old"), 422), (Unavailable("usage_unavailable", "no Redis"), 503)],
    )
    async def test_what_cannot_be_told_is_a_problem(self, served: Served, error: TaximeterError, status: int) -> None:
        served.usage.error = error
        async with served.http.get("/v1/usage?user_id=cus_1") as response:
            assert await problem_of(response) == (status, error.code, error.message)
