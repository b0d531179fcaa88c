"""Real processes, real faults, and an oracle that shares no code with the product. See README.md of this folder."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import make_server_dir
from tests.faults.kinds import FAULTS
from tests.faults.points import POINTS
from tests.faults.program import find
from tests.faults.run import Report, run_plan
from tests.faults.world import Shape, World

HELD: Mapping[str, str] = {"TAXIMETER_JOURNAL_HOLD_S": "3600"}


@pytest.fixture
def make_world() -> Iterator[Callable[[Shape], World]]:
    """`make_world(shape)`: a system of real processes in memory, gone with the test."""
    worlds: list[World] = []
    directories: list[Path] = []

    def make(shape: Shape) -> World:
        directories.append(make_server_dir())
        worlds.append(World(directories[-1], shape))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


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


@pytest.mark.parametrize("point", [(kind, name) for kind in POINTS for name in POINTS[kind]], ids="/".join)
def test_every_point_is_a_function_of_the_product(point: tuple[str, str]) -> None:
    kind, name = point
    assert callable(getattr(find(POINTS[kind][name])[2], "__func__", find(POINTS[kind][name])[2]))


def test_nothing_is_lost_or_counted_twice_when_links_break_and_processes_die(
    make_world: Callable[[Shape], World],
) -> None:
    report = run_plan(make_world(Shape(seed=11)), LINKS_AND_PROCESSES, Report(11))
    assert report.ok, report.text()
    assert report.done == LINKS_AND_PROCESSES
    assert set(report.done) <= set(FAULTS)
