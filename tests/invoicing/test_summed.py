"""Summed rows and periods that begin or end inside a window: refused when declared, never billed wrong."""

from datetime import datetime

import pytest

from flusher.catalog.problem import CatalogError
from tests.invoicing.world import ARTICLE, World, utc

LATE = "2025-07-10T10:07:30Z"


def sum_up(world: World, user: str, window: datetime, events: int = 3) -> None:
    """Stores a summed row of a thousand units an event, and counts it."""
    world.event(user, 1000 * events, window, f"{user} {window}")
    world.connection.execute(
        "UPDATE events SET events = %s, id = NULL WHERE event_time = %s AND user_id = %s", (events, window, user)
    )
    world.connection.execute("UPDATE usage SET events = %s WHERE user_id = %s", (events, user))


def test_a_boundary_inside_a_window_with_summed_rows_is_refused_when_it_is_declared(world: World) -> None:
    # given a customer with summed rows at 10:00, and one with single events
    world.apply(ARTICLE + '[[customers]]\nid = "big"\nuser_ids = ["cus_1", "cus_2"]\n')
    sum_up(world, "cus_2", utc(2025, 7, 10, 10))
    world.event("cus_3", 1, utc(2025, 7, 10, 10), "single")
    # when subscriptions begin or end inside that window, then they are refused
    with pytest.raises(CatalogError, match="single events of that time are summed up"):
        world.subscribe("big", start=LATE)
    with pytest.raises(CatalogError, match=r"subscriptions.*end: expected a quarter of an hour"):
        world.subscribe("big", start="2025-07-01T00:00:00Z", end=LATE)
    # but not in another window, on a quarter of an hour, or where there are single events
    world.subscribe("big", start="2025-07-10T10:15:01Z", end="2025-07-11T00:00:00Z")
    world.subscribe("cus_3", start=LATE)


def test_a_period_that_would_be_rated_from_a_sum_waits_and_says_why(world: World) -> None:
    # given a subscription from 10:07:30 on, and a row that sums up its first window although it was declared
    world.apply(ARTICLE)
    world.subscribe("cus_1", start=LATE)
    world.subscribe("cus_2", start="2025-07-10T10:15:00Z")
    for user in ("cus_1", "cus_2"):
        sum_up(world, user, utc(2025, 7, 10, 10))
    world.use("cus_2", 2000, utc(2025, 7, 10, 10, 15))
    # when invoices are made
    made = world.run(utc(2025, 8, 2))
    # then only the other one's is, from whole windows
    assert [(invoice.customer, str(invoice.total)) for invoice in made.invoices] == [("cus_2", "10.00")]
    (waiting,) = made.waiting
    assert (waiting.customer, waiting.reason) == ("cus_1", "boundary_summed")
    assert "2025-07-10T10:07:30Z and 2025-07-10T10:15:00Z" in waiting.detail
    assert world.counts()["invoices"] == 1


def test_whole_windows_of_summed_rows_are_billed(world: World) -> None:
    world.apply(ARTICLE)
    world.subscribe("cus_1")
    sum_up(world, "cus_1", utc(2025, 7, 10, 10))
    (invoice,) = world.run(utc(2025, 8, 2)).invoices
    assert str(invoice.total) == "20.00"
