"""What a body of events is read as: identity, unknown fields, and bodies of every content type."""

import json
from typing import Any

import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Identity
from sidecar.contract.identity import claim_key, event_key, indexed_key, shard_of
from sidecar.reading import Reading, Rejection, read
from tests.sidecar.support import GOOD, NOW_US, TERMS, only, pack, read_json, refused


class TestTheEventOfTheMission:
    def test_it_is_read_as_it_is(self) -> None:
        body = b'{"user_id": "cus_123456", "event_type": "api_call", "units": 1, "timestamp": "2025-07-21T09:34:21Z"}'

        event = only(read("application/json", body, TERMS))

        assert (event.user_id, event.event_type, event.units, event.time_us) == ("cus_123456", "api_call", 1, NOW_US)
        assert (event.id, event.source, event.properties, event.index) == (None, "", "", 0)

    def test_what_is_left_out_has_defaults(self) -> None:
        event = only(read_json({"user_id": "cus_1", "event_type": "api_call"}))

        assert (event.units, event.time_us, event.source, event.id) == (1, NOW_US, "", None)


class TestIdentity:
    def test_an_id_with_a_timestamp_is_known_by_both(self) -> None:
        event = only(read_json({**GOOD, "source": "web", "timestamp": "2025-07-21T09:00:00Z"}))

        assert event.identity == Identity.TIMED
        assert event.key == event_key("cus_1", "web", "good")

    def test_an_id_alone_is_claimed(self) -> None:
        event = only(read_json(GOOD))

        assert event.identity == Identity.CLAIMED
        assert event.key == event_key("cus_1", "", "good")

    def test_an_index_under_an_idempotency_key_counts_rejected_events_too(self) -> None:
        terms = TERMS._replace(idempotency_key="batch-1")
        events = [{"user_id": ""}, {"user_id": "cus_1", "event_type": "api_call"}]

        (event,) = read_json(events, terms).events

        share = claim_key("batch-1", shard_of("cus_1", terms.shards))
        assert (event.identity, event.key, event.index) == (Identity.INDEXED, indexed_key(share, 1), 1)

    def test_without_either_the_sidecar_makes_a_key(self) -> None:
        event = only(read_json({"user_id": "cus_1", "event_type": "api_call"}))

        assert (event.identity, event.key, event.id) == (Identity.MADE, b"r" * 16, None)

    def test_an_id_goes_before_the_idempotency_key(self) -> None:
        event = only(read_json(GOOD, TERMS._replace(idempotency_key="batch-1")))

        assert event.identity == Identity.CLAIMED

    def test_the_fingerprint_leaves_out_a_time_that_we_assigned(self) -> None:
        later = TERMS._replace(now_us=NOW_US + 1)

        assert only(read_json(GOOD)).fingerprint == only(read_json(GOOD, later)).fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"event_type": "other"},
            {"units": 2},
            {"properties": {"region": "eu"}},
            {"timestamp": "2025-07-21T09:34:21Z"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_the_fingerprint_differs_with_the_payload(self, change: dict[str, Any]) -> None:
        assert only(read_json({**GOOD, **change})).fingerprint != only(read_json(GOOD)).fingerprint

    def test_the_fingerprint_is_the_same_for_ever(self) -> None:
        # Given an event of every kind of field, when it is read by this version, then it is known to be the event
        # that an older version accepted.
        event = only(
            read_json(
                {**GOOD, "units": "1.50", "timestamp": "2025-07-21T11:34:21+02:00", "properties": {"b": 0.30, "a": "é"}}
            )
        )

        assert event.fingerprint.hex() == "21df4ef1178cbb5e"


class TestUnknownFields:
    def test_a_typo_does_not_pass_silently(self) -> None:
        rejection = refused(read_json({**GOOD, "unit": 5}))

        assert rejection == Rejection(
            0,
            "good",
            "event_invalid",
            'event: unknown field "unit"; the fields are user_id, event_type, units, timestamp, id, source, properties',
        )

    def test_a_key_given_twice_counts_as_its_last(self) -> None:
        body = b'{"user_id":"a","event_type":"t","units":1,"units":2}'

        assert only(read("application/json", body, TERMS)).units == 2

    @pytest.mark.parametrize("element", ["5", '"x"', "null", "[]", "true", "1.5"])
    def test_what_is_no_object_is_refused(self, element: str) -> None:
        body = f'[{element},{{"user_id":"a","event_type":"t"}}]'.encode()

        reading = read("application/json", body, TERMS)

        assert len(reading.events) == 1
        assert reading.rejections[0].code == "event_invalid"
        assert reading.rejections[0].message.startswith("event: expected an object, got ")


class TestBodies:
    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            ("application/json", b""),
            ("application/json", b"  "),
            ("application/json", b"{"),
            ("application/json", b"nope"),
            ("application/json", b"[{},"),
            ("application/json", b'[{"user_id":"a","event_type":"t","units":01}]'),
            ("application/json", b'[{"user_id":"a","event_type":"t","units":NaN}]'),
            ("application/json", b'[{"user_id":"a","event_type":"t","units":+1}]'),
            ("application/json", b"[" * 100_000),
            ("application/json", b"[]]"),
            ("application/json", b"\xff\xfe"),
            ("application/msgpack", b""),
            ("application/msgpack", b"\xc1"),
            ("application/msgpack", b"\x92\x80"),
            ("application/msgpack", b"\xdc\x00"),
            ("application/msgpack", b"\x91" * 100_000),
            ("application/msgpack", b"\x90\x90"),
            ("application/cloudevents+json", b"{"),
            ("application/cloudevents-batch+json", b"{}"),
            ("application/cloudevents-batch+json", b"[{]"),
        ],
        ids=lambda value: repr(value)[:32],
    )
    def test_an_unreadable_one_is_refused_whole(self, media_type: str, body: bytes) -> None:
        with pytest.raises(TaximeterError) as raised:
            read(media_type, body, TERMS)

        assert raised.value.code == "body_invalid"
        assert raised.value.message.startswith("body: expected ")

    def test_an_unknown_content_type_is_refused(self) -> None:
        with pytest.raises(TaximeterError) as raised:
            read("text/plain", b"{}", TERMS)

        assert raised.value.code == "content_type_unsupported"
        assert "application/x-ndjson" in raised.value.message

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            ("application/json", json.dumps([GOOD] * 4).encode()),
            ("application/json", json.dumps([5] * 4).encode()),
            ("application/json", b"[" + b"1," * 1000 + b"1]"),
            ("application/x-ndjson", b"\n".join([json.dumps(GOOD).encode()] * 4)),
            ("application/x-ndjson", b"\n" * 4),
            ("application/msgpack", pack([GOOD] * 4)),
            ("application/msgpack", b"\xdd\xff\xff\xff\xff"),
            ("application/cloudevents-batch+json", b"[{},{},{},{}]"),
        ],
        ids=lambda value: repr(value)[:32],
    )
    def test_one_with_too_many_events_is_refused_whole(self, media_type: str, body: bytes) -> None:
        with pytest.raises(TaximeterError) as raised:
            read(media_type, body, TERMS._replace(events_max=3))

        assert raised.value.code == "too_many_events"
        assert raised.value.message == "body: expected at most 3 events; send it in parts"

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [("application/json", b" []"), ("application/x-ndjson", b""), ("application/msgpack", b"\x90")],
    )
    def test_an_empty_batch_holds_nothing(self, media_type: str, body: bytes) -> None:
        assert read(media_type, body, TERMS) == Reading({}, [])

    def test_a_bad_line_spoils_only_itself(self) -> None:
        lines = [b'{"user_id":"a","event_type":"t"}', b"{oops", b"", b'{"user_id":"b","event_type":"t"}\r', b"  "]

        reading = read("application/x-ndjson", b"\n".join(lines), TERMS)

        assert [(event.index, event.user_id) for event in reading.events] == [(0, "a"), (2, "b")]
        (rejection,) = reading.rejections
        assert (rejection.index, rejection.code) == (1, "event_invalid")
        assert rejection.message.startswith("event: can't be read: JSON is malformed")

    def test_two_events_in_a_line_are_none(self) -> None:
        reading = read(
            "application/x-ndjson", b'{"user_id":"a","event_type":"t"}{"user_id":"b","event_type":"t"}', TERMS
        )

        assert refused(reading).code == "event_invalid"

    def test_msgpack_names_that_are_no_strings_are_refused(self) -> None:
        reading = read("application/msgpack", pack({1: 2}), TERMS)

        assert refused(reading).message == "event: expected an object, got one whose names are not all strings"
