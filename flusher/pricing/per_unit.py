"""Model `per_unit`: every unit costs the same."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.tiers import product, units


@dataclass(frozen=True, slots=True)
class PerUnit:
    """`unit_price` in major units of the plan's currency, for each unit."""

    unit_price: Decimal

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return quantity times price as one part; `quantity` is above 0."""
        amount = quantity * self.unit_price
        return (Part(quantity, self.unit_price, amount, units(quantity), working=product(quantity, self.unit_price)),)
