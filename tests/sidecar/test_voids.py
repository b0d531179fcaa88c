"""POST /v1/events/void: what a void may be, and the event that it becomes."""

import json
from typing import Any

import aiohttp
import msgspec
import pytest

from sidecar.contract.event import Identity
from sidecar.contract.identity import event_key, void_key
from sidecar.contract.meters import Meter, Revision
from sidecar.ingest import Receipt
from sidecar.reading import Reading, read
from tests.sidecar.conftest import Served
from tests.sidecar.support import GOOD, NOW_US, TERMS, only, read_json, refused

VOID = {"user_id": "cus_1", "id": "e-1", "timestamp": "2025-07-21T09:00:00Z", "reason": "the job failed"}
VOIDED_US = 1_753_088_400_000_000


def read_voids(value: object) -> Reading:
    """Returns what JSON is read as."""
    return read("application/json", json.dumps(value).encode(), TERMS, voids=True)


async def post(client: aiohttp.ClientSession, body: object, query: str = "", **headers: str) -> tuple[int, Any]:
    known = {"Content-Type": "application/json"} | headers
    async with client.post(f"/v1/events/void{query}", data=json.dumps(body), headers=known) as response:
        return response.status, await response.json(content_type=None)


class TestReading:
    def test_a_void_is_an_event_that_adds_nothing_at_the_time_of_the_one_that_it_cancels(self) -> None:
        event = only(read_voids(VOID))

        assert (event.user_id, event.source, event.id, event.time_us) == ("cus_1", "", "e-1", VOIDED_US)
        assert (event.event_type, event.units, event.properties) == ("taximeter.void", 0, '{"reason":"the job failed"}')
        assert event.identity == Identity.TIMED
        assert event.key == void_key(event_key("cus_1", "", "e-1"), VOIDED_US)

    def test_voids_of_two_events_have_two_keys_and_another_reason_is_another_fingerprint(self) -> None:
        other = {"source": "s", "id": "e-2", "user_id": "cus_2", "timestamp": "2025-07-21T09:00:01Z"}
        bodies = [VOID, *(VOID | {name: value} for name, value in other.items())]
        events = [only(read_voids(body)) for body in bodies]
        assert len({event.key for event in events}) == len(bodies)

        again, for_another_reason = only(read_voids(VOID)), only(read_voids(VOID | {"reason": "other"}))
        assert (again.key, again.fingerprint) == (events[0].key, events[0].fingerprint)
        assert for_another_reason.key == events[0].key
        assert for_another_reason.fingerprint != events[0].fingerprint

    def test_no_event_has_the_key_of_a_void(self) -> None:
        event = only(read_json({"user_id": "cus_1", "event_type": "call", "id": "e-1", "timestamp": VOID["timestamp"]}))
        assert event.key != only(read_voids(VOID)).key

    @pytest.mark.parametrize(
        ("change", "code", "message"),
        [
            ({"reason": None}, "reason_invalid", "reason: expected a string, got null"),
            ({"reason": ""}, "reason_invalid", "reason: expected a string of 1 to 256 bytes, got an empty one"),
            ({"reason": "é" * 129}, "reason_invalid", "reason: expected at most 256 bytes, got 258"),
            ({"reason": "a" * 257}, "reason_invalid", "reason: expected at most 256 bytes, got 257"),
            ({"reason": "a\x00"}, "reason_invalid", "reason: expected no control characters"),
            ({"reason": 7}, "reason_invalid", "reason: expected a string, got 7"),
            ({"id": ""}, "id_invalid", "id: expected a string of 1 to 256 bytes"),
            ({"id": "\x7f"}, "id_invalid", "id: expected no control characters"),
            ({"user_id": 1}, "user_id_invalid", "user_id: expected a string, got 1"),
            ({"source": "a" * 257}, "source_invalid", "source: expected at most 256 bytes"),
            ({"timestamp": "2025-07-21"}, "timestamp_invalid", "timestamp: expected RFC 3339"),
            ({"timestamp": "2020-01-01T00:00:00Z"}, "timestamp_out_of_range", "timestamp: expected at most 5 years"),
            ({"timestamp": "2025-07-21T09:40:00Z"}, "timestamp_out_of_range", "timestamp: expected at most 5 minutes"),
            ({"units": 1}, "event_invalid", 'void: unknown field "units"; the fields are user_id, id, timestamp'),
        ],
    )
    def test_a_void_that_is_none_is_refused_with_what_is_wrong(
        self, change: dict[str, object], code: str, message: str
    ) -> None:
        rejection = refused(read_voids(VOID | change))
        assert (rejection.code, rejection.message[: len(message)]) == (code, message)

    @pytest.mark.parametrize("missing", ["user_id", "id", "timestamp", "reason"])
    def test_all_but_the_source_is_required(self, missing: str) -> None:
        rejection = refused(read_voids({name: value for name, value in VOID.items() if name != missing}))
        assert rejection.code == f"{missing}_invalid"
        assert rejection.message == f"{missing}: expected a string, but the field is missing"

    def test_a_void_at_or_before_the_floor_is_too_old(self) -> None:
        body = json.dumps(VOID).encode()
        reading = read("application/json", body, TERMS._replace(floor_us=VOIDED_US), voids=True)
        assert refused(reading).code == "too_old"

    def test_a_bad_void_spoils_no_other(self) -> None:
        reading = read_voids([VOID, {**VOID, "reason": 1}, "x", {**VOID, "id": "e-2"}])
        assert [event.index for event in reading.events] == [0, 3]
        assert [(one.index, one.id, one.code) for one in reading.rejections] == [
            (1, "e-1", "reason_invalid"),
            (2, None, "event_invalid"),
        ]

    def test_an_event_of_the_reserved_type_is_refused_however_it_comes(self) -> None:
        event = GOOD | {"event_type": "taximeter.void"}
        assert refused(read_json(event)).code == "event_type_invalid"
        assert refused(read("application/msgpack", msgspec.msgpack.encode(event), TERMS)).code == "event_type_invalid"
        cloud = {"specversion": "1.0", "id": "1", "source": "s", "type": "taximeter.void", "subject": "cus_1"}
        rejection = refused(read("application/cloudevents+json", json.dumps(cloud).encode(), TERMS))
        assert (rejection.code, rejection.message.partition(":")[0]) == ("event_type_invalid", "type")

    def test_a_void_feeds_no_meter_not_even_one_that_names_its_type(self) -> None:
        event = only(read_voids(VOID))
        for meters in ([], [Meter("voids", "taximeter.void", "count")]):
            assert Revision(1, meters).fold([event]) == {}


