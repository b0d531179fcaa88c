"""Every named point of the product is hit, in every way, under traffic; and nothing is lost or counted twice."""

from collections.abc import Callable

import pytest

from tests.faults.points import POINTS
from tests.faults.program import find
from tests.faults.run import Report, judge
from tests.faults.sweep import Sweep
from tests.faults.traps import all_traps
from tests.faults.world import Shape, World

SEED = 21
SMALL_SEGMENTS = {"TAXIMETER_JOURNAL_SEGMENT_BYTES": "8192"}


@pytest.mark.parametrize("point", [(kind, name) for kind in POINTS for name in POINTS[kind]], ids="/".join)
def test_every_point_is_a_function_of_the_product(point: tuple[str, str]) -> None:
    kind, name = point
    function = find(POINTS[kind][name])[2]
    assert callable(getattr(function, "__func__", function))


def test_nothing_is_lost_or_counted_twice_when_programs_die_or_fail_at_any_point(
    make_world: Callable[[Shape], World],
) -> None:
    # given traffic through two sidecars and two flushers
    world = make_world(Shape(seed=SEED, sidecar=SMALL_SEGMENTS))
    world.start_clients()
    world.wait_for_traffic()
    # when at every point one of them is killed before it, killed after it, or fails
    report = Report(SEED)
    traps = all_traps()
    Sweep(world, traps, SEED).run(report)
    judge(world, report)
    # then all of it happened, and everything is as promised
    assert report.ok, report.text()
    assert report.done == {str(trap): 1 for trap in traps}
