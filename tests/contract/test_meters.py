"""Meters: which events they count, with how much, under which dimensions."""

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.event import Event
from sidecar.contract.meters import (
    NO_DIMENSIONS,
    WINDOW_US,
    Amount,
    Counter,
    Meter,
    Revision,
    Share,
    Value,
    canonical_dimensions,
    decode_revision,
    encode_meters,
    property_nanos,
    property_text,
)
from sidecar.contract.units import NANO, NANOS_BOUND
from tests.contract.values import JULY_US, an_event, nanos

REGIONS = ("eu", "us", "asia")


def shares(properties: dict[str, object] | str, *meters: Meter, nanos: int = NANO, events: int = 1) -> list[Share]:
    """Returns what events of type `call` with these properties add to meters."""
    text = properties if isinstance(properties, str) else json.dumps(properties)
    return Revision(1, meters).shares("call", text, nanos, events)


def meter(**keys: object) -> Meter:
    """Returns a meter of type `call`, as the wire would bring it."""
    return msgspec.convert({"name": "calls", "event_type": "call", **keys}, Meter)


# -- what is counted


def test_an_event_type_that_no_meter_names_feeds_a_meter_of_its_own_name() -> None:
    assert Revision(0, []).shares("call", "", 5) == [Share("call", NO_DIMENSIONS, 5)]
    other = Revision(1, [meter(event_type="other", name="other")])
    assert other.shares("call", '{"region":"eu"}', 5) == [Share("call", NO_DIMENSIONS, 5)]


def test_a_meter_of_that_name_that_counts_something_else_is_never_fed_by_it() -> None:
    revision = Revision(1, [Meter("call", "other")])
    assert revision.shares("call", "", 5) == []
    problem = revision.problem("call", {})
    assert problem is not None
    assert problem.startswith("event_type: ")
    assert revision.problem("other", {}) is None


def test_every_meter_of_the_type_counts_apart() -> None:
    found = shares({}, meter(name="a"), meter(name="b", aggregation="count"), meter(name="c", event_type="other"))
    assert found == [Share("a", NO_DIMENSIONS, NANO), Share("b", NO_DIMENSIONS, NANO)]


def test_sum_adds_the_units_and_count_adds_one_an_event() -> None:
    assert shares({}, meter(), nanos=-7) == [Share("calls", NO_DIMENSIONS, -7)]
    assert shares({}, meter(aggregation="count"), nanos=-7) == [Share("calls", NO_DIMENSIONS, NANO)]
    assert shares({}, meter(aggregation="count"), nanos=0, events=4) == [Share("calls", NO_DIMENSIONS, 4 * NANO)]


@pytest.mark.parametrize(
    ("properties", "counts"),
    [
        ({"region": "eu", "tier": "pro"}, True),
        ({"region": "us", "tier": "pro", "more": 1}, True),
        ({"region": "asia", "tier": "pro"}, False),
        ({"region": "eu", "tier": "free"}, False),
        ({"region": "eu"}, False),  # a missing property never matches
        ({"region": "", "tier": "pro"}, False),
        ({}, False),
    ],
)
def test_an_event_counts_when_every_key_of_the_filter_matches(properties: dict[str, object], counts: bool) -> None:
    filtered = meter(filter={"region": ["eu", "us"], "tier": ["pro"]})
    assert bool(shares(properties, filtered)) == counts
    assert bool(shares(properties, meter(filter=filtered.filter, aggregation="count"))) == counts


def test_numbers_and_booleans_match_by_their_text() -> None:
    assert shares({"n": 1.50}, meter(filter={"n": ["1.5"]}))
    assert shares('{"n":1.0}', meter(filter={"n": ["1"]}))
    assert shares({"n": 100}, meter(filter={"n": ["100"]}))
    assert shares({"n": True}, meter(filter={"n": ["true"]}))
    assert not shares({"n": True}, meter(filter={"n": ["1", "True"]}))
    assert not shares({"n": 1}, meter(filter={"n": ["true"]}))


def test_an_empty_filter_matches_everything_and_an_empty_list_nothing() -> None:
    assert shares({}, meter(filter={}))
    assert shares({"n": 1}, meter(filter={"n": []})) == []


def test_a_property_is_summed_exactly() -> None:
    bytes_meter = meter(field="properties.bytes")
    assert shares('{"bytes":0.1}', bytes_meter) == [Share("calls", NO_DIMENSIONS, NANO // 10)]
    assert shares('{"bytes":999999999999999.999999999}', bytes_meter)[0].nanos == NANOS_BOUND - 1
    assert shares({"bytes": -3}, bytes_meter)[0].nanos == -3 * NANO
    assert shares({"bytes": 3}, bytes_meter, events=5)[0].nanos == 15 * NANO


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"bytes": "3"},
        {"bytes": True},
        {"bytes": 10**15},
        '{"bytes":0.0000000001}',
        '{"bytes":1e15}',
        '{"bytes":1e300}',
    ],
)
def test_a_property_that_is_no_number_in_the_limits_adds_nothing(properties: dict[str, object] | str) -> None:
    assert shares(properties, meter(field="properties.bytes")) == []


