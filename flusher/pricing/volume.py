"""Model `volume`: the whole quantity costs what the tier that holds it says."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.tiers import Tier, fee_note, units


@dataclass(frozen=True, slots=True)
class Volume:
    """Tiers in rising order of `up_to`; only the holding tier's `flat_fee` is due."""

    tiers: tuple[Tier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return one part, all units at the price of the tier that holds them; `quantity` is above 0."""
        number, tier = next(
            (number, tier)
            for number, tier in enumerate(self.tiers, start=1)
            if tier.up_to is None or quantity <= tier.up_to
        )
        label = units(quantity) + fee_note(tier.flat_fee)
        amount = quantity * tier.unit_price + tier.flat_fee
        return (Part(quantity, tier.unit_price, amount, label, number),)
