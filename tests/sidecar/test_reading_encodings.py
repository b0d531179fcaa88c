"""One event, however it is written, is one event; and no bytes whatever bring the reader down."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.contract.codes import CODES, TaximeterError
from sidecar.contract.event import Event
from sidecar.fields import time_text, time_us_of
from sidecar.reading import MEDIA_TYPES, Reading, read
from tests.sidecar.support import NOW_US, TERMS

strings = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
decimals = st.decimals(-(10**14), 10**14, allow_nan=False, places=6).map(lambda value: f"{value:f}")
good_events = st.fixed_dictionaries(
    {"user_id": strings, "event_type": strings},
    optional={
        "id": strings,
        "source": strings,
        "units": decimals | st.integers(-(10**15) + 1, 10**15 - 1),
        "timestamp": st.integers(NOW_US - 10**14, NOW_US).map(time_text),
        "properties": st.dictionaries(strings, strings | st.booleans() | st.integers(-(2**63), 2**63 - 1), max_size=4),
    },
)
bad_events: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers(0, 9), max_size=2),
    st.fixed_dictionaries({"user_id": strings}),
    st.fixed_dictionaries({"user_id": strings, "event_type": strings, "units": st.just("ten") | st.none()}),
    st.fixed_dictionaries({"user_id": strings, "event_type": strings, "timestamp": st.integers(0, 2**63)}),
    st.fixed_dictionaries({"user_id": strings, "event_type": strings, "typo": st.integers(0, 9)}),
    st.fixed_dictionaries({"user_id": strings, "event_type": strings, "properties": st.just({"a": []})}),
    st.fixed_dictionaries({"user_id": st.just("\udc80"), "event_type": strings}),
)


def as_json(events: list[Any]) -> bytes:
    return json.dumps(events).encode()


def as_ndjson(events: list[Any]) -> bytes:
    return b"\n".join(json.dumps(event).encode() for event in events)


def as_msgpack(events: list[Any]) -> bytes:
    return msgspec.msgpack.encode(events)


ENCODERS = {"application/json": as_json, "application/x-ndjson": as_ndjson, "application/msgpack": as_msgpack}


@settings(deadline=None)
@given(events=st.lists(good_events, max_size=5))
def test_json_ndjson_and_msgpack_mean_the_same(events: list[Any]) -> None:
    readings = [read(media_type, encode(events), TERMS) for media_type, encode in ENCODERS.items()]

    assert readings[0].rejections == []
    assert len(readings[0].events) == len(events)
    for reading in readings[1:]:
        assert (reading.events, reading.rejections) == (readings[0].events, [])


@settings(deadline=None)
@given(
    event=good_events,
    event_id=strings,
    source=strings,
)
def test_a_cloudevent_is_the_same_event(event: dict[str, Any], event_id: str, source: str) -> None:
    # Given an event and the CloudEvent that says the same
    event = {**event, "id": event_id, "source": source}
    event.get("properties", {}).pop("units", None)
    data = {**event.get("properties", {}), "units": event.get("units", 1)}
    cloud = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "subject": event["user_id"],
        "type": event["event_type"],
        "data": data,
        "traceparent": "an extension attribute",
    }
    if "timestamp" in event:
        cloud["time"] = event["timestamp"]

    # When both are read
    plain = read("application/json", json.dumps(event).encode(), TERMS)
    single = read("application/cloudevents+json", json.dumps(cloud).encode(), TERMS)
    batch = read("application/cloudevents-batch+json", json.dumps([cloud]).encode(), TERMS)

    # Then they are one event
    assert plain.rejections == []
    assert (single.events, single.rejections) == (plain.events, [])
    assert (batch.events, batch.rejections) == (plain.events, [])


@settings(deadline=None)
@given(data=st.data(), media_type=st.sampled_from(sorted(ENCODERS)))
def test_bad_events_never_spoil_their_neighbours(data: st.DataObject, media_type: str) -> None:
    # Given good and bad events in any order
    if media_type == "application/msgpack":  # its strings are UTF-8: a lone surrogate can't be written
        bad = bad_events.filter(lambda event: not (isinstance(event, dict) and event.get("user_id") == "\udc80"))
    else:
        bad = bad_events
    mixed = data.draw(st.lists(st.tuples(st.just("good"), good_events) | st.tuples(st.just("bad"), bad), max_size=8))

    # When they are read together
    reading = read(media_type, ENCODERS[media_type]([event for _, event in mixed]), TERMS)

    # Then each has the fate that it has alone
    alone = [read(media_type, ENCODERS[media_type]([event]), TERMS) for _, event in mixed]
    assert [event.index for event in reading.events] == [at for at, (kind, _) in enumerate(mixed) if kind == "good"]
    assert [rejection.index for rejection in reading.rejections] == [
        at for at, (kind, _) in enumerate(mixed) if kind == "bad"
    ]
    assert [unplaced(event) for event in reading.events] == [
        unplaced(event) for single in alone for event in single.events
    ]
    assert [rejection.message for rejection in reading.rejections] == [
        rejection.message for single in alone for rejection in single.rejections
    ]


def unplaced(event: Event) -> Event:
    return msgspec.structs.replace(event, index=0)


def read_or_refuse(media_type: str, body: bytes) -> Reading | str:
    try:
        return read(media_type, body, TERMS)
    except TaximeterError as error:
        return error.code


def check_any(media_type: str, body: bytes) -> None:
    reading = read_or_refuse(media_type, body)
    if isinstance(reading, str):
        assert reading in {"body_invalid", "too_many_events"}
        return
    for rejection in reading.rejections:
        assert rejection.code in CODES
        assert rejection.message.isprintable()
        assert len(rejection.message) < 1000
    for event in reading.events:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@settings(deadline=None)
@given(media_type=st.sampled_from(MEDIA_TYPES), body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(media_type: str, body: bytes) -> None:
    check_any(media_type, body)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), media_type=st.sampled_from(sorted(ENCODERS)))
def test_a_damaged_body_is_read_or_refused(data: st.DataObject, media_type: str) -> None:
    body = bytearray(ENCODERS[media_type](data.draw(st.lists(good_events, min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(body)))
    check_any(media_type, bytes(body[:end]))
    check_any(media_type, bytes(body))


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_json_is_read_or_refused(value: object) -> None:
    for media_type in MEDIA_TYPES:
        if "json" in media_type:
            check_any(media_type, json.dumps(value).encode())
            check_any(media_type, json.dumps([value, {"user_id": value}]).encode())


@settings(deadline=None)
@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_time_survives_its_text(time_us: int) -> None:
    assert time_us_of(time_text(time_us)) == time_us


CLOUD = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "u"}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"specversion": "0.3"}, "event_invalid", 'specversion: expected "1.0", got "0.3"'),
        ({"specversion": None}, "event_invalid", 'specversion: expected "1.0", got none'),
        ({"id": None}, "event_invalid", "id: expected a string, but the attribute is missing"),
        ({"subject": None}, "user_id_invalid", "subject: expected a string, but the field is missing"),
        ({"subject": 5}, "user_id_invalid", "subject: expected a string, got 5"),
        (
            {"subject": "\x01"},
            "user_id_invalid",
            'subject: expected no control characters or lone surrogates, got "\\x01"',
        ),
        ({"type": ""}, "event_type_invalid", "type: expected a string of 1 to 256 bytes, got an empty one"),
        ({"time": "yesterday"}, "timestamp_invalid", None),
        ({"data": {"units": "ten"}}, "units_invalid", 'data.units: expected a decimal below 10^15, got "ten"'),
        (
            {"data": {"region": []}},
            "properties_invalid",
            "data.region: expected a string, number or boolean, got an array",
        ),
        ({"data": 5}, "properties_invalid", None),
        ({"data_base64": "AA=="}, "event_invalid", "data_base64: expected data as a JSON object"),
        ({"datacontenttype": "text/xml"}, "event_invalid", 'datacontenttype: expected JSON, got "text/xml"'),
    ],
)
def test_a_bad_cloudevent_is_refused_in_its_own_words(change: dict[str, Any], code: str, message: str | None) -> None:
    reading = read("application/cloudevents-batch+json", json.dumps([{**CLOUD, **change}, CLOUD]).encode(), TERMS)

    assert len(reading.events) == 1
    (rejection,) = reading.rejections
    assert rejection.code == code
    if message is not None:
        assert rejection.message == message
    if change.get("time"):
        assert rejection.message.startswith("time: ")
