"""Real processes, real faults, and an oracle that shares no code with the product. See README.md of this folder."""

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
    "kill sidecar": 3,
    "kill flusher": 3,
    "kill Redis": 2,
    "kill PostgreSQL": 2,
    "kill client": 1,
    "stop sidecar": 1,
    "stop flusher": 1,
    "stop flusher with work": 2,
}


def test_nothing_is_lost_or_counted_twice_when_links_break_and_processes_die(
    make_world: Callable[[Shape], World],
) -> None:
    report = run_plan(make_world(Shape(seed=11)), LINKS_AND_PROCESSES, Report(11))
    assert report.ok, report.text()
    assert report.done == LINKS_AND_PROCESSES
    assert set(report.done) <= set(FAULTS)