def test_an_event_that_a_meter_could_not_sum_is_named_before_it_is_accepted() -> None:
    # what `shares` would leave out silently is refused at the edge, but for a missing property
    revision = Revision(1, [meter(field="properties.bytes", filter={"region": ["eu"]})])
    assert revision.problem("call", {"region": "eu", "bytes": 3}) is None
    assert revision.problem("call", {"region": "eu"}) is None
    assert revision.problem("call", {"region": "us", "bytes": "three"}) is None
    assert revision.problem("other", {"bytes": "three"}) is None
    problem = revision.problem("call", {"region": "eu", "bytes": "three"})
    assert problem is not None
    assert problem.startswith("properties.bytes: ")
    assert "'three'" in problem


# -- dimensions


def test_dimensions_are_the_texts_of_the_group_properties_in_one_canonical_form() -> None:
    grouped = meter(group_by=["region", "n", "flag"])
    one = shares('{"region":"eu","n":1.50,"flag":true,"other":1}', grouped)
    other = shares('{"flag":true,"n":1.5,"region":"eu"}', grouped)
    assert one == other
    assert one[0].dimensions == '{"flag":"true","n":"1.5","region":"eu"}'
    assert canonical_dimensions('{ "region": "eu", "n": "1.5", "flag": "true" }') == one[0].dimensions


def test_a_missing_property_is_a_missing_dimension() -> None:
    assert shares({"n": 1}, meter(group_by=["region"])) == [Share("calls", NO_DIMENSIONS, NANO)]
    assert shares("", meter(group_by=["region"])) == [Share("calls", NO_DIMENSIONS, NANO)]
    # and an empty string is a value
    assert shares({"region": ""}, meter(group_by=["region"]))[0].dimensions == '{"region":""}'


@given(st.decimals(allow_nan=False, allow_infinity=False, places=40, min_value=-(10**40), max_value=10**40))
def test_the_text_of_a_number_keeps_every_digit(value: Decimal) -> None:
    text = property_text(value)
    assert Decimal(text) == value
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        ("eu", "eu"),
        ("", ""),
        (10**39, str(10**39)),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.50"), "-0.5"),
        (Decimal("-0.0"), "0"),
        (Decimal("0.00"), "0"),
        (Decimal("12345678901234567890123456789.5"), "12345678901234567890123456789.5"),
    ],
)
def test_values_have_one_text(value: object, text: str) -> None:
    assert property_text(value) == text


