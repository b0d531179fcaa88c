"""Tiers, shared by the models that have them: what each covers and how its units are called."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.money import grouped, plain

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tier:
    """A range of quantity. `up_to` is inclusive, and None in the last tier only.

    `unit_price` and `flat_fee` are in major units of the plan's currency.
    """

    up_to: Decimal | None
    unit_price: Decimal = ZERO
    flat_fee: Decimal = ZERO


def units(quantity: Decimal) -> str:
    """Return a quantity with its noun: "1 unit", "1,000 units"."""
    return "1 unit" if quantity == 1 else f"{grouped(quantity)} units"


def fee_note(flat_fee: Decimal) -> str:
    """Return what a label adds for a flat fee, or nothing where there is none."""
    return f", plus a flat fee of {plain(flat_fee)}" if flat_fee else ""
