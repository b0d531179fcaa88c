"""What `track` writes is what the sidecar's reader reads: both are run against each other on any values."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.client.encoding import Moments, body_of, encode_event, events_of, shown
from sidecar.contract.units import NANO, from_decimal
from sidecar.reading import Terms, read
from tests.sidecar.support import NOW_US, TERMS, read_json

NOW = datetime(2025, 7, 21, 9, 34, 21, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=64)
UNITS = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.decimals(-(10**15) + 1, 10**15 - 1, places=9, allow_nan=False),
    st.decimals(-(10**6), 10**6, places=2, allow_nan=False).map(Decimal.normalize),
)
MOMENTS = st.builds(
    lambda age_us, offset: (NOW - timedelta(microseconds=age_us)).astimezone(timezone(timedelta(minutes=offset))),
    st.integers(0, 10**15 // 10),
    st.integers(-14 * 60, 14 * 60),
)
NUMBERS = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(-1e15, 1e15).map(lambda value: round(value, 6))
)
PROPERTIES = st.dictionaries(TEXT, st.one_of(TEXT, NUMBERS), max_size=8)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, UNITS, st.none() | TEXT, st.none() | TEXT, MOMENTS, PROPERTIES)
def test_every_event_is_read_as_it_was_tracked(
    user_id: str,
    event_type: str,
    units: int | Decimal,
    event_id: str | None,
    source: str | None,
    moment: datetime,
    properties: dict[str, Any],
) -> None:
    encoded = encode_event(user_id, event_type, units, event_id, source, moment, properties)
    reading = read("application/msgpack", body_of([encoded, encoded]), TERMS)

    assert reading.rejections == []
    event = reading.events[0]
    assert (event.user_id, event.event_type, event.id, event.source) == (user_id, event_type, event_id, source or "")
    assert event.nanos == (units * NANO if isinstance(units, int) else from_decimal(units))
    assert event.time_us == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    # and the same in JSON is the same event
    timestamp = moment.isoformat()
    body = {"user_id": user_id, "event_type": event_type, "units": format(Decimal(units), "f"), "timestamp": timestamp}
    given_ones = {"id": event_id, "source": source, "properties": properties or None}
    (same,) = read_json(body | {name: value for name, value in given_ones.items() if value is not None}).events
    assert (same.fingerprint, same.properties) == (event.fingerprint, event.properties)


@settings(max_examples=60, deadline=None)
@given(st.decimals(-(10**18), 10**18, allow_nan=False))
def test_a_decimal_among_the_properties_stays_exact_or_is_refused(value: Decimal) -> None:
    try:
        encoded = encode_event("cus_1", "api_call", 1, None, None, NOW, {"a": value})
    except ValueError:
        assert len(value.as_tuple().digits) > 15
        return
    reading = read("application/msgpack", encoded, TERMS)
    if reading.events:  # the sidecar may find it too small or too large
        _, _, text = reading.events[0].properties.rstrip("}").partition(":")
        assert Decimal(text) == value


def test_the_time_now_is_read_as_now() -> None:
    before = datetime.now(UTC)
    moments = [datetime.fromisoformat(shown(encode_event("u", "e", 1, None, None, None, None))["timestamp"])]
    moments.append(datetime.fromisoformat(shown(encode_event("u", "e", 1, None, None, None, None))["timestamp"]))
    assert before <= moments[0] <= moments[1] <= datetime.now(UTC)
    encoded = encode_event("u", "e", 1, None, None, None, None)
    now_us = int(moments[1].timestamp()) * 1_000_000
    terms = Terms(now_us + 60_000_000, 0, TERMS.revision, 4, TERMS.random_bytes)
    (event,) = read("application/msgpack", body_of([encoded]), terms).events
    assert abs(event.time_us - now_us) < 60_000_000
    assert event.time_us > NOW_US


def test_an_id_alone_goes_without_a_time_so_that_the_same_id_is_the_same_event() -> None:
    assert "timestamp" not in shown(encode_event("u", "e", 1, "id", None, None, None))
    assert shown(encode_event("u", "e", 1, "id", None, NOW, None))["timestamp"] == NOW.isoformat()
    assert "timestamp" in shown(encode_event("u", "e", 1, None, "source", None, None))


def test_the_time_has_all_its_digits_in_every_second() -> None:
    moments = Moments()
    for time_us in (0, 1, 999_999, 1_000_000, 1_753_090_461_007_003, 1_753_090_461_070_030, 1_753_090_460_999_999):
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
        assert moments.text(time_us) == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=1).filter(lambda one: one[0] < 0x80), max_size=40))
def test_a_body_is_taken_apart_into_what_it_was_made_of(events: list[bytes]) -> None:
    assert events_of(body_of(events)) == events
