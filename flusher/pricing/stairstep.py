"""Model `stairstep`: one fee, that of the tier which holds the whole quantity.

The meaning is that of interface.md: volume tiers of which only the flat fees are there.
"""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.money import grouped
from flusher.pricing.tiers import Tier, holding, product, units

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Stairstep:
    """Tiers in rising order of `up_to`, of which `flat_fee` counts and `unit_price` is 0."""

    tiers: tuple[Tier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return one part, once the fee of the tier that holds the quantity; `quantity` is above 0."""
        number = holding(self.tiers, quantity)
        tier = self.tiers[number - 1]
        below = self.tiers[number - 2].up_to if number > 1 else None
        if tier.up_to is not None:
            label = f"{units(quantity)}, up to {grouped(tier.up_to)}"
        else:
            label = units(quantity) if below is None else f"{units(quantity)}, above {grouped(below)}"
        return (Part(ONE, tier.flat_fee, tier.flat_fee, label, number, product(ONE, tier.flat_fee)),)
