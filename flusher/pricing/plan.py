"""A plan as rating sees it: frozen values that know nothing of TOML, tables or time."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.fixed import Charge, Fixed
from flusher.pricing.graduated import Graduated
from flusher.pricing.money import Rounding
from flusher.pricing.package import Package
from flusher.pricing.per_unit import PerUnit
from flusher.pricing.period import MONTHLY, Cycle
from flusher.pricing.tiers import ZERO, Tier
from flusher.pricing.volume import Volume

UsageModel = PerUnit | Graduated | Volume | Package
"""Models that price a meter's quantity; each has `parts(quantity)`."""

__all__ = [
    "Charge",
    "Fixed",
    "FixedPrice",
    "Graduated",
    "Package",
    "PerUnit",
    "Plan",
    "Price",
    "Tier",
    "UsageModel",
    "UsagePrice",
    "Volume",
]


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """A fee for a period; `name` is unique in the plan."""

    name: str
    model: Fixed


@dataclass(frozen=True, slots=True)
class UsagePrice:
    """A price of a meter's quantity; `name` is unique in the plan.

    `free_units` are taken off the quantity first, and what is left alone selects tiers and packages. With
    `per_group` each group of the meter is priced by itself, free units included; without, groups are one sum.
    """

    name: str
    meter: str
    model: UsageModel
    free_units: Decimal = ZERO
    per_group: bool = False


Price = FixedPrice | UsagePrice


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription pays: prices in one currency, a cycle and a rounding.

    `currency` is a lower-case code of `money.CURRENCIES`. Lines come in the order of `prices`.
    """

    name: str
    currency: str
    prices: tuple[Price, ...]
    cycle: Cycle = MONTHLY
    rounding: Rounding = Rounding.HALF_UP

    @property
    def meters(self) -> frozenset[str]:
        """The names of the meters that the plan prices."""
        return frozenset(price.meter for price in self.prices if isinstance(price, UsagePrice))
