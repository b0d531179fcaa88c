"""Model `package`: units are sold in packages, and a package that is begun is paid in full.

The meaning is that of interface.md and of https://getlago.com/docs/guide/plans/charges/charge-models/package.
"""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.money import grouped
from flusher.pricing.tiers import product, units


@dataclass(frozen=True, slots=True)
class Package:
    """`package_price` in major units of the plan's currency for every `package_size` units or part of them."""

    package_size: Decimal
    package_price: Decimal

    def parts(self, quantity: Decimal) -> tuple[Part, ...]:
        """Return one part whose quantity counts packages; `quantity` is above 0."""
        packages, rest = divmod(quantity, self.package_size)
        if rest:
            packages += 1
        noun = "package" if packages == 1 else "packages"
        label = f"{grouped(packages)} {noun} of {units(self.package_size)} for {units(quantity)}"
        working = (
            f"{grouped(quantity)} / {grouped(self.package_size)}, rounded up: {product(packages, self.package_price)}"
        )
        return (Part(packages, self.package_price, packages * self.package_price, label, working=working),)