@given(nanos)
def test_a_number_within_the_limits_is_read_as_nanos(value: int) -> None:
    assert property_nanos(Decimal(value).scaleb(-9)) == value
    if value % NANO == 0:
        assert property_nanos(value // NANO) == value


# -- the fold

events = st.builds(
    lambda user, type_, amount, window, region: an_event(
        user_id=user,
        event_type=type_,
        nanos=amount,
        time_us=JULY_US + window * WINDOW_US,
        properties=json.dumps({"region": region}) if region else "",
    ),
    st.sampled_from(["cus_1", "cus_2"]),
    st.sampled_from(["call", "other", "free"]),
    nanos,
    st.integers(-2, 2),
    st.sampled_from([*REGIONS, ""]),
)
REVISION = Revision(
    3,
    [
        meter(name="calls"),
        meter(name="by_region", group_by=["region"]),
        meter(name="in_europe", aggregation="count", filter={"region": ["eu"]}),
        meter(name="others", event_type="other", aggregation="count"),
    ],
)


def added(one: dict[Counter, Amount], other: dict[Counter, Amount]) -> dict[Counter, Amount]:
    """Returns the sum of two sets of counters."""
    total: dict[Counter, Amount] = {}
    for counters in (one, other):
        for counter, amount in counters.items():
            total.setdefault(counter, Amount()).add(amount.nanos, amount.events)
    return total


@given(st.lists(events, max_size=12), st.lists(events, max_size=12))
def test_the_fold_of_two_streams_in_a_row_is_the_sum_of_their_folds(one: list[Event], other: list[Event]) -> None:
    assert REVISION.fold([*one, *other]) == added(REVISION.fold(one), REVISION.fold(other))
    assert REVISION.fold(other, REVISION.fold(one)) == REVISION.fold([*one, *other])


@given(st.lists(events, max_size=12), st.randoms())
def test_the_order_of_events_does_not_matter(stream: list[Event], random: object) -> None:
    shuffled = sorted(stream, key=lambda event: (event.user_id, event.nanos, event.time_us))
    assert REVISION.fold(shuffled) == REVISION.fold(stream)


@given(st.lists(events, max_size=20))
def test_the_fold_is_what_a_plain_dictionary_says(stream: list[Event]) -> None:
    wanted: dict[tuple[str, str, int, str], list[int]] = {}

    def count(event: Event, name: str, amount: int, dimensions: str = "{}") -> None:
        entry = wanted.setdefault((event.user_id, name, event.time_us // WINDOW_US, dimensions), [0, 0])
        entry[0] += amount
        entry[1] += 1

    for event in stream:
        region = json.loads(event.properties)["region"] if event.properties else ""
        match event.event_type:
            case "call":
                count(event, "calls", event.nanos)
                count(
                    event,
                    "by_region",
                    event.nanos,
                    json.dumps({"region": region}, separators=(",", ":")) if region else "{}",
                )
                if region == "eu":
                    count(event, "in_europe", NANO)
            case "other":
                count(event, "others", NANO)
            case name:
                count(event, name, event.nanos)
    found = REVISION.fold(stream)
    assert {tuple(counter): [amount.nanos, amount.events] for counter, amount in found.items()} == wanted


def test_windows_are_quarters_of_an_hour_from_the_epoch_half_open() -> None:
    def window(time_us: int) -> int:
        (counter,) = REVISION.fold([an_event(time_us=time_us)])
        return counter.window

    assert window(0) == 0
    assert window(WINDOW_US - 1) == 0
    assert window(WINDOW_US) == 1
    assert window(-1) == -1
    assert WINDOW_US == 15 * 60 * 1_000_000


# -- the wire form


def test_meters_survive_the_wire() -> None:
    wire = encode_meters(REVISION.meters)
    again = decode_revision(3, wire)
    assert again.meters == REVISION.meters
    assert again.number == 3
    assert encode_meters(again.meters) == wire


# -- single events


def values(properties: dict[str, object], *meters: Meter, nanos: int = NANO) -> list[Value]:
    """Returns what one event of type `call` with these properties is to meters."""
    return Revision(1, meters).values("call", json.dumps(properties), nanos)


@pytest.mark.parametrize("aggregation", ["max", "min", "latest", "weighted_sum"])
def test_a_meter_that_sums_can_t_tell_keeps_the_number_of_each_event(aggregation: str) -> None:
    plain = meter(aggregation=aggregation)
    sizes = meter(name="sizes", aggregation=aggregation, field="properties.size", group_by=["region"])
    assert values({"size": 1.5, "region": "eu"}, plain, sizes, nanos=-7) == [
        Value("calls", NO_DIMENSIONS, -7, None),
        Value("sizes", '{"region":"eu"}', 3 * NANO // 2, None),
    ]
    assert values({"region": "eu"}, sizes) == []  # without the property it is not counted
    assert values({"size": "big"}, sizes) == []


def test_a_meter_whose_sums_are_enough_keeps_nothing_unless_it_is_detailed() -> None:
    plain = [meter(name=kind, aggregation=kind) for kind in ("sum", "count", "avg")]
    revision = Revision(1, plain)
    assert (revision.keeps_values("call"), values({}, *plain)) == (False, [])
    assert Revision(1, []).values("call", "", NANO) == []
    detailed = [meter(name=kind, aggregation=kind, detailed=True) for kind in ("sum", "count")]
    assert Revision(1, detailed).keeps_values("call")
    assert values({}, *detailed, nanos=5) == [
        Value("sum", NO_DIMENSIONS, 5, None),
        Value("count", NO_DIMENSIONS, NANO, None),
    ]


@pytest.mark.parametrize(
    ("value", "label", "nanos"),
    [("abc", "abc", 0), ("", "", 0), (True, "true", 0), (7, "7", 7 * NANO), (1.50, "1.5", 3 * NANO // 2)],
)
def test_unique_takes_every_value_by_its_text(value: object, label: str, nanos: int) -> None:
    visitors = meter(aggregation="unique", field="properties.session")
    assert values({"session": value}, visitors) == [Value("calls", NO_DIMENSIONS, nanos, label)]
    # counters hold what is a number of it, and the number of events
    assert shares({"session": value}, visitors, events=3) == [Share("calls", NO_DIMENSIONS, 3 * nanos)]
    assert Revision(1, [visitors]).problem("call", {"session": value}) is None
    assert (values({}, visitors), shares({}, visitors)) == ([], [])


@pytest.mark.parametrize("aggregation", ["sum", "max", "min", "avg", "latest", "weighted_sum"])
def test_what_is_no_number_is_refused_where_a_meter_reads_one(aggregation: str) -> None:
    revision = Revision(1, [meter(aggregation=aggregation, field="properties.size")])
    problem = revision.problem("call", {"size": "big"})
    assert problem is not None
    assert problem.startswith(f"properties.size: meter calls ({aggregation}) reads it, expected a number")
    assert revision.problem("call", {}) is None
    assert revision.problem("call", {"size": 3}) is None


def test_an_event_type_names_the_meters_that_it_feeds() -> None:
    revision = Revision(1, [meter(name="a"), meter(name="b"), meter(name="c", event_type="other")])
    assert [revision.fed_by(name) for name in ("call", "other", "new")] == [{"a", "b"}, {"c"}, {"new"}]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '[{"name":"a"}]',
        '[{"name":"a","event_type":"b","aggregation":"median"}]',
        '[{"name":"a","event_type":"b","surprise":1}]',
        '[{"name":"a","event_type":"b","group_by":"region"}]',
        "[",
    ],
)
def test_what_is_no_list_of_meters_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_revision(1, text)
