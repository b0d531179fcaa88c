"""Model `matrix`: what a unit costs depends on its group, say on its region.

The meaning is that of interface.md: the first entry that matches counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Dimensions, Part
from flusher.pricing.tiers import ZERO, product, units


@dataclass(frozen=True, slots=True)
class Entry:
    """A price for the groups that have all pairs of `match`; () for every group."""

    match: Dimensions
    unit_price: Decimal

    def matches(self, group: Dimensions) -> bool:
        """Whether a group has all pairs."""
        return all(pair in group for pair in self.match)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A group pays what the first entry says that matches it, and nothing where none does.

    A catalog lets none be without only where it says so (`unmatched = "free"`).
    """

    entries: tuple[Entry, ...]

    def parts(self, groups: Iterable[tuple[Dimensions, Decimal]], free_units: Decimal) -> tuple[Part, ...]:
        """Return a part for each entry with a quantity above 0, in their order.

        A group that corrections brought below 0 is netted with the others of its entry. `free_units` are taken from
        the entries in their order.
        """
        quantities = [ZERO] * len(self.entries)
        for group, quantity in groups:
            number = self._number(group)
            if number is not None:
                quantities[number] += quantity
        parts = []
        for entry, quantity in zip(self.entries, quantities, strict=True):
            free = min(free_units, max(ZERO, quantity))
            free_units -= free
            if quantity > free:
                parts.append(self._part(entry, quantity - free, free))
        return tuple(parts)

    def _number(self, group: Dimensions) -> int | None:
        """Return the place of the entry that a group falls under."""
        return next((number for number, entry in enumerate(self.entries) if entry.matches(group)), None)

    def _part(self, entry: Entry, quantity: Decimal, free: Decimal) -> Part:
        where = ", ".join(f"{name} {value}" for name, value in entry.match)
        if not where and len(self.entries) > 1:
            where = "all others"
        label = f"{units(quantity)}{f' ({where})' if where else ''}{f', after {units(free)} free' if free else ''}"
        working = product(quantity, entry.unit_price)
        amount = quantity * entry.unit_price
        return Part(quantity, entry.unit_price, amount, label, working=working, dimensions=entry.match)
