"""What a body of events is read as: every content type, every malformed field, neighbours unharmed."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import claim_key, event_key, indexed_key, shard_of
from sidecar.contract.meters import Meter, Revision
from sidecar.reading import Reading, Rejection, Terms, read

NOW_US = 1_753_090_461_000_000  # 2025-07-21T09:34:21Z
TERMS = Terms(now_us=NOW_US, floor_us=0, revision=Revision(0, []), shards=4, random_bytes=lambda count: b"r" * count)
MOMENT = datetime(2025, 7, 21, tzinfo=UTC)  # an extension type in msgpack
GOOD = {"user_id": "cus_1", "event_type": "api_call", "id": "good"}


pack = msgspec.msgpack.encode


def read_json(value: object, terms: Terms = TERMS) -> Reading:
    return read("application/json", json.dumps(value).encode(), terms)


def only(reading: Reading) -> Event:
    assert reading.rejections == []
    (event,) = reading.events
    return event


def refused(reading: Reading) -> Rejection:
    assert reading.events == []
    (rejection,) = reading.rejections
    return rejection


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

        assert event.fingerprint.hex() == "49a8b137836d90fd"


class TestUnits:
    @pytest.mark.parametrize(
        ("written", "units"),
        [
            ("1", 1),
            ("0", 0),
            ("-0", 0),
            ("-7", -7),
            ("1.50", "1.5"),
            ("1.0", 1),
            ("0.000000001", "0.000000001"),
            ("999999999999999.999999999", "999999999999999.999999999"),
            ('"12.25"', "12.25"),
            ('"-0.10"', "-0.1"),
            ('"9007199254740993"', None),
            ("9007199254740.993", "9007199254740.993"),
        ],
    )
    def test_a_decimal_is_exact(self, written: str, units: int | str | None) -> None:
        body = f'{{"user_id":"u","event_type":"t","units":{written}}}'.encode()
        if units is None:
            assert refused(read("application/json", body, TERMS)).code == "units_invalid"
        else:
            assert only(read("application/json", body, TERMS)).units == units

    @pytest.mark.parametrize(
        ("written", "got"),
        [
            ("1e3", "1e3"),
            ("1E-3", "1E-3"),
            ("1.5e1000000", "1.5e1000000"),
            ("1000000000000000", "1000000000000000"),
            ("true", "true"),
            ("null", "null"),
            ("[1]", "an array"),
            ('{"a":1}', "an object"),
            ('"ten"', '"ten"'),
            ('"+1"', '"+1"'),
            ('"01"', '"01"'),
            ('"1e3"', '"1e3"'),
            ('"NaN"', '"NaN"'),
            ('"Infinity"', '"Infinity"'),
            ('"1_0"', '"1_0"'),
            ('" 1"', '" 1"'),
            ('""', '""'),
            ('"."', '"."'),
            ('".5"', '".5"'),
            ('"5."', '"5."'),
            ('"٣"', '"\\u0663"'),  # ARABIC-INDIC DIGIT THREE
            ('"a\\u0000b"', '"a\\x00b"'),
        ],
    )
    def test_anything_else_is_refused(self, written: str, got: str) -> None:
        body = f'{{"user_id":"u","event_type":"t","units":{written}}}'.encode()

        rejection = refused(read("application/json", body, TERMS))

        assert rejection.code == "units_invalid"
        assert rejection.message == f"units: expected a decimal below 10^15, got {got}"

    def test_a_tenth_fractional_digit_is_refused(self) -> None:
        rejection = refused(read_json({**GOOD, "units": "0.1234567891"}))

        assert rejection.message == 'units: expected at most 9 fractional digits, got "0.1234567891"'

    def test_a_long_value_is_not_repeated(self) -> None:
        rejection = refused(read_json({**GOOD, "units": "9" * 1000}))

        assert rejection.message == "units: expected a decimal below 10^15, got 1002 bytes"

    @pytest.mark.parametrize("value", [1.0, 1.5, float("nan"), float("inf")])
    def test_a_msgpack_float_is_refused(self, value: float) -> None:
        rejection = refused(read("application/msgpack", pack({**GOOD, "units": value}), TERMS))

        assert rejection.code == "units_invalid"
        assert rejection.message == f"units: expected a decimal below 10^15, got the float {value!r}"

    @pytest.mark.parametrize("value", [b"1", msgspec.msgpack.Ext(5, b"1"), MOMENT, 2**63, True, None])
    def test_msgpack_values_of_other_types_are_refused(self, value: object) -> None:
        rejection = refused(read("application/msgpack", pack({**GOOD, "units": value}), TERMS))

        assert rejection.code == "units_invalid"


class TestTimestamps:
    @pytest.mark.parametrize(
        ("written", "offset_us"),
        [
            ("2025-07-21T09:34:21Z", 0),
            ("2025-07-21t09:34:21z", 0),
            ("2025-07-21T09:34:21+00:00", 0),
            ("2025-07-21T09:34:21-00:00", 0),
            ("2025-07-21T11:34:21+02:00", 0),
            ("2025-07-21T04:04:21-05:30", 0),
            ("2025-07-21T09:34:21.5Z", 500_000),
            ("2025-07-21T09:34:21.000001Z", 1),
            ("2025-07-21T09:39:21Z", 300_000_000),
        ],
    )
    def test_an_offset_is_converted_to_utc(self, written: str, offset_us: int) -> None:
        assert only(read_json({**GOOD, "timestamp": written})).time_us == NOW_US + offset_us

    @pytest.mark.parametrize(
        "written",
        [
            "2025-07-21T09:34:21",
            "2025-07-21 09:34:21Z",
            "2025-07-21",
            "2025-7-21T09:34:21Z",
            "2025-02-30T09:34:21Z",
            "2025-07-21T24:00:00Z",
            "2025-07-21T09:34:60Z",
            "2025-07-21T09:34Z",
            "2025-07-21T09:34:21.1234567Z",
            "2025-07-21T09:34:21.Z",
            "2025-07-21T09:34:21,5Z",
            "2025-07-21T09:34:21+0200",
            "2025-07-21T09:34:21+24:00",
            "2025-07-21T09:34:21+02:60",
            "2025-07-21T09:34:21Z ",
            " 2025-07-21T09:34:21Z",
            "\uff12025-07-21T09:34:21Z",
            "0000-07-21T09:34:21Z",
            "1753090461",
            "now",
            "",
        ],
    )
    def test_anything_else_is_refused(self, written: str) -> None:
        rejection = refused(read_json({**GOOD, "timestamp": written}))

        assert rejection.code == "timestamp_invalid"
        assert rejection.message.startswith("timestamp: expected")

    @pytest.mark.parametrize("value", [1753090461, 1753090461.5, None, True, {}])
    def test_a_timestamp_is_a_string(self, value: object) -> None:
        assert refused(read_json({**GOOD, "timestamp": value})).code == "timestamp_invalid"

    def test_a_msgpack_timestamp_is_refused(self) -> None:
        body = pack({**GOOD, "timestamp": MOMENT})

        assert refused(read("application/msgpack", body, TERMS)).code == "timestamp_invalid"

    @pytest.mark.parametrize("written", ["2025-07-21T09:39:21.000001Z", "2020-07-01T00:00:00Z", "9999-12-31T23:59:59Z"])
    def test_a_time_far_off_is_refused(self, written: str) -> None:
        rejection = refused(read_json({**GOOD, "timestamp": written}))

        assert rejection.code == "timestamp_out_of_range"
        assert written in rejection.message

    def test_a_time_at_the_floor_is_too_old_and_one_behind_it_is_not(self) -> None:
        terms = TERMS._replace(floor_us=NOW_US - 1_000_000)

        assert refused(read_json({**GOOD, "timestamp": "2025-07-21T09:34:20Z"}, terms)).code == "too_old"
        assert only(read_json({**GOOD, "timestamp": "2025-07-21T09:34:20.000001Z"}, terms))


class TestStrings:
    FIELDS = ("user_id", "event_type", "id", "source")

    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("a\x00", 'expected no control characters or lone surrogates, got "a\\x00"'),
            ("a\n", 'expected no control characters or lone surrogates, got "a\\x0a"'),
            ("a\x7f", 'expected no control characters or lone surrogates, got "a\\x7f"'),
            ("a\x85", 'expected no control characters or lone surrogates, got "a\\x85"'),
            ("x" * 257, "expected at most 256 bytes, got 257"),
            ("é" * 129, "expected at most 256 bytes, got 258"),
            (5, "expected a string, got 5"),
            (1.50, "expected a string, got 1.5"),
            (True, "expected a string, got true"),
            ([], "expected a string, got an array"),
            ({}, "expected a string, got an object"),
        ],
        ids=lambda value: repr(value)[:12],
    )
    @pytest.mark.parametrize("encoding", ["json", "json, raw", "msgpack"])
    def test_a_bad_one_is_refused_by_name(self, field: str, value: object, problem: str, encoding: str) -> None:
        event = {**GOOD, field: value}
        if encoding == "msgpack":
            reading = read("application/msgpack", pack(event), TERMS)
        else:
            body = json.dumps(event, ensure_ascii=encoding == "json").encode()
            reading = read("application/json", body, TERMS)

        rejection = refused(reading)

        assert rejection.code == f"{field}_invalid"
        assert rejection.message == f"{field}: {problem}"
        assert rejection.id == (None if field == "id" else "good")

    @pytest.mark.parametrize("field", ["user_id", "event_type", "id"])
    def test_an_empty_one_is_refused(self, field: str) -> None:
        rejection = refused(read_json({**GOOD, field: ""}))

        assert rejection.code == f"{field}_invalid"
        assert rejection.message == f"{field}: expected a string of 1 to 256 bytes, got an empty one"

    def test_an_empty_source_is_none(self) -> None:
        assert only(read_json({**GOOD, "source": ""})).key == only(read_json(GOOD)).key

    @pytest.mark.parametrize("field", ["user_id", "event_type"])
    def test_a_missing_one_is_refused(self, field: str) -> None:
        event = {name: value for name, value in GOOD.items() if name != field}

        rejection = refused(read_json(event))

        assert rejection.code == f"{field}_invalid"
        assert rejection.message == f"{field}: expected a string, but the field is missing"

    @pytest.mark.parametrize("field", ["id", "source", "timestamp"])
    def test_null_is_no_way_to_leave_a_field_out(self, field: str) -> None:
        rejection = refused(read_json({**GOOD, field: None}))

        assert rejection.message == f"{field}: expected a string, got null; leave the field out"

    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize("written", ['"\\ud800"', '"a\\udc00b"', '"a\\ud800\\u0041"'])
    def test_a_lone_surrogate_is_refused(self, field: str, written: str) -> None:
        fields = {name: json.dumps(value) for name, value in GOOD.items()} | {field: written}
        body = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"

        assert refused(read("application/json", f"[{body}]".encode(), TERMS)).code == f"{field}_invalid"

    def test_bytes_that_are_not_utf_8_spoil_only_their_event(self) -> None:
        body = b'[{"user_id":"a\xff","event_type":"t","id":"x"},{"user_id":"b","event_type":"t"}]'

        reading = read("application/json", body, TERMS)

        assert [event.user_id for event in reading.events] == ["b"]
        assert reading.rejections == [Rejection(0, "x", "user_id_invalid", "user_id: can't be read: not UTF-8")]

    def test_256_bytes_are_allowed_in_any_script(self) -> None:
        assert only(read_json({**GOOD, "user_id": "é" * 128})).user_id == "é" * 128
        assert only(read_json({**GOOD, "user_id": "x" * 256})).user_id == "x" * 256
        assert only(read_json({**GOOD, "user_id": "𝄞" * 64})).user_id == "𝄞" * 64


class TestProperties:
    @pytest.mark.parametrize(
        ("written", "text"),
        [
            ("{}", ""),
            ('{"b": 1, "a": "x", "c": true}', '{"a":"x","b":1,"c":true}'),
            ('{"a": 0.30}', '{"a":0.3}'),
            ('{"a": 3e-1}', '{"a":0.3}'),
            ('{"a": 1.0}', '{"a":1}'),
            ('{"a": 1e3}', '{"a":1000}'),
            ('{"a": -0.0}', '{"a":0}'),
            ('{"a": 0e999999}', '{"a":0}'),
            ('{"a": -12.50}', '{"a":-12.5}'),
            ('{"a": 123456789012345678901234567890}', '{"a":123456789012345678901234567890}'),
            ('{"a": 0.1234567890123456789}', '{"a":0.1234567890123456789}'),
            ('{"a": ""}', '{"a":""}'),
            ('{"a": "é\\n"}', None),
        ],
    )
    def test_they_have_one_canonical_form(self, written: str, text: str | None) -> None:
        body = f'{{"user_id":"u","event_type":"t","properties":{written}}}'.encode()
        if text is None:
            assert refused(read("application/json", body, TERMS)).code == "properties_invalid"
        else:
            assert only(read("application/json", body, TERMS)).properties == text

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("[]", "properties: expected an object, got an array"),
            ("null", "properties: expected an object, got null"),
            ('"x"', 'properties: expected an object, got "x"'),
            ('{"a": null}', "properties.a: expected a string, number or boolean, got null"),
            ('{"a": {}}', "properties.a: expected a string, number or boolean, got an object"),
            ('{"a": [1]}', "properties.a: expected a string, number or boolean, got an array"),
            ('{"": 1}', "properties: a name: expected a string of 1 to 256 bytes, got an empty one"),
            ('{"a\\u0000": 1}', 'properties: a name: expected no control characters or lone surrogates, got "a\\x00"'),
            ('{"a": "\\u009f"}', 'properties.a: expected no control characters or lone surrogates, got "\\x9f"'),
            ('{"a": "\\ud800"}', None),
            (
                '{"a": 1e40}',
                "properties.a: expected a number of at most 40 digits before and behind the point, got 1e40",
            ),
            (
                '{"a": 1e-41}',
                "properties.a: expected a number of at most 40 digits before and behind the point, got 1e-41",
            ),
            ('{"a": 1e99999999999999999999}', None),
            ('{"a": 1' + "0" * 40 + "}", None),
            ('{"a": 1' + "0" * 5000 + "}", None),
            ('{"a": 0.' + "1" * 41 + "}", None),
            ('{"a": 0.' + "1" * 5000 + "}", None),
            ("{" + ",".join(f'"k{number}":1' for number in range(33)) + "}", None),
        ],
        ids=lambda value: str(value)[:24],
    )
    def test_what_is_not_flat_and_bounded_is_refused(self, written: str, message: str | None) -> None:
        body = f'{{"user_id":"u","event_type":"t","properties":{written}}}'.encode()

        rejection = refused(read("application/json", body, TERMS))

        assert rejection.code == "properties_invalid"
        if message is not None:
            assert rejection.message == message

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", msgspec.msgpack.Ext(5, b"x"), MOMENT])
    def test_msgpack_values_of_other_types_are_refused(self, value: object) -> None:
        body = pack({**GOOD, "properties": {"a": value}})

        assert refused(read("application/msgpack", body, TERMS)).code == "properties_invalid"

    def test_a_msgpack_float_is_its_shortest_text(self) -> None:
        packed = read("application/msgpack", pack({**GOOD, "properties": {"a": 0.1, "b": 1e-7}}), TERMS)

        assert only(packed).properties == '{"a":0.1,"b":0.0000001}'

    def test_an_event_above_its_limit_is_refused(self) -> None:
        properties = {f"{number:0250}": "x" * 256 for number in range(32)}

        rejection = refused(read_json({**GOOD, "properties": properties}))

        assert rejection.code == "event_too_large"

    def test_what_a_meter_sums_has_to_be_a_number(self) -> None:
        meter = Meter(name="traffic", event_type="api_call", field="properties.bytes")
        terms = TERMS._replace(revision=Revision(1, [meter]))

        assert only(read_json({**GOOD, "properties": {"bytes": 5}}, terms))
        rejection = refused(read_json({**GOOD, "properties": {"bytes": "many"}}, terms))
        assert rejection.code == "properties_invalid"
        assert rejection.message.startswith("properties.bytes: meter traffic sums it")


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
        assert read(media_type, body, TERMS) == Reading([], [])

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
