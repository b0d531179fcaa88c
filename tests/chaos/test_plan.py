"""The plan of a run: the same for a seed, every fault once before any comes again."""

from flusher.chaos.dice import Dice
from flusher.chaos.plan import EVERY_FAULT, LONG_STOP_S, Kind, plan

RUN = {"seconds": 300.0, "every_s": 5.0}


def test_a_plan_follows_from_its_seed() -> None:
    assert plan(1, **RUN) == plan(1, **RUN)
    assert plan(1, **RUN) != plan(2, **RUN)


def test_every_fault_is_made_once_before_any_comes_again() -> None:
    faults = [(fault.kind, fault.part) for fault in plan(3, **RUN) if fault.kind is not Kind.REMEMBER]
    assert len(faults) == 60
    for first in range(0, 55, len(EVERY_FAULT)):
        assert set(faults[first : first + len(EVERY_FAULT)]) == set(EVERY_FAULT)


def test_faults_come_in_time_and_a_state_is_remembered_before_redis_is_taken_back_to_it() -> None:
    faults = plan(4, **RUN)
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 300
    remembered = 0
    for fault in faults:
        remembered += fault.kind is Kind.REMEMBER
        remembered -= fault.kind is Kind.BACK
        assert remembered >= 0
    assert remembered == 0


def test_a_long_run_has_stops_longer_than_every_deadline_and_a_short_one_leaves_time() -> None:
    assert max(fault.lasts_s for fault in plan(5, **RUN)) == LONG_STOP_S
    assert max(fault.lasts_s for fault in plan(5, 15.0, 1.0)) <= 2.5


def test_dice_of_one_purpose_are_not_shifted_by_another() -> None:
    one, other = Dice(1, "a"), Dice(1, "b")
    assert [one.number(1000) for _ in range(5)] != [other.number(1000) for _ in range(5)]
    again = Dice(1, "a")
    assert {again.number(3) for _ in range(100)} == {0, 1, 2}
    assert sorted(again.shuffled(range(10))) == list(range(10))
    assert all(1.0 <= again.between(1.0, 2.0) < 2.0 for _ in range(100))
