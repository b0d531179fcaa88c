"""`taximeter doctor` on what comes back from Stripe."""

from contextlib import closing

import pytest

from flusher.database import connect
from flusher.doctor.examine import SetUp, examine
from flusher.doctor.finding import Level
from flusher.doctor.stripe_state import SILENT_S, Back, judge_back
from flusher.worker import Worker


@pytest.mark.parametrize(
    ("back", "levels"),
    [
        (Back(0, None, 0), [Level.OK]),
        (Back(3, None, 0), [Level.WARN]),
        (Back(3, SILENT_S, 0), [Level.OK]),
        (Back(3, SILENT_S + 1, 0), [Level.WARN]),
        (Back(0, 5, 2), [Level.OK, Level.WARN]),
    ],
)
def test_it_is_said_when_nobody_tells_us_of_open_invoices(back: Back, levels: list[Level]) -> None:
    found = judge_back(back)
    assert [one.level for one in found] == levels
    assert all(bool(one.remedy) == (one.level is Level.WARN) for one in found)


def test_a_ledger_that_never_sent_anything_hears_nothing_of_stripe(redis_url: str, database_url: str) -> None:
    with closing(Worker.connect(redis_url, database_url)) as worker:
        worker.flush()
    assert [one for one in examine(SetUp(redis_url, database_url)) if one.part == "stripe"] == []
    with connect(database_url) as connection:
        connection.execute("INSERT INTO stripe_binding (account, livemode) VALUES ('acct_1', false)")
        connection.execute("INSERT INTO stripe_events (id, type) VALUES ('evt_1', 'invoice.paid')")
    (found,) = [one for one in examine(SetUp(redis_url, database_url)) if one.part == "stripe"]
    assert (found.level, found.detail) == (
        Level.OK,
        "the last event came 0 s ago; 0 invoices are open since over a week",
    )
