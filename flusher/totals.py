"""Committed totals in the form that Redis holds them: by user and day. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sidecar.contract import keys
from sidecar.contract.meters import Amount, Counter, canonical_dimensions
from sidecar.contract.scripts import DayTotals
from sidecar.contract.units import format_units

PART_SEPARATOR: Final = "\x1e"  # no string of an event may hold a control character
DIMENSIONS_CACHED: Final = 100_000


def day_totals(totals: Mapping[Counter, Amount]) -> list[DayTotals]:
    """Return totals by user and day, each with the second at which nobody asks Redis for it any more."""
    days: dict[tuple[str, int], dict[str, str]] = {}
    for counter, amount in totals.items():
        fields = days.setdefault((counter.user_id, keys.day_of(counter.window)), {})
        fields[keys.total_field(counter)] = f"{amount.events} {format_units(amount.nanos)}"
    return [DayTotals(user_id, day, _expires_at_s(day), fields) for (user_id, day), fields in days.items()]


def day_totals_of_text(user_id: str, day: int, text: str) -> DayTotals:
    """Return the totals of a user's day from the text that `read_day_totals` puts together: field, value, field, ...

    There are millions of them when a generation is opened, so each costs a split and a look into a cache.
    """
    parts = text.split(PART_SEPARATOR)
    fields = map(_canonical_field, parts[::2])
    return DayTotals(user_id, day, _expires_at_s(day), dict(zip(fields, parts[1::2], strict=True)))


def _expires_at_s(day: int) -> int:
    return (day + keys.LIVE_DAYS + 1) * 86_400


def _canonical_field(field: str) -> str:
    """Return the field with its dimensions as the contract writes them: jsonb writes spaces, and another order."""
    if field.endswith("{}"):
        return field
    stem, separator, dimensions = field.rpartition(keys.SEPARATOR)
    return stem + separator + _canonical(dimensions)


_canonical = lru_cache(DIMENSIONS_CACHED)(canonical_dimensions)
