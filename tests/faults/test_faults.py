"""Real processes, real faults, and an oracle that shares no code with the product. See README.md of this folder.

Each test is one system under traffic to which many faults happen, in an order that its seed decides.
"""

from collections.abc import Callable, Mapping

from tests.faults.kinds import FAULTS
from tests.faults.run import Report, run_plan
from tests.faults.world import Shape, World

HELD: Mapping[str, str] = {"TAXIMETER_JOURNAL_HOLD_S": "3600"}
LINKS_AND_PROCESSES = {
    "cut client": 6,
    "cut sidecar to Redis": 8,
    "cut flusher to Redis": 8,
    "cut flusher to PostgreSQL": 8,
    "lose reply to client": 4,
    "lose reply of Redis to sidecar": 4,
    "lose reply of Redis to flusher": 4,
    "lose reply of PostgreSQL": 4,
    "stall Redis": 1,
    "stall PostgreSQL": 1,
    "refuse Redis": 2,
    "refuse PostgreSQL": 1,
    "refuse client": 1,
    "kill sidecar": 4,
    "kill flusher": 4,
    "kill Redis": 2,
    "kill PostgreSQL": 3,
    "kill client": 1,
    "stop sidecar": 1,
    "stop flusher": 1,
    "stop flusher with work": 3,
    "stop PostgreSQL": 1,
    "named point": 4,
}
SERVERS_THAT_FORGET = {
    "wipe Redis": 4,
    "wipe undrained Redis": 2,
    "replace Redis": 2,
    "truncate Redis": 3,
    "promote stale replica": 2,
    "fill Redis": 2,
    "evict keys": 6,
    "PostgreSQL down": 1,
    "terminate at COMMIT": 3,
    "deadlock": 2,
    "serialization failure": 1,
    "PostgreSQL disk full at COMMIT": 2,
    "PostgreSQL disk full": 2,
    "fail over": 2,
    "sidecar's clock": 1,
    "flusher's clock": 2,
}
JOURNALS = {
    "journal disk full": 3,
    "tear journal": 3,
    "lose unsynced tail": 3,
    "flip bit": 1,
    "repair journal": 1,
    "send journal": 1,
    "clone journal": 1,
    "restore journal": 1,
    "kill Redis": 2,
    "kill sidecar": 2,
    "stop Redis": 1,
    "stop Redis for long": 1,
    "wipe undrained Redis": 1,
}


def test_there_are_faults_enough_and_of_every_kind() -> None:
    plans = (LINKS_AND_PROCESSES, SERVERS_THAT_FORGET, JOURNALS)
    assert {name for plan in plans for name in plan} == set(FAULTS)
    assert sum(sum(plan.values()) for plan in plans) >= 120  # beside those at named points: test_points.py


def test_nothing_is_lost_or_counted_twice_when_links_break_and_processes_die(
    make_world: Callable[[Shape], World],
) -> None:
    report = run_plan(make_world(Shape(seed=11)), LINKS_AND_PROCESSES, Report(11))
    assert report.ok, report.text()
    assert report.done == LINKS_AND_PROCESSES


def test_nothing_is_lost_or_counted_twice_when_servers_forget_or_refuse(make_world: Callable[[Shape], World]) -> None:
    report = run_plan(make_world(Shape(seed=12, sidecar=HELD)), SERVERS_THAT_FORGET, Report(12))
    assert report.ok, report.text()
    assert report.done == SERVERS_THAT_FORGET


def test_nothing_is_lost_or_counted_twice_when_journals_are_damaged_and_redis_has_no_file(
    make_world: Callable[[Shape], World],
) -> None:
    shape = Shape(seed=13, shards=1, durable_redis=False, sidecar=HELD)
    report = run_plan(make_world(shape), JOURNALS, Report(13))
    assert report.ok, report.text()
    assert report.done == JOURNALS
