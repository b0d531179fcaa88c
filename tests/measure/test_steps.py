"""The measurement of the steps runs every kind of request; figures are not judged here."""

import pytest

from tests.measure.steps import KINDS, Kind, steps, table


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_step_of_every_kind_is_measured(kind: Kind) -> None:
    costs = steps(kind, rounds=2)
    assert costs["decode the body"] > 0
    assert costs["arguments of the script"] > 0
    assert costs["all"] == pytest.approx(sum(cost for step, cost in costs.items() if step != "all"))
    assert table({kind.name: costs}).count("\n") == len(costs) + 1
