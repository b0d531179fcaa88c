"""What meters show, said again in plain Python over all events at once: no drains, no windows, no tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from sidecar.contract.meters import Meter

Group = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Happened:
    """An event that counts once. Its key orders it among those of the same time."""

    user_id: str
    time_us: int
    key: bytes
    units: Decimal
    properties: dict[str, object] = field(default_factory=dict)


@dataclass
class Shown:
    """What a meter shows of a group: a quantity, the number of events, and their values by time and key."""

    quantity: Decimal
    events: int
    values: list[Decimal]


def shown(
    meter: Meter, events: Iterable[Happened], users: Sequence[str], start_us: int, end_us: int, *, per_group: bool
) -> dict[Group, Shown]:
    """Returns what the meter shows for the users together from `start_us` up to `end_us`, by group where asked."""
    counted = [one for one in events if one.user_id in users and _counts(meter, one)]
    counted.sort(key=lambda one: (one.time_us, one.key))
    apart = sorted({(_group(meter, one) if per_group else ()) for one in counted})
    found = {}
    for group in apart:
        mine = [one for one in counted if not per_group or _group(meter, one) == group]
        inside = [one for one in mine if start_us <= one.time_us < end_us]
        if inside or (meter.aggregation == "weighted_sum" and any(one.time_us < start_us for one in mine)):
            quantity = _nine(_quantity(meter, mine, inside, start_us, end_us))
            found[group] = Shown(quantity, len(inside), [_value(meter, one) for one in inside])
    return found


def _counts(meter: Meter, one: Happened) -> bool:
    if meter.aggregation != "count" and meter.field != "units" and _property(meter) not in one.properties:
        return False
    return all(
        name in one.properties and _text(one.properties[name]) in allowed for name, allowed in meter.filter.items()
    )


def _quantity(meter: Meter, mine: list[Happened], inside: list[Happened], start_us: int, end_us: int) -> Fraction:
    values = [Fraction(_value(meter, one)) for one in inside]
    match meter.aggregation:
        case "sum":
            return sum(values, Fraction(0))
        case "count":
            return Fraction(len(inside))
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "avg":
            return sum(values, Fraction(0)) / len(values)
        case "unique":
            return Fraction(len({_text(one.properties[_property(meter)]) for one in inside}))
        case "latest":
            last = {_level(meter, one): Fraction(_value(meter, one)) for one in inside}
            return sum(last.values(), Fraction(0))
        case "weighted_sum":
            return _weighted(meter, mine, start_us, end_us)


def _weighted(meter: Meter, mine: list[Happened], start_us: int, end_us: int) -> Fraction:
    """Adds up, microsecond by microsecond in effect, the levels that hold between one event and the next."""
    area = Fraction(0)
    for level in {_level(meter, one) for one in mine}:
        steps = [one for one in mine if _level(meter, one) == level]
        ends = [*(one.time_us for one in steps[1:]), end_us]
        for one, until_us in zip(steps, ends, strict=True):
            held_us = min(until_us, end_us) - max(one.time_us, start_us)
            area += Fraction(_value(meter, one)) * max(0, held_us)
    return area / (end_us - start_us)


def _level(meter: Meter, one: Happened) -> tuple[str, Group]:
    return one.user_id, _group(meter, one)


def _group(meter: Meter, one: Happened) -> Group:
    return tuple(sorted((name, _text(one.properties[name])) for name in meter.group_by if name in one.properties))


def _property(meter: Meter) -> str:
    return meter.field.removeprefix("properties.")


def _value(meter: Meter, one: Happened) -> Decimal:
    if meter.aggregation == "count":
        return Decimal(1)
    value = one.units if meter.field == "units" else one.properties[_property(meter)]
    return Decimal(0) if isinstance(value, str | bool) else Decimal(str(value))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nine(exact: Fraction) -> Decimal:
    """Rounds to 9 fractional digits, halves away from zero."""
    scaled = abs(exact) * 10**9
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Decimal(-whole if exact < 0 else whole).scaleb(-9)