class TestTheEndpoint:
    async def test_it_answers_as_for_events(self, served: Served) -> None:
        served.core.receipt = Receipt(applied=True, duplicates=(1,), conflicts=(2,))
        body = [VOID, *({**VOID, "id": name} for name in ("e-2", "e-3")), {**VOID, "reason": ""}]

        status, answer = await post(served.http, body)

        assert status == 200
        counts = (answer["accepted"], answer["duplicates"], answer["conflicts"], answer["rejected"])
        assert (answer["status"], *counts) == ("applied", 1, 1, 1, 1)
        assert [(one["index"], one["id"], one["code"]) for one in answer["results"]] == [
            (1, "e-2", "duplicate"),
            (2, "e-3", "conflict"),
            (3, "e-1", "reason_invalid"),
        ]
        (submitted,) = served.core.submitted
        assert [event.event_type for event in submitted.events] == ["taximeter.void"] * 3
        assert submitted.assigned_us == NOW_US

    async def test_it_takes_a_single_one_over_both_listeners(self, served: Served) -> None:
        for client in (served.http, served.unix):
            assert (await post(client, VOID))[0] == 200
        assert len(served.core.submitted) == 2

    async def test_a_line_of_ndjson_is_a_void(self, served: Served) -> None:
        headers = {"Content-Type": "application/x-ndjson"}
        body = b"\n".join([json.dumps(VOID).encode(), b" ", b'{"reason":'])
        async with served.http.post("/v1/events/void", data=body, headers=headers) as response:
            answer = await response.json()
        assert (answer["accepted"], answer["rejected"]) == (1, 1)
        assert [event.id for event in served.core.submitted[0].events] == ["e-1"]

    async def test_atomic_applies_nothing_of_a_body_with_a_bad_one(self, served: Served) -> None:
        status, answer = await post(served.http, [VOID, {}], "?atomic=true")
        assert (status, answer["code"], served.core.submitted) == (422, "no_event_accepted", [])

    async def test_bodies_are_json_and_options_are_known(self, served: Served) -> None:
        status, answer = await post(served.http, VOID, **{"Content-Type": "application/msgpack"})
        assert (status, answer["code"]) == (415, "content_type_unsupported")
        assert answer["detail"].startswith("Content-Type: expected one of application/json, application/x-ndjson, got")
        status, answer = await post(served.http, VOID, "?return=ids")
        assert (status, answer["code"]) == (400, "query_invalid")
        status, answer = await post(served.http, 7)
        assert (status, answer["code"]) == (422, "no_event_accepted")

    async def test_they_are_counted_apart_from_events(self, served: Served) -> None:
        await post(served.http, [VOID, {**VOID, "reason": ""}])
        assert served.metric("taximeter_voids_total", result="accepted") == 1
        assert served.metric("taximeter_voids_total", result="reason_invalid") == 1
        assert served.metric("taximeter_events_total", result="accepted") == 0
