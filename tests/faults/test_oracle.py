"""The oracle is tested: bugs are planted in the real programs, and each has to be caught."""

from collections.abc import Callable

import pytest

from tests.faults import on_links, on_postgres, on_processes, on_redis
from tests.faults.bugs import BUGS
from tests.faults.run import Report, judge
from tests.faults.world import Shape, World

SEED = 7


def _nothing(world: World) -> None:
    world.rest(2.0)


def _kill_sidecar(world: World) -> None:
    for _ in range(4):
        on_processes.kill_sidecar(world)
        world.wait_for_traffic()


def _keep_redis_away(world: World) -> None:
    for _ in range(2):
        on_links.refuse("sidecar*-redis")(world)


def _wipe(world: World) -> None:
    for _ in range(3):
        on_redis.wipe_undrained(world)
        world.rest(1.0)


def _fail_commits(world: World) -> None:
    on_postgres.fill_disk_at_commit(world)


def _evict_streams(world: World) -> None:
    for _ in range(10):
        for key in world.redis.command("KEYS", "*:stream"):
            world.redis.command("DEL", key)
        world.rest(0.3)


CAUGHT_BY = {
    "answers_before_the_journal_has_it": ("sidecar", _kill_sidecar, "LOST"),
    "retries_by_itself": ("sidecar", _keep_redis_away, "TWICE"),
    "deletes_segments_that_only_redis_has": ("sidecar", _wipe, "LOST"),
    "adds_usage_in_a_step_of_its_own": ("flusher", _fail_commits, "usage"),
    "lets_positions_jump": ("flusher", _evict_streams, "LOST"),
    "keeps_claims_in_redis_alone": ("flusher", _wipe, "TWICE"),
    "publishes_by_adding": ("flusher", _nothing, "totals"),
}


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_caught(bug: str, make_world: Callable[[Shape], World]) -> None:
    # given a system with a bug in one of its programs
    program, harm, word = CAUGHT_BY[bug]
    shape = Shape(
        seed=SEED,
        sidecars=1,
        flushers=1,
        shards=1,
        drain_s=2.0,
        sidecar={"TAXIMETER_JOURNAL_HOLD_S": "0", "TAXIMETER_JOURNAL_SEGMENT_BYTES": "4096"},
        sidecar_bugs=bug if program == "sidecar" else "",
        flusher_bugs=bug if program == "flusher" else "",
    )
    world = make_world(shape)
    world.start_clients()
    world.wait_for_traffic()
    # when what the bug can't stand happens
    harm(world)
    report = judge(world, Report(SEED))
    # then the oracle says so
    assert any(word in violation for violation in report.verdict.violations), report.text()
