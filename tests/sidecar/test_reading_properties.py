"""Properties: one canonical form, flat and bounded."""

import msgspec
import pytest

from sidecar.contract.meters import Meter, Revision
from sidecar.reading import read
from tests.sidecar.support import GOOD, MOMENT, TERMS, only, pack, read_json, refused


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
            ('{"\u00e9.b": []}', 'properties."\\xe9.b": expected a string, number or boolean, got an array'),
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
        assert rejection.message.startswith("properties.bytes: meter traffic (sum) reads it")
