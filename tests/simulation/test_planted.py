"""The oracle is tested: every bug that is planted on purpose has to be seen."""

from contextlib import suppress

import pytest

from tests.simulation.history import History
from tests.simulation.planted import BUGS

HISTORIES = 200
FIRST = 1_000_000


def histories_until_seen(name: str) -> int | None:
    """Returns after how many histories the oracle objects to a bug; None when it does not."""
    bug = BUGS[name]
    for number in range(HISTORIES):
        with bug.plant():
            outcome = History(FIRST + number, profile=bug.profile, kinds=bug.kinds).run()
        if outcome.problems:
            return number + 1
    return None


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str) -> None:
    assert histories_until_seen(name) is not None, f"{HISTORIES} histories with {name} looked right"


def test_the_planted_bugs_cover_the_rules_that_a_simulation_can_break() -> None:
    covered: set[int] = set()
    for bug in BUGS.values():
        with suppress(ValueError):
            covered.update(int(rule) for rule in bug.rule.split(", "))
    assert covered >= {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert len(BUGS) >= 18
