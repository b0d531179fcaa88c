"""Tiers, shared by the models that have them: what each covers and how its units are called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol

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


@dataclass(frozen=True, slots=True)
class RateTier:
    """A range of money. `up_to` is inclusive, and None in the last tier only.

    `rate` is in percent, `flat_fee` in major units of the plan's currency.
    """

    up_to: Decimal | None
    rate: Decimal = ZERO
    flat_fee: Decimal = ZERO


class Bounded(Protocol):
    """Anything with the end of a range."""

    @property
    def up_to(self) -> Decimal | None:
        """Where it ends, inclusive; None in the last one."""


class Share(NamedTuple):
    """What falls into one tier: `inside` units above `below`, the end of the tier before. `number` counts from 1."""

    number: int
    inside: Decimal
    below: Decimal


def shares(tiers: Sequence[Bounded], quantity: Decimal) -> Iterator[Share]:
    """Yield the share of each tier that is entered, lowest first; `quantity` is above 0.

    A tier covers what is above the one before it, up to and including its own `up_to`: at exactly `up_to` the next
    tier is not entered. One that proration left without width is never entered.
    """
    below = ZERO
    for number, tier in enumerate(tiers, start=1):
        if quantity <= below:
            return
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        if top > below:
            yield Share(number, top - below, below)
        below = top


def holding(tiers: Sequence[Bounded], quantity: Decimal) -> int:
    """Return the number, from 1, of the tier that holds `quantity`: the first whose `up_to` is not below it."""
    return next(number for number, tier in enumerate(tiers, start=1) if tier.up_to is None or quantity <= tier.up_to)


def units(quantity: Decimal) -> str:
    """Return a quantity with its noun: "1 unit", "1,000 units"."""
    return "1 unit" if quantity == 1 else f"{grouped(quantity)} units"


def place(share: Share, tiers: Sequence[Bounded], text: str) -> str:
    """Return which part of the whole a share is, for the customer: "first ...", "next ...", "... above 10,000"."""
    if len(tiers) == 1:
        return text
    if share.number == len(tiers):
        return f"{text} above {grouped(share.below)}"
    return f"{'next' if share.below else 'first'} {text}"


def fee_note(flat_fee: Decimal) -> str:
    """Return what a label adds for a flat fee, or nothing where there is none."""
    return f", plus a flat fee of {plain(flat_fee)}" if flat_fee else ""


def product(quantity: Decimal, unit_price: Decimal, flat_fee: Decimal = ZERO) -> str:
    """Return the working of quantity times price plus fee: "9,000 x 0.01 + 5 = 95"."""
    fee = f" + {grouped(flat_fee)}" if flat_fee else ""
    return f"{grouped(quantity)} x {plain(unit_price)}{fee} = {grouped(quantity * unit_price + flat_fee)}"
