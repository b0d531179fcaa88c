"""live.lua and inspect.lua: everything at one moment, or "again"."""

from typing import Any

import pytest

from sidecar.contract import keys, scripts
from sidecar.contract.meters import WINDOW_US, Amount, Counter, Meter, Revision
from sidecar.contract.scripts import DayTotals
from sidecar.contract.units import NANO, join
from tests.contract.store import GENERATION, Producer, Store, folded
from tests.contract.values import JULY_US, LARGEST, a_batch, an_event

WINDOW = JULY_US // WINDOW_US
DAY = keys.day_of(WINDOW)
WINDOWS = (DAY * keys.WINDOWS_PER_DAY, (DAY + 1) * keys.WINDOWS_PER_DAY)
METERS = Revision(1, [Meter("calls", "call"), Meter("calls_by", "call", group_by=("region",)), Meter("c", "other")])


@pytest.fixture
def producer(store: Store) -> Producer:
    """The producer of an open generation."""
    made = Producer()
    store.open(made)
    return made


def parsed(flat: list[bytes]) -> dict[Counter, Amount]:
    """Returns the counters of one of the lists in live's reply."""
    found: dict[Counter, Amount] = {}
    for at in range(0, len(flat), 5):
        events, low, middle, high = (int(value) for value in flat[at + 1 : at + 5])
        found[keys.decode_counter_field(flat[at].decode())] = Amount(join(low, middle, high), events)
    return found


def live(
    store: Store, sealed: str = "", user: str = "cus_1", meter: str | None = None, windows: tuple[int, int] = WINDOWS
) -> Any:
    """Returns live's reply, with counters as values."""
    reply = store.run(scripts.live(0, GENERATION, sealed, user, meter, windows))
    return (parsed(reply[1]), parsed(reply[2]), reply[3]) if reply[0] == b"ok" else reply


def test_open_sealed_and_committed_are_read_at_once(store: Store, producer: Producer) -> None:
    # given usage that is committed, more that is sealed, and more that is open
    committed = an_event("e-1", nanos=1)
    store.ingest(producer, a_batch([committed]))
    store.run(scripts.seal(0, GENERATION, "token-1"))
    totals = DayTotals("cus_1", DAY, 4_000_000_000, {"total": "1 0.000000001"})
    store.run(scripts.publish(0, GENERATION, "token-1", [], [totals]))
    assert live(store) == ({}, {}, [[b"total", b"1 0.000000001"]])
    sealed, opened = an_event("e-2", nanos=LARGEST), an_event("e-3", nanos=-LARGEST)
    store.ingest(producer, a_batch([sealed]))
    store.run(scripts.seal(0, GENERATION, "token-2"))
    store.ingest(producer, a_batch([opened, an_event("e-4", user_id="cus_2")]))
    # then one call shows all three of that user
    found = live(store, "token-2")
    assert found == (folded([opened]), folded([sealed]), [[b"total", b"1 0.000000001"]])


def test_a_reader_that_expects_another_epoch_is_told_which_it_is(store: Store, producer: Producer) -> None:
    store.ingest(producer, a_batch([an_event("e-1")]))
    assert live(store, "token-1") == [b"again", GENERATION.encode(), b""]
    store.run(scripts.seal(0, GENERATION, "token-1"))
    assert live(store, "") == [b"again", GENERATION.encode(), b"token-1"]
    other = scripts.live(0, "genera-2", "token-1", "cus_1", None, WINDOWS)
    assert store.run(other) == [b"again", GENERATION.encode(), b"token-1"]
    assert live(store, "token-1")[1] == folded([an_event("e-1")])


def test_without_a_generation_there_is_nothing_to_read(store: Store) -> None:
    assert live(store) == [b"again", b"", b""]
    assert store.run(scripts.inspect(0, GENERATION, "")) == [b"again", b"", b""]


def test_exactly_the_counters_of_the_user_are_found(store: Store, producer: Producer) -> None:
    users = ["cus_1", "cus_10", "cus_", "cus", "cus_1 ", "cus_1é", "dus_1", "CUS_1", "ユーザー", "cus_1:api_call"]
    events = [an_event(None, user_id=user, nanos=number + 1) for number, user in enumerate(users)]
    store.ingest(producer, a_batch(events))
    for user, event in zip(users, events, strict=True):
        assert live(store, user=user)[0] == folded([event])
    assert live(store, user="nobody") == ({}, {}, [[]])


def test_exactly_the_counters_of_the_meter_and_windows_are_found(store: Store, producer: Producer) -> None:
    events = [
        an_event(None, event_type=kind, time_us=JULY_US + step * WINDOW_US, properties=properties)
        for kind, properties in (("call", '{"region":"eu"}'), ("call", ""), ("other", ""))
        for step in (-2, -1, 0, 1, 2)
    ]
    store.ingest(producer, a_batch(events, revision=1), METERS)
    wanted = folded(events, METERS)
    for meter in ("calls", "calls_by", "c", "none"):
        found = live(store, meter=meter, windows=(WINDOW - 1, WINDOW + 1))[0]
        mine = {
            key: value for key, value in wanted.items() if key.meter == meter and key.window in {WINDOW - 1, WINDOW}
        }
        assert found == mine
    assert live(store)[0] == wanted


@pytest.mark.parametrize(
    ("windows", "asked"),
    [
        ((0, 0), 0),
        ((0, 1), 1),
        ((0, 96), 1),
        ((0, 97), 2),
        ((95, 97), 2),
        ((96, 96), 0),
        ((95, 96), 1),
        ((0, 9600), 100),
    ],
)
def test_the_totals_of_every_day_of_the_range_are_read(windows: tuple[int, int], asked: int) -> None:
    names = scripts.live(0, GENERATION, "", "cus_1", None, windows).keys[5:]
    first = windows[0] // 96
    assert names == [keys.totals(0, GENERATION, "cus_1", first + day) for day in range(asked)]


def test_everything_that_is_not_in_postgres_is_inspected_at_once(store: Store, producer: Producer) -> None:
    store.ingest(producer, a_batch([an_event("e-1")]))
    store.run(scripts.seal(0, GENERATION, "token-1"))
    store.ingest(producer, a_batch([an_event("e-2", nanos=NANO // 4)]))
    opened, sealed = keys.open_epoch(0, GENERATION), keys.sealed_epoch(0, GENERATION, "token-1")
    how, state, *found = store.run(scripts.inspect(0, GENERATION, "token-1"))
    assert how == b"ok"
    assert dict(zip(state[::2], state[1::2], strict=True)) == store.client.hgetall(keys.state(0))
    for epoch, (entries, flat) in zip((opened, sealed), (found[:2], found[2:]), strict=True):
        assert [identifier for identifier, _ in entries] == [one for one, _ in store.client.xrange(epoch.stream)]
        assert dict(zip(flat[::2], flat[1::2], strict=True)) == store.client.hgetall(epoch.counters)
    assert store.run(scripts.inspect(0, GENERATION, "")) == [b"again", GENERATION.encode(), b"token-1"]


def test_reading_changes_nothing(store: Store, producer: Producer) -> None:
    store.ingest(producer, a_batch([an_event("e-1")]))
    store.run(scripts.seal(0, GENERATION, "token-1"))
    before = store.dump()
    live(store, "token-1")
    store.run(scripts.inspect(0, GENERATION, "token-1"))
    store.run(scripts.read_entries(0, GENERATION, "token-1", "-", 9))
    store.run(scripts.read_counters(0, GENERATION, "token-1", "0", 9))
    assert store.dump() == before
