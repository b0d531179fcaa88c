"""Model `graduated_percentage`: as graduated, on money: each part of it costs the percentage that its own tier says.

The meaning is that of interface.md and of
https://getlago.com/docs/guide/plans/charges/charge-models/graduated-percentage.
"""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.money import grouped
from flusher.pricing.percentage import fraction
from flusher.pricing.tiers import RateTier, fee_note, place, shares


@dataclass(frozen=True, slots=True)
class GraduatedPercentage:
    """Tiers in rising order of `up_to`; a tier's `flat_fee` is due once money falls into it."""

    tiers: tuple[RateTier, ...]

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return a part for each tier that is entered, lowest first; `quantity` is money, above 0."""
        parts = []
        for share in shares(self.tiers, quantity):
            tier = self.tiers[share.number - 1]
            label = (
                f"{place(share, self.tiers, grouped(share.inside))}, {grouped(tier.rate)} %{fee_note(tier.flat_fee)}"
            )
            amount = share.inside * fraction(tier.rate) + tier.flat_fee
            fee = f" + {grouped(tier.flat_fee)}" if tier.flat_fee else ""
            working = f"{grouped(tier.rate)} % of {grouped(share.inside)}{fee} = {grouped(amount)}"
            parts.append(Part(share.inside, fraction(tier.rate), amount, label, share.number, working))
        return tuple(parts)
