"""POST /v1/events and /track: what is submitted, and what the answer says became of it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.identity import body_digest
from sidecar.contract.meters import Meter, Revision
from sidecar.errors import Unavailable
from sidecar.ingest import Receipt
from tests.sidecar.conftest import Served
from tests.sidecar.support import GOOD, NOW_US, until

BAD = {"user_id": "cus_1", "event_type": "api_call", "units": "ten"}
JSON = {"Content-Type": "application/json"}


async def post(
    client: aiohttp.ClientSession, events: object, path: str = "/v1/events", **headers: str
) -> tuple[int, Any, aiohttp.ClientResponse]:
    async with client.post(path, data=json.dumps(events), headers=JSON | headers) as response:
        return response.status, await response.json(content_type=None), response


def events(count: int) -> list[dict[str, Any]]:
    return [{**GOOD, "id": f"e-{number}"} for number in range(count)]


class TestAnAnswer:
    async def test_applied_is_200_and_lists_only_what_was_not_simply_accepted(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, duplicates=(1,))

        status, answer, response = await post(served.http, [*events(3), BAD])

        assert status == 200
        assert response.content_type == "application/json"
        assert answer == {
            "status": "applied",
            "accepted": 2,
            "duplicates": 1,
            "conflicts": 0,
            "rejected": 1,
            "results": [
                {"index": 1, "id": "e-1", "code": "duplicate"},
                {
                    "index": 3,
                    "id": None,
                    "code": "units_invalid",
                    "message": 'units: expected a decimal below 10^15, got "ten"',
                },
            ],
        }

    async def test_places_in_the_submission_become_places_in_the_request(self, served: Served) -> None:
        # Given a rejected event in front, when the first submitted one is a duplicate
        served.core.receipt = Receipt(applied=True, duplicates=(0,), conflicts=(1,))

        _, answer, _ = await post(served.http, [BAD, *events(3)])

        # Then the answer speaks of the request's second and third
        assert [(result["index"], result["code"]) for result in answer["results"]] == [
            (0, "units_invalid"),
            (1, "duplicate"),
            (2, "conflict"),
        ]

    async def test_journaled_is_202_and_says_what_is_not_known(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=False)

        status, answer, _ = await post(served.http, [*events(2), BAD])

        assert status == 202
        assert answer["status"] == "journaled"
        assert (answer["accepted"], answer["rejected"]) == (2, 1)
        assert (answer["duplicates"], answer["conflicts"]) == (None, None)

    async def test_all_duplicates_is_200(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, duplicates=(0, 1))

        status, answer, _ = await post(served.http, events(2))

        assert (status, answer["accepted"], answer["duplicates"]) == (200, 0, 2)

    @pytest.mark.parametrize(
        ("sent", "conflicts"), [([BAD, BAD], ()), (events(2), (0, 1)), ([BAD, *events(1)], (0,))], ids=str
    )
    async def test_none_accepted_is_422_and_still_says_why(
        self, served: Served, sent: list[Any], conflicts: tuple[int, ...]
    ) -> None:
        served.core.receipt = Receipt(applied=True, conflicts=conflicts)

        status, answer, response = await post(served.http, sent)

        assert (status, answer["status"], answer["code"]) == (422, 422, "no_event_accepted")
        assert response.content_type == "application/problem+json"
        assert [result["index"] for result in answer["results"]] == [0, 1]
        assert answer["rejected"] + answer["conflicts"] == 2
        assert answer["accepted"] == answer["duplicates"] == 0

    async def test_one_event_needs_no_array(self, served: Served) -> None:
        status, answer, _ = await post(served.http, GOOD)

        assert (status, answer["accepted"]) == (200, 1)

    async def test_an_empty_array_is_nothing_and_is_not_submitted(self, served: Served) -> None:
        status, answer, _ = await post(served.http, [])

        assert (status, answer["accepted"], answer["results"]) == (200, 0, [])
        assert served.core.submitted == []

    async def test_made_ids_are_listed_when_asked_for(self, served: Served) -> None:
        sent = [{"user_id": "a", "event_type": "t"}, GOOD, BAD, {"user_id": "b", "event_type": "t"}]

        _, answer, _ = await post(served.http, sent, "/v1/events?return=ids")

        keys = [event.key.hex() for event in served.core.submitted[0].events]
        assert answer["ids"] == [{"index": 0, "id": keys[0]}, {"index": 3, "id": keys[2]}]

    async def test_they_are_not_listed_otherwise(self, served: Served) -> None:
        _, answer, _ = await post(served.http, {"user_id": "a", "event_type": "t"})

        assert "ids" not in answer

    async def test_the_unix_socket_answers_the_same(self, served: Served) -> None:
        status, answer, _ = await post(served.unix, [*events(2), BAD])

        assert (status, answer["accepted"], answer["rejected"]) == (200, 2, 1)

    @pytest.mark.parametrize(
        ("content_type", "encode"),
        [
            ("application/json", lambda sent: json.dumps(sent).encode()),
            ("application/json; charset=utf-8", lambda sent: json.dumps(sent).encode()),
            ("Application/JSON", lambda sent: json.dumps(sent).encode()),
            ("application/x-ndjson", lambda sent: b"\n".join(json.dumps(event).encode() for event in sent)),
            ("application/msgpack", msgspec.msgpack.encode),
            (
                "application/cloudevents-batch+json",
                lambda sent: json.dumps(
                    [
                        {"specversion": "1.0", "id": event["id"], "source": "", "subject": "u", "type": "t"}
                        for event in sent
                    ]
                ).encode(),
            ),
        ],
    )
    async def test_every_content_type_is_read(
        self, served: Served, content_type: str, encode: Callable[[Any], bytes]
    ) -> None:
        sent = encode(events(2))
        async with served.http.post("/v1/events", data=sent, headers={"Content-Type": content_type}) as response:
            assert response.status == 200
            assert (await response.json())["accepted"] == 2


class TestASubmission:
    async def test_events_without_a_time_get_that_of_the_core(self, served: Served) -> None:
        await post(served.http, GOOD)

        (submitted,) = served.core.submitted
        assert submitted.events[0].time_us == submitted.assigned_us == NOW_US
        assert (submitted.key, submitted.digest) == (None, None)

    async def test_events_are_judged_by_the_floor_and_the_meters_of_the_core(self, served: Served) -> None:
        served.core.event_floor_us = NOW_US - 60_000_000
        served.core.revision = Revision(1, [Meter(name="traffic", event_type="api_call", field="properties.bytes")])
        sent = [{**GOOD, "timestamp": "2025-07-21T09:33:21Z"}, {**GOOD, "properties": {"bytes": "many"}}, GOOD]

        _, answer, _ = await post(served.http, sent)

        assert [result["code"] for result in answer["results"]] == ["too_old", "properties_invalid"]
        assert answer["accepted"] == 1

    async def test_an_idempotency_key_comes_with_the_digest_of_the_body(self, served: Served) -> None:
        await post(served.http, [GOOD], **{"Idempotency-Key": "batch-1"})

        (submitted,) = served.core.submitted
        assert submitted.key == "batch-1"
        assert submitted.digest == body_digest("application/json", json.dumps([GOOD]).encode())

    async def test_a_key_with_another_body_is_422(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, reused=True)

        status, answer, _ = await post(served.http, [GOOD], **{"Idempotency-Key": "batch-1"})

        assert (status, answer["code"]) == (422, "idempotency_key_reused")

    @pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\tb"])
    async def test_a_key_that_is_none_is_400(self, served: Served, key: str) -> None:
        status, answer, _ = await post(served.http, [GOOD], **{"Idempotency-Key": key})

        assert (status, answer["code"]) == (400, "idempotency_key_invalid")
        assert served.core.submitted == []

    async def test_two_keys_are_400(self, served: Served) -> None:
        headers = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        async with served.http.post("/v1/events", data=b"{}", headers=headers) as response:
            assert response.status == 400

    async def test_atomic_applies_all_or_nothing(self, served: Served) -> None:
        status, answer, _ = await post(served.http, [*events(3), BAD], "/v1/events?atomic=true")

        assert (status, answer["code"]) == (422, "no_event_accepted")
        assert (answer["accepted"], answer["rejected"]) == (0, 4)
        assert [result["index"] for result in answer["results"]] == [3]
        assert served.core.submitted == []

    async def test_atomic_applies_what_is_all_good(self, served: Served) -> None:
        status, answer, _ = await post(served.http, events(3), "/v1/events?atomic=true")

        assert (status, answer["accepted"]) == (200, 3)

    async def test_it_is_seen_through_when_the_client_leaves(self, served: Served) -> None:
        # Given a submission that waits
        served.core.gate.clear()
        request = asyncio.create_task(post(served.http, GOOD))
        await until(lambda: bool(served.core.submitted))

        # When the client leaves
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await asyncio.sleep(0.05)
        served.core.gate.set()

        # Then the submission ends all the same
        await until(lambda: served.core.finished == 1)

    async def test_its_events_are_counted_by_what_became_of_them(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, duplicates=(0,), conflicts=(1,))
        await post(served.http, [*events(4), BAD])
        served.core.receipt = Receipt(applied=False)
        await post(served.http, events(3))

        counts = {
            result: served.metric("taximeter_events_total", result=result)
            for result in ("accepted", "duplicate", "conflict", "units_invalid", "journaled")
        }
        assert counts == {"accepted": 2, "duplicate": 1, "conflict": 1, "units_invalid": 1, "journaled": 3}
        assert served.metric("taximeter_requests_total", status="202", code="journaled") == 1
        assert served.metric("taximeter_request_events_sum") == 8
        assert served.intake.waiting_bytes == 0


class TestWhatCannotBeTakenNow:
    @pytest.mark.parametrize(
        ("error", "status", "retry_after"),
        [
            (Unavailable("overloaded", "too many wait", 2), 429, "2"),
            (Unavailable("journal_full", "it is full", 5), 503, "5"),
            (Unavailable("not_registered", "not yet"), 503, "1"),
        ],
    )
    async def test_it_says_when_to_try_again(
        self, served: Served, error: Unavailable, status: int, retry_after: str
    ) -> None:
        served.core.error = error

        found, answer, response = await post(served.http, GOOD)

        assert (found, answer["code"], answer["detail"]) == (status, error.code, error.message)
        assert response.headers["Retry-After"] == retry_after
        assert response.content_type == "application/problem+json"

    async def test_a_sidecar_that_is_not_ready_reads_nothing(self, served: Served) -> None:
        served.core.refusal = TaximeterError("ledger_mismatch", "another ledger")

        status, answer, response = await post(served.http, BAD)

        assert (status, answer["code"]) == (503, "ledger_mismatch")
        assert response.headers["Retry-After"] == "1"
        assert served.core.submitted == []

    async def test_a_fault_tells_the_client_nothing_of_its_inside(self, served: Served) -> None:
        served.core.error = RuntimeError("the password is hunter2")

        status, answer, _ = await post(served.http, GOOD)

        assert (status, answer["code"]) == (500, "internal")
        assert "hunter2" not in json.dumps(answer)


class TestTrack:
    async def test_it_takes_an_event_as_in_the_article(self, served: Served) -> None:
        event = {"user_id": "cus_123456", "event_type": "api_call", "units": 1, "timestamp": "2025-07-21T09:34:21Z"}

        status, answer, _ = await post(served.http, event, "/track")

        assert (status, answer) == (200, {"success": True})

    @pytest.mark.parametrize("receipt", [Receipt(applied=False), Receipt(applied=True, duplicates=(0,))])
    async def test_journaled_and_counted_before_are_success(self, served: Served, receipt: Receipt) -> None:
        served.core.receipt = receipt

        assert (await post(served.http, GOOD, "/track"))[:2] == (200, {"success": True})

    async def test_a_rejected_event_gets_its_own_problem(self, served: Served) -> None:
        status, answer, response = await post(served.http, BAD, "/track")

        assert (status, answer["code"]) == (422, "units_invalid")
        assert answer["detail"] == 'units: expected a decimal below 10^15, got "ten"'
        assert response.content_type == "application/problem+json"

    async def test_a_conflict_is_a_problem(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, conflicts=(0,))

        status, answer, _ = await post(served.http, GOOD, "/track")

        assert (status, answer["code"]) == (422, "conflict")

    @pytest.mark.parametrize("sent", [[], events(2)])
    async def test_it_takes_exactly_one(self, served: Served, sent: list[Any]) -> None:
        status, answer, _ = await post(served.http, sent, "/track")

        assert (status, answer["code"]) == (400, "body_invalid")
        assert served.core.submitted == []
