"""Model `volume`: all units cost what the tier says that holds the whole quantity.

The meaning is that of interface.md and of https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing.
"""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.tiers import Tier, fee_note, holding, product, units


@dataclass(frozen=True, slots=True)
class Volume:
    """Tiers in rising order of `up_to`; only the holding tier's `flat_fee` is due."""

    tiers: tuple[Tier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return one part, all units at the price of the tier that holds them; `quantity` is above 0."""
        number = holding(self.tiers, quantity)
        tier = self.tiers[number - 1]
        label = units(quantity) + fee_note(tier.flat_fee)
        working = product(quantity, tier.unit_price, tier.flat_fee)
        amount = quantity * tier.unit_price + tier.flat_fee
        return (Part(quantity, tier.unit_price, amount, label, number, working),)
