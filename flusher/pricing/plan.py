"""A plan as rating sees it: frozen values that know nothing of TOML, tables or time."""

from dataclasses import dataclass, replace
from decimal import Decimal

from flusher.pricing.fixed import ChargeTime, Fixed
from flusher.pricing.graduated import Graduated
from flusher.pricing.graduated_percentage import GraduatedPercentage
from flusher.pricing.matrix import Entry, Matrix
from flusher.pricing.money import Rounding
from flusher.pricing.package import Package
from flusher.pricing.per_unit import PerUnit
from flusher.pricing.percentage import Percentage
from flusher.pricing.period import MONTHLY, Cycle, Interval
from flusher.pricing.stairstep import Stairstep
from flusher.pricing.tiers import ZERO, RateTier, Tier
from flusher.pricing.volume import Volume

UsageModel = PerUnit | Graduated | Volume | Package | Stairstep | GraduatedPercentage | Percentage | Matrix
"""Models that price what a meter shows; each has `parts`, of the quantity, of events or of groups."""

__all__ = [
    "ChargeTime",
    "Commitment",
    "Credit",
    "Discount",
    "Entry",
    "Fixed",
    "FixedPrice",
    "Graduated",
    "GraduatedPercentage",
    "Matrix",
    "Overrides",
    "Package",
    "PerUnit",
    "Percentage",
    "Plan",
    "Price",
    "RateTier",
    "Stairstep",
    "Tier",
    "UsageModel",
    "UsagePrice",
    "Volume",
]


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """A fee for a period; `name` is unique in the plan. `interval` is the plan's where it is None."""

    name: str
    model: Fixed
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class UsagePrice:
    """A price of a meter's quantity; `name` is unique in the plan.

    `free_units` are taken off the quantity first, and what is left alone selects tiers and packages. With
    `per_group` each group of the meter is priced by itself, free units included; without, groups are one sum.
    `minimum` and `maximum` bound the sum of the price's rounded lines, in major units. `interval` is how long the
    price's own periods are, the plan's where it is None. With `prorate`, a partial period has its share of
    minimum, maximum, free units and tiers; without, it has them whole.
    """

    name: str
    meter: str
    model: UsageModel
    free_units: Decimal = ZERO
    per_group: bool = False
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    interval: Interval | None = None
    prorate: bool = False


Price = FixedPrice | UsagePrice


@dataclass(frozen=True, slots=True)
class Discount:
    """Either `percent` of what a period costs, or `amount` off it, in major units; never below 0.

    `duration` is for how many of the subscription's periods, counted from its start, None for all of them.
    """

    name: str
    percent: Decimal | None = None
    amount: Decimal | None = None
    duration: int | None = None


@dataclass(frozen=True, slots=True)
class Commitment:
    """What the periods of an `interval` cost at least, together; the difference is due at its end (true-up)."""

    amount: Decimal
    interval: Interval


@dataclass(frozen=True, slots=True)
class Credit:
    """Prepaid credit that comes with the plan: `amount` in major units, once or at the start of `every` period.

    Lower `priority` is drawn down first. It expires `expires_days` after it is granted, never where that is None.
    `cost_basis` is what was paid for a major unit of it.
    """

    name: str
    amount: Decimal
    priority: int = 100
    expires_days: int | None = None
    cost_basis: Decimal = Decimal(1)
    every_period: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription pays: prices in one currency, a cycle and a rounding.

    `currency` is a lower-case code of `money.CURRENCIES`. Lines come in the order of `prices`. `minimum` and
    `maximum` bound what a period costs, before discounts. Nothing is billed for the first `trial_days`. When a
    running period has come to `threshold` more than was billed of it, that is billed at once.
    """

    name: str
    currency: str
    prices: tuple[Price, ...]
    cycle: Cycle = MONTHLY
    rounding: Rounding = Rounding.HALF_UP
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    discounts: tuple[Discount, ...] = ()
    commitment: Commitment | None = None
    credits: tuple[Credit, ...] = ()
    trial_days: int = 0
    threshold: Decimal | None = None

    @property
    def meters(self) -> frozenset[str]:
        """The names of the meters that the plan prices."""
        return frozenset(price.meter for price in self.prices if isinstance(price, UsagePrice))

    def under(self, overrides: "Overrides") -> "Plan":
        """Return the plan as one subscription has it.

        A price takes the place of the plan's of the same name, or comes last. Discounts and credits are added to the
        plan's; everything else that is given takes the place of the plan's.
        """
        own = {price.name: price for price in overrides.prices}
        kept = tuple(own.pop(price.name, price) for price in self.prices)
        return replace(
            self,
            prices=(*kept, *own.values()),
            rounding=overrides.rounding or self.rounding,
            minimum=self.minimum if overrides.minimum is None else overrides.minimum,
            maximum=self.maximum if overrides.maximum is None else overrides.maximum,
            discounts=(*self.discounts, *overrides.discounts),
            commitment=overrides.commitment or self.commitment,
            credits=(*self.credits, *overrides.credits),
            trial_days=self.trial_days if overrides.trial_days is None else overrides.trial_days,
            threshold=self.threshold if overrides.threshold is None else overrides.threshold,
        )


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a subscription has otherwise than its plan; None and () for what it has as the plan says."""

    prices: tuple[Price, ...] = ()
    rounding: Rounding | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    discounts: tuple[Discount, ...] = ()
    commitment: Commitment | None = None
    credits: tuple[Credit, ...] = ()
    trial_days: int | None = None
    threshold: Decimal | None = None
