"""Committed totals in the form that Redis holds them: by user and day. Pure."""

from collections.abc import Mapping

from sidecar.contract import keys
from sidecar.contract.meters import Amount, Counter
from sidecar.contract.scripts import DayTotals
from sidecar.contract.units import format_units


def day_totals(totals: Mapping[Counter, Amount]) -> list[DayTotals]:
    """Return totals by user and day, each with the second at which nobody asks Redis for it any more."""
    days: dict[tuple[str, int], dict[str, str]] = {}
    for counter, amount in totals.items():
        fields = days.setdefault((counter.user_id, keys.day_of(counter.window)), {})
        fields[keys.total_field(counter)] = f"{amount.events} {format_units(amount.nanos)}"
    return [
        DayTotals(user_id, day, (day + keys.LIVE_DAYS + 1) * 86_400, fields) for (user_id, day), fields in days.items()
    ]
