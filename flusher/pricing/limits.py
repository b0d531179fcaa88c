"""Minimums and maximums: the difference between what was rated and a limit, as a part of its own."""

from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.money import grouped

ONE = Decimal(1)


def missing(base: Decimal, minimum: Decimal, label: str) -> Part | None:
    """Return what brings `base` up to `minimum`, None where it is there. Both are rounded amounts."""
    return _difference(minimum, base, label) if base < minimum else None


def excess(base: Decimal, maximum: Decimal, label: str) -> Part | None:
    """Return what brings `base` down to `maximum`, below 0; None where it is not above. Both are rounded amounts."""
    return _difference(maximum, base, label) if base > maximum else None


def _difference(limit: Decimal, base: Decimal, label: str) -> Part:
    amount = limit - base
    working = f"{grouped(limit)} - {grouped(base)} = {grouped(amount)}"
    return Part(ONE, amount, amount, label, working=working)
