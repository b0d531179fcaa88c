"""Months of events are dropped (rule 15): what was billed from them stays as it was."""

from contextlib import closing
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg.rows import TupleRow

from flusher.clock import Clock
from flusher.ledger import Ledger
from flusher.retention import Dropped, Keep, Retention
from tests.invoicing.world import ARTICLE, World, utc

ANNIVERSARY = ARTICLE.replace('interval = "month"', 'interval = "month"\nanchor = "anniversary"').replace(
    '"pro"', '"by_day"'
)


class Still(Clock):
    """A clock that stands: whoever has a budget has all the time there is."""

    def monotonic_s(self) -> float:
        return 0.0


def _drop(world: World) -> Dropped:
    """Drops everything before 2026 that nothing needs."""
    days = (datetime.now(tz=utc(2026, 1, 1).tzinfo) - utc(2026, 1, 1)).days - 1
    with closing(Ledger(world.url)) as ledger:
        Retention(ledger, 1, Keep(35, days), Still()).clean()
        world.connection.execute("UPDATE ledger SET event_floor_next_at = now() - interval '2 hours'")
        return Retention(ledger, 1, Keep(35, days), Still()).clean()


def _billed(world: World) -> list[list[TupleRow]]:
    """Returns everything that was billed: what it was made of, invoices and their lines."""
    queries: tuple[LiteralString, ...] = (
        "SELECT * FROM billed ORDER BY period_start",
        "SELECT * FROM invoice_list ORDER BY id",
        "SELECT * FROM invoice_lines ORDER BY invoice, place",
    )
    found = [world.connection.execute(query).fetchall() for query in queries]
    assert all(found)
    return found


def test_a_period_that_begins_and_ends_inside_a_window_is_billed_as_before(world: World) -> None:
    # given a subscription of two months that begin and end at 10:07:30, with events on both sides of it
    world.apply(ANNIVERSARY)
    world.subscribe("cus_1", "by_day", start="2025-07-10T10:07:30Z", end="2025-09-10T10:07:30Z")
    for number, month in enumerate((7, 8, 9)):
        world.event("cus_1", 2000, utc(2025, month, 10, 10, 5), f"before-{number}")
        world.event("cus_1", 3000, utc(2025, month, 10, 10, 10), f"after-{number}")
        world.event("cus_2", 1, utc(2025, month, 10, 10, 10), f"other-{number}")
    made = world.run(utc(2025, 10, 1))
    assert [(invoice.kind.value, str(invoice.total)) for invoice in made.invoices] == [
        ("period", "40.00"),
        ("period", "40.00"),
    ]
    billed = _billed(world)
    # when the months are dropped
    assert _drop(world) == Dropped(events=9)
    assert world.connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    # then nothing is billed again or taken back, and only what such a period reads is kept
    again = world.run(utc(2025, 12, 1))
    assert (again.invoices, again.waiting) == ([], [])
    assert _billed(world) == billed
    assert world.connection.execute("SELECT DISTINCT user_id FROM boundary_events").fetchall() == [("cus_1",)]
    # and what comes late for a whole window is still an adjustment
    world.use("cus_1", 100, utc(2025, 7, 20))
    (late,) = world.run(utc(2025, 12, 1), late_limit=timedelta(days=200)).invoices
    assert (late.kind.value, str(late.total)) == ("adjustment", "1.00")


def test_an_event_that_is_on_its_way_out_is_read_once(world: World) -> None:
    # given a window that is kept already, of a month that is not dropped yet
    world.apply(ANNIVERSARY)
    world.subscribe("cus_1", "by_day", start="2025-07-10T10:07:30Z", end="2025-08-10T10:07:30Z")
    world.event("cus_1", 3000, utc(2025, 7, 10, 10, 10), "e")
    world.run(utc(2025, 10, 1))
    world.connection.execute(
        "INSERT INTO boundary_events"
        " SELECT event_time, event_key, revision, events, user_id, event_type, units, properties FROM events"
    )
    assert world.run(utc(2025, 12, 1)).invoices == []


def test_the_month_of_a_period_that_is_not_invoiced_stays(world: World) -> None:
    world.subscribe("cus_1", start="2025-07-01T00:00:00Z")
    for month in (6, 7, 8):
        world.event("cus_1", 1, utc(2025, month, 10), f"e-{month}")
    world.run(utc(2025, 8, 1))
    # when July is invoiced and August is not
    assert _drop(world) == Dropped(events=2)
    assert world.connection.execute("SELECT event_time FROM events").fetchall() == [(utc(2025, 8, 10),)]
