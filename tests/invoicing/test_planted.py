"""Rule 16 bent on purpose: the sum over all invoices has to show it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from flusher.invoicing import bill, costs
from flusher.invoicing.costs import Differences, Role
from flusher.pricing.measure import Reading
from tests.invoicing import test_property
from tests.invoicing.world import World

Differ = Callable[..., Differences]


def late_usage_is_rated_by_itself(honest: Differ) -> Differ:
    """What arrived late is flagged and rated apart, as if the tiers began anew."""

    def bent(cost: Any, usage: Any, billed: Any, *, scope: str) -> Differences:
        known = {(entry.key.start, entry.meter): entry for entry in billed.values() if entry.key.cost_of == cost.start}
        if cost.role is not Role.CLOSED or not known:
            return honest(cost, usage, billed, scope=scope)
        late = {}
        for need, reading in usage.items():
            entry = known.get((need.period.start, need.meter))
            if entry is not None:
                measures = tuple(replace(one, quantity=one.quantity - entry.quantity) for one in reading.measures)
                late[need] = Reading(measures, reading.events - entry.events)
        zero = Decimal(0)
        nothing = {key: replace(entry, quantity=zero, events=0, amount=zero) for key, entry in billed.items()}
        made = honest(cost, late, nothing, scope=scope)
        return Differences(made.lines, honest(cost, usage, billed, scope=scope).billed)

    return bent


def what_was_adjusted_is_not_remembered(honest: Differ) -> Differ:
    """The difference to the first invoice is billed again: not for ever, or a subscription that ended never would."""
    times = iter(range(10))

    def bent(cost: Any, *arguments: Any, **more: Any) -> Differences:
        made = honest(cost, *arguments, **more)
        forgets = cost.role is Role.CLOSED and made.lines and next(times, None) is not None
        return Differences(made.lines, []) if forgets else made

    return bent


def corrections_are_left_out(honest: Differ) -> Differ:
    """Usage that arrived late only ever adds."""

    def bent(*arguments: Any, **more: Any) -> Differences:
        made = honest(*arguments, **more)
        return Differences([line for line in made.lines if line.amount > 0], made.billed)

    return bent


@pytest.mark.parametrize(
    "plant", [late_usage_is_rated_by_itself, what_was_adjusted_is_not_remembered, corrections_are_left_out]
)
def test_a_bent_adjustment_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Differ], Differ]
) -> None:
    monkeypatch.setattr(bill, "differences", plant(costs.differences))
    with pytest.raises(AssertionError):
        test_property.test_the_sum_of_all_invoices_is_the_price_of_all_usage(world, 1)
