"""What batches add up to: what Redis counted and what differs come to what counts, whatever Redis took for repeats."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.adding import Counters, Gathered, sum_of
from flusher.law import Case, Decision, Outcome
from sidecar.contract.event import Event, Identity
from sidecar.contract.meters import WINDOW_US, Meter, Revision
from tests.flusher.rulings import BASE_US, a_batch, an_entry

METERS = Revision(
    0,
    [
        Meter("calls", "call", "count", group_by=("region",)),
        Meter("units", "call"),
        Meter("size", "call", field="properties.size"),
    ],
)
EVENTS = [
    Event(
        number.to_bytes(16, "big"),
        bytes(8),
        Identity.TIMED,
        number,
        BASE_US + number % 3 * WINDOW_US,
        f"cus_{number % 2}",
        "",
        f"e-{number}",
        ("call", "other")[number % 5 == 0],
        (1, -1, "0.5", 0)[number % 4],
        ("", '{"region":"eu","size":3}')[number % 2],
    )
    for number in range(12)
]
places = st.sets(st.integers(0, len(EVENTS) - 1))


@given(places, places, places, st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_redis_counted_and_what_differs_is_what_counts(
    duplicates: set[int], conflicts: set[int], decided: set[int], opaque: bool
) -> None:
    # given a batch of which Redis took some for repeats and Postgres others, or that Redis did not look into
    entry = an_entry(sorted(conflicts), sorted(duplicates - conflicts))._replace(opaque=opaque)
    case = Case(entry, a_batch(EVENTS), dict.fromkeys(decided, Decision(Outcome.DUPLICATE)), settled=True)
    counted: Counters = {}
    differences: Counters = {}
    gathered = Gathered()
    # when both are added up
    gathered.add_counted(entry, case.batch)
    gathered.fold(lambda _: METERS, counted)
    gathered.add_difference(case)
    gathered.fold(lambda _: METERS, differences)
    # then they are what one finds event by event
    repeats = set(range(len(EVENTS))) if opaque else duplicates | conflicts
    assert counted == METERS.fold(event for place, event in enumerate(EVENTS) if place not in repeats)
    assert sum_of(counted, differences) == METERS.fold(
        event for place, event in enumerate(EVENTS) if place not in decided
    )
    # and what is taken out again leaves nothing
    gathered.add_counted(entry, case.batch)
    gathered.add_counted(entry, case.batch, -1)
    nothing: Counters = {}
    gathered.fold(lambda _: METERS, nothing)
    assert nothing == {}
