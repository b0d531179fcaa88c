"""Summed rows: whatever is sent, split, reordered or repeated, they add up to what single events do."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.law import Case, ClaimState, Court, Outcome, Tally, claim_keys, tally
from flusher.summed import Summing
from sidecar.contract.codec import Batch
from sidecar.contract.event import Event, Identity
from sidecar.contract.identity import claim_key, indexed_key
from sidecar.contract.meters import WINDOW_US, Amount, Counter, Meter, Revision
from tests.flusher.rulings import BASE_US, a_batch, a_claim, an_entry, settle

METERS = Revision(
    0,
    [
        Meter("calls", "call"),
        Meter("number", "call", "count", group_by=("region",)),
        Meter("bytes", "call", field="properties.bytes", filter={"region": ("eu",)}),
    ],
)
START_US = BASE_US // WINDOW_US * WINDOW_US


def keyed(index: int, user: str = "cus_1", units: int | str = 1, properties: str = "", later_us: int = 0) -> Event:
    """Returns an event at an index of the request "k"."""
    key = indexed_key(claim_key("k", 0), index)
    return Event(
        key, b"", Identity.INDEXED, index, START_US + later_us, user, "", None, "call", units, properties
    )  # its fingerprint follows from what it says


def stored(case: Case) -> list[tuple[Event, int]]:
    """Returns the rows of a case: an event, and of how many it is the sum."""
    events = case.batch.events
    singles = [(events[place], 1) for place in case.singles()]
    return singles + [(one.event, len(one.places)) for one in case.sums.values()]


def heard(
    batches: Sequence[Batch], *, summing: bool = True, revision: Revision = METERS, single: Sequence[str] = ()
) -> Court:
    """Returns a court that heard batches, each in a chunk of its own but for what it remembers."""
    court = Court({}, summing=Summing(lambda _: revision, frozenset(single)) if summing else None)
    for batch in batches:
        court.hear(an_entry(), batch)
    settle(court, {})
    return court


def rows_of(court: Court) -> list[tuple[Event, int]]:
    return [row for case in court.cases for row in stored(case)]


def counters(rows: Sequence[tuple[Event, int]], revision: Revision = METERS) -> dict[Counter, Amount]:
    """Returns what rows add up to when they are counted again."""
    found: dict[Counter, Amount] = {}
    for event, events in rows:
        for meter, dimensions, nanos in revision.shares(event.event_type, event.properties, event.nanos, events):
            counter = Counter(event.user_id, meter, event.time_us // WINDOW_US, dimensions)
            found.setdefault(counter, Amount()).add(nanos, events)
    return found


def request(*events: Event, digest: bytes = b"1" * 16) -> Batch:
    return a_batch(events, [a_claim("k", len(events), digest)])


def test_what_feeds_the_same_counters_is_one_row_with_sum_and_count() -> None:
    # given events of two users and two windows, of which what meters do not read differs
    events = [
        keyed(0, units="0.000000001", properties='{"other":1,"region":"eu"}', later_us=5),
        keyed(1, units=10**14, properties='{"other":2,"region":"eu"}'),
        keyed(2, properties='{"region":"us"}'),
        keyed(3, user="cus_2"),
        keyed(4, later_us=WINDOW_US),
        keyed(5, units=-3, later_us=WINDOW_US + 1),
    ]
    # when they are summed up
    court = heard([request(*events)])
    # then each row says what its events have in common, and one that is alone stays as it is
    (case,) = court.cases
    sums = [(one.event.time_us, one.event.units, one.event.properties, one.places) for one in case.sums.values()]
    assert sums == [
        (START_US, "100000000000000.000000001", '{"region":"eu"}', (0, 1)),
        (START_US + WINDOW_US, -2, "", (4, 5)),
    ]
    assert list(case.singles()) == [2, 3]
    assert court.claims[claim_key("k", 0)].summed == {0, 1, 4, 5}
    assert counters(rows_of(court)) == counters([(event, 1) for event in events])


def test_numbers_in_properties_stay_as_they_were_written() -> None:
    properties = '{"bytes":0.100000001,"region":"eu","z":1}'
    court = heard([request(*(keyed(index, properties=properties) for index in range(3)))])
    ((row, events),) = rows_of(court)
    assert (row.properties, events) == ('{"bytes":0.100000001,"region":"eu"}', 3)
    assert counters([(row, events)])[Counter("cus_1", "bytes", START_US // WINDOW_US, "{}")] == Amount(300_000_003, 3)


def test_a_retry_adds_what_it_newly_covers_and_never_meets_a_row_of_before() -> None:
    first, retry = request(*map(keyed, (0, 2))), request(*map(keyed, (0, 1, 2, 3)))
    court = heard([first, retry, retry])
    assert [(event.units, events) for event, events in rows_of(court)] == [(2, 2), (2, 2)]
    assert len({event.key for event, _ in rows_of(court)}) == 2
    tallies: dict[str, Tally] = {}
    tally(court.cases, tallies)
    assert tallies["producer-1"].events[Outcome.INSERTED] == 4
    assert tallies["producer-1"].events[Outcome.DUPLICATE] == 6


def test_another_body_under_the_key_adds_nothing() -> None:
    court = heard([request(*map(keyed, (0, 1))), request(*map(keyed, (2, 3)), digest=b"2" * 16)])
    assert [(event.units, events) for event, events in rows_of(court)] == [(2, 2)]


def test_events_with_ids_and_events_of_single_users_stay_single() -> None:
    other = Event(b"k" * 16, b"f" * 8, Identity.TIMED, 2, START_US, "cus_1", "", "e-1", "call", 1, "")
    events = [keyed(0), keyed(1), other, keyed(3, "cus_2"), keyed(4, "cus_2")]
    court = heard([request(*events)], single=["cus_2"])
    assert list(court.cases[0].singles()) == [2, 3, 4]


@pytest.mark.parametrize(
    ("keys", "summed"),
    [
        ({"aggregation": "count"}, True),
        ({"aggregation": "avg"}, True),
        ({"aggregation": "max"}, False),
        ({"aggregation": "weighted_sum"}, False),
        ({"aggregation": "sum", "detailed": True}, False),
    ],
)
def test_what_a_meter_needs_each_event_of_stays_single(keys: dict[str, object], summed: bool) -> None:
    meter = msgspec.convert({"name": "peak", "event_type": "call", **keys}, Meter)
    court = heard([request(keyed(0), keyed(1))], revision=Revision(0, [Meter("calls", "call"), meter]))
    assert bool(court.cases[0].sums) is summed


@pytest.mark.parametrize("floor_us", [START_US, START_US + 1])
def test_what_is_too_old_is_in_no_sum(floor_us: int) -> None:
    court = Court({}, event_floor_us=floor_us, summing=Summing(lambda _: METERS, frozenset()))
    court.hear(an_entry(), request(*(keyed(index, later_us=index) for index in range(4))))
    settle(court, {})
    (case,) = court.cases
    outcomes = [case.outcome(place) for place in range(4)]
    kept = floor_us - START_US + 1
    assert outcomes == [Outcome.QUARANTINED] * kept + [Outcome.INSERTED] * (4 - kept)
    assert [one.places for one in case.sums.values()] == [tuple(range(kept, 4))]


# -- both settings, whatever happens to the requests

BODIES = {
    body: [
        keyed(
            index,
            f"cus_{index % 2}",
            index + body,
            ("", '{"region":"eu"}', '{"bytes":7,"region":"eu"}', '{"other":1}')[index % 4],
            later_us=(index // 4) * WINDOW_US // 2,
        )
        for index in range(10)
    ]
    for body in (1, 2)
}


@st.composite
def requests(draw: st.DrawFn) -> Batch:
    """Draws a part of one of two bodies, as a sidecar may have accepted it."""
    body = draw(st.sampled_from([1, 1, 1, 2]))
    indices = draw(st.lists(st.integers(0, 9), unique=True, min_size=1).map(sorted))
    events = [BODIES[body][index] for index in indices]
    return request(*events, digest=bytes([body]) * 16)


@given(st.lists(st.lists(requests(), max_size=3), max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
@settings(max_examples=200, deadline=None)
def test_usage_is_the_same_in_both_settings_and_when_they_change(
    chunks: list[list[Batch]], summed_chunks: list[bool]
) -> None:
    results = []
    for settings_of_chunks in ([False] * 5, [True] * 5, summed_chunks):
        claims: dict[bytes, ClaimState] = {}
        events: dict[tuple[int, bytes], bytes] = {}
        rows: list[tuple[Event, int]] = []
        tallies: dict[str, Tally] = {}
        for chunk, summing in zip(chunks, settings_of_chunks, strict=False):
            wanted = {key for batch in chunk for key in claim_keys(batch)}
            known = {key: claims[key] for key in wanted & claims.keys()}
            court = Court(known, summing=Summing(lambda _: METERS, frozenset()) if summing else None)
            for batch in chunk:
                court.hear(an_entry(), batch)
            settle(court, events)
            claims |= court.claims
            rows += rows_of(court)
            tally(court.cases, tallies)
        covered = {key: (state.digest, state.covered) for key, state in claims.items()}
        results.append((counters(rows), tallies, covered))
    assert results[0] == results[1] == results[2]
