"""Rule 16 bent on purpose: the sum over all invoices has to show it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from flusher.invoicing import adjust, bill
from flusher.invoicing.adjust import Billed, Reading
from tests.invoicing import test_property
from tests.invoicing.world import World

Adjustments = Callable[..., Any]


def late_usage_is_rated_by_itself(honest: Adjustments) -> Adjustments:
    """What arrived late is flagged and rated apart, as if the tiers began anew."""

    def bent(plan: Any, billing: Any, billed: Sequence[Billed], readings: Any, *, scope: str) -> Any:
        zero = Decimal(0)
        nothing = [replace(entry, quantity=zero, events=0, amount=zero) for entry in billed]
        late = {
            entry.meter: Reading(
                tuple(
                    replace(measure, quantity=measure.quantity - entry.quantity)
                    for measure in readings[entry.meter].measures
                ),
                readings[entry.meter].events - entry.events,
            )
            for entry in billed
            if entry.meter in readings
        }
        lines, _ = honest(plan, billing, nothing, late, scope=scope)
        _, now = honest(plan, billing, billed, readings, scope=scope)
        return lines, now

    return bent


def what_was_adjusted_is_not_remembered(honest: Adjustments) -> Adjustments:
    """The difference to the first invoice is billed again: not for ever, or a subscription that ended never would."""
    times = iter(range(10))

    def bent(*arguments: Any, **more: Any) -> Any:
        lines, now = honest(*arguments, **more)
        return lines, [] if lines and next(times, None) is not None else now

    return bent


def corrections_are_left_out(honest: Adjustments) -> Adjustments:
    """Usage that arrived late only ever adds."""

    def bent(*arguments: Any, **more: Any) -> Any:
        lines, now = honest(*arguments, **more)
        return [line for line in lines if line.amount > 0], now

    return bent


@pytest.mark.parametrize(
    "plant", [late_usage_is_rated_by_itself, what_was_adjusted_is_not_remembered, corrections_are_left_out]
)
def test_a_bent_adjustment_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Adjustments], Adjustments]
) -> None:
    monkeypatch.setattr(bill, "adjustments", plant(adjust.adjustments))
    with pytest.raises(AssertionError):
        test_property.test_the_sum_of_all_invoices_is_the_price_of_all_usage(world, 1)
