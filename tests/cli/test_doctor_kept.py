"""`taximeter doctor` on what is forgotten (rule 15): floors, and who or what is waited for."""

from contextlib import closing
from datetime import UTC, datetime

import pytest

from flusher.database import connect
from flusher.doctor.examine import SetUp, examine
from flusher.doctor.finding import Level
from flusher.doctor.kept import DROP_MAX_S, LAG_MAX_S, WAITING_MAX, Claims, Events, judge_claims, judge_events
from flusher.retention import Keep
from flusher.worker import Worker

JULY = datetime(2025, 7, 31, 23, 59, 59, 999_999, UTC)


@pytest.mark.parametrize(
    ("claims", "level", "said"),
    [
        (Claims(None, None, 5, 0, None, 0), Level.OK, ""),
        (Claims(None, None, LAG_MAX_S + 1, 7, JULY, 0), Level.WARN, "run a flusher"),
        (Claims(JULY, LAG_MAX_S, LAG_MAX_S * 9, 7, JULY, 7), Level.OK, ""),
        (Claims(JULY, LAG_MAX_S + 1, LAG_MAX_S * 9, 7, JULY, 0), Level.WARN, "sidecar p on h is waited for"),
        (Claims(JULY, 5, LAG_MAX_S * 9, 7, JULY, WAITING_MAX + 1), Level.WARN, "one more flusher"),
    ],
)
def test_claims_are_dropped_or_it_is_said_why_not(claims: Claims, level: Level, said: str) -> None:
    found = judge_claims(claims, "sidecar p on h")
    assert (found.level, said in found.remedy) == (level, True)


@pytest.mark.parametrize(
    ("events", "level", "said"),
    [
        (Events(None, None, 10**9, 0, 0, [], ""), Level.OK, "none yet"),
        (Events(None, None, 10**9, 0, 0, ["202507", "202508"], "s"), Level.OK, "months 202507 to 202508; all is kept"),
        (Events(None, JULY, 5, 0, 0, ["202507"], ""), Level.OK, "up to 2025-07-31 they are refused, and go when"),
        (Events(None, JULY, DROP_MAX_S + 1, 0, 0, ["202507"], ""), Level.WARN, "and go when every sidecar"),
        (Events(JULY, JULY, 5, 0, 0, ["202507", "202508"], ""), Level.OK, "1 months are being dropped"),
        (Events(JULY, JULY, DROP_MAX_S + 1, 0, 0, ["202507"], ""), Level.WARN, "1 months are being dropped"),
        (Events(JULY, JULY, DROP_MAX_S + 1, 1, 9, ["202508"], ""), Level.OK, "9 of 1 months are dropped"),
    ],
)
def test_months_of_events_are_dropped_or_it_is_said_why_not(events: Events, level: Level, said: str) -> None:
    found = judge_events(events, "")
    assert (found.level, said in found.detail) == (level, True)


def test_the_floors_of_a_ledger_are_said(redis_url: str, database_url: str) -> None:
    with closing(Worker.connect(redis_url, database_url)) as worker:
        worker.flush()
    found = {one.name: one for one in examine(SetUp(redis_url, database_url)) if one.part == "ledger"}
    assert found["claims"].detail == "about 0; no flusher has dropped any yet"
    # When a sidecar is silent, something is needed, and a flusher works
    with connect(database_url) as connection:
        connection.execute("INSERT INTO producers (producer, host) VALUES ('producer', 'host-a')")
        connection.execute(
            "INSERT INTO positions (producer, shard, sequence, digest, events, units, watermark)"
            " VALUES ('producer', 0, 0, '\\x00000000000000000000000000000000', 0, 0, now() - interval '9 days')"
        )
        connection.execute("INSERT INTO plans (name) VALUES ('p')")
        connection.execute("INSERT INTO subscriptions VALUES ('s', 'c', 'p', '2025-07-01')")
    with closing(Worker.connect(redis_url, database_url, keep=Keep(35, 100))) as worker:
        worker.run_once()
    # Then it is said who is waited for and what holds the events
    found = {one.name: one for one in examine(SetUp(redis_url, database_url)) if one.part == "ledger"}
    assert found["claims"].level is Level.WARN
    assert found["claims"].remedy.startswith("sidecar producer on host-a is waited for")
    assert "needed by subscription s, which is not invoiced beyond it (2025-07-01)" in found["events"].detail
    assert found["events"].detail.endswith(
        "up to 2025-06-30 they are refused, and go when every sidecar was heard of since"
    )
