"""Model `graduated`: each unit costs what its own tier says.

The meaning is that of interface.md and of https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing.
"""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.tiers import Tier, fee_note, place, product, shares, units


@dataclass(frozen=True, slots=True)
class Graduated:
    """Tiers in rising order of `up_to`; a tier's `flat_fee` is due once a unit falls into it."""

    tiers: tuple[Tier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return a part for each tier that is entered, lowest first; `quantity` is above 0."""
        parts = []
        for share in shares(self.tiers, quantity):
            tier = self.tiers[share.number - 1]
            label = place(share, self.tiers, units(share.inside)) + fee_note(tier.flat_fee)
            working = product(share.inside, tier.unit_price, tier.flat_fee)
            amount = share.inside * tier.unit_price + tier.flat_fee
            parts.append(Part(share.inside, tier.unit_price, amount, label, share.number, working))
        return tuple(parts)
