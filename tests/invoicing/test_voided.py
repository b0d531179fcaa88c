"""Voids and money: what is cancelled is not billed, and what was billed is given back on a later invoice."""

from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from flusher.backfill import count_now
from flusher.clock import Clock
from flusher.invoicing.late import list_held
from flusher.law import Tally
from flusher.ledger import Ledger
from flusher.retention import Dropped, Keep, Retention
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event
from tests.invoicing.test_dropped import ANNIVERSARY
from tests.invoicing.world import World, utc
from tests.protocol.system import an_event
from tests.protocol.voiding import a_void

NANO = 10**9
EPOCH = utc(1970, 1, 1)


def call(name: str, units: int, at: datetime, user_id: str = "cus_1") -> Event:
    """Returns an event of a moment."""
    time_us = (at - EPOCH) // timedelta(microseconds=1)
    return an_event(name, user_id=user_id, nanos=units * NANO, time_us=time_us)


def count(world: World, *events: Event) -> None:
    """Counts events and voids as a drain does."""
    with closing(Ledger(world.url)) as ledger, ledger.transaction():
        for event in events:
            count_now(ledger, Columns.of([event]).batch(0, 0, event.time_us, event.time_us), Tally())


def in_time(world: World, came: datetime) -> None:
    """Lets what was counted last have come at a moment: much later it would be held for an operator."""
    world.connection.execute("UPDATE usage SET changed_at = %s", (came,))


def made(world: World, at: datetime) -> list[tuple[str, Decimal, list[tuple[str, Decimal]]]]:
    return [
        (one.kind.value, one.total, [(line.kind, line.amount) for line in one.lines]) for one in world.run(at).invoices
    ]


def test_what_was_invoiced_is_given_back_on_the_next_invoice(world: World) -> None:
    # given a month that is invoiced: 1,000 calls free, 8,000 at 0.01
    world.subscribe("cus_1")
    event = call("e-1", 5_000, utc(2025, 7, 10, 10))
    count(world, call("e-0", 4_000, utc(2025, 7, 9, 10)), event, call("e-2", 9_000, utc(2025, 8, 5)))
    assert made(world, utc(2025, 8, 1)) == [("period", Decimal("80.00"), [("usage", 0), ("usage", Decimal("80.00"))])]
    # when an event of it is voided
    count(world, a_void(event))
    in_time(world, utc(2025, 8, 20))
    # then the next invoice has the difference, once
    ((kind, total, lines),) = made(world, utc(2025, 9, 1))
    assert (kind, total) == ("period", Decimal("30.00"))
    assert ("adjustment", Decimal("-50.00")) in lines
    assert made(world, utc(2025, 9, 2)) == []


def test_what_is_voided_too_late_is_held_for_an_operator(world: World) -> None:
    world.subscribe("cus_1")
    event = call("e-1", 5_000, utc(2025, 7, 10, 10))
    count(world, event)
    in_time(world, utc(2025, 7, 20))
    made(world, utc(2025, 9, 1))
    count(world, a_void(event))
    assert made(world, utc(2025, 10, 1)) == [("period", Decimal(0), [])]
    (held,) = list_held(world.connection, timedelta(days=35))
    assert (held.period.start, held.amount) == (utc(2025, 7, 1), Decimal("-40.00"))


@pytest.mark.parametrize("voided_first", [False, True])
def test_a_voided_event_is_left_out_of_a_window_that_is_cut(world: World, *, voided_first: bool) -> None:
    # given a subscription that ends inside a window, and events in that window on both sides
    world.apply(ANNIVERSARY)
    world.subscribe("cus_1", "by_day", start="2025-07-10T10:07:30Z", end="2025-08-10T10:07:30Z")
    stays, goes = call("e-1", 2_000, utc(2025, 8, 10, 10, 5)), call("e-2", 3_000, utc(2025, 8, 10, 10, 6))
    behind = call("e-3", 7_000, utc(2025, 8, 10, 10, 10))
    void = a_void(goes)
    # when one of them is voided
    count(world, *([void, stays, behind, goes] if voided_first else [stays, behind, goes, void]))
    # then it is not billed
    assert [total for _, total, _ in made(world, utc(2025, 9, 1))] == [Decimal("10.00")]


def test_a_voided_event_is_not_among_what_is_kept_of_a_dropped_month(world: World) -> None:
    # given the same, billed before the event is voided, and the month dropped
    world.apply(ANNIVERSARY)
    world.subscribe("cus_1", "by_day", start="2025-07-10T10:07:30Z", end="2025-08-10T10:07:30Z")
    stays, goes = call("e-1", 2_000, utc(2025, 8, 10, 10, 5)), call("e-2", 3_000, utc(2025, 8, 10, 10, 6))
    count(world, stays, goes)
    assert [total for _, total, _ in made(world, utc(2025, 8, 11))] == [Decimal("40.00")]
    count(world, a_void(goes))
    in_time(world, utc(2025, 8, 20))

    class Still(Clock):
        def monotonic_s(self) -> float:
            return 0.0

    days = (datetime.now(tz=EPOCH.tzinfo) - utc(2025, 10, 1)).days - 1
    with closing(Ledger(world.url)) as ledger:
        Retention(ledger, 1, Keep(35, days), Still()).clean()
        world.connection.execute("UPDATE ledger SET event_floor_next_at = now() - interval '2 hours'")
        assert Retention(ledger, 1, Keep(35, days), Still()).clean() == Dropped(events=3)
    kept = world.connection.execute("SELECT units FROM boundary_events WHERE units <> 0").fetchall()
    assert kept == [(Decimal(2_000),)]
    # then it is given back all the same, as credit
    ((kind, total, lines),) = made(world, utc(2025, 8, 20))
    assert (kind, total) == ("adjustment", Decimal("0.00"))
    assert lines == [("adjustment", Decimal("-30.00")), ("credit", Decimal("30.00"))]
