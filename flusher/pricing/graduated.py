"""Model `graduated`: each unit costs what its own tier says."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.money import grouped
from flusher.pricing.tiers import ZERO, Tier, fee_note, units


@dataclass(frozen=True, slots=True)
class Graduated:
    """Tiers in rising order of `up_to`; a tier's `flat_fee` is due once a unit falls into it."""

    tiers: tuple[Tier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return a part for each tier that is entered, lowest first; `quantity` is above 0.

        A tier covers what is above the one before it, up to and including its own `up_to`: at exactly
        `up_to` the next tier is not entered.
        """
        parts = []
        below = ZERO
        for number, tier in enumerate(self.tiers, start=1):
            if quantity <= below:
                break
            top = quantity if tier.up_to is None else min(quantity, tier.up_to)
            inside = top - below
            label = self._label(number, inside, below) + fee_note(tier.flat_fee)
            amount = inside * tier.unit_price + tier.flat_fee
            parts.append(Part(inside, tier.unit_price, amount, label, number))
            below = top
        return tuple(parts)

    def _label(self, number: int, inside: Decimal, below: Decimal) -> str:
        """Return which units a tier holds, for the customer."""
        if len(self.tiers) == 1:
            return units(inside)
        if number == len(self.tiers):
            return f"{units(inside)} above {grouped(below)}"
        return f"{'first' if number == 1 else 'next'} {units(inside)}"
