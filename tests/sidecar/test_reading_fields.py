"""Every field of an event: what is accepted, and how everything else is refused, by name."""

import json

import msgspec
import pytest

from sidecar.reading import Rejection, read
from tests.sidecar.support import GOOD, MOMENT, NOW_US, TERMS, only, pack, read_json, refused


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
