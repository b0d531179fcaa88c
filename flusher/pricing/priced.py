"""What one price costs over one of its own periods: its lines, and those of its own minimum and maximum."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.limits import excess, missing
from flusher.pricing.line import Dimensions, Line, LineKind, Part, total
from flusher.pricing.matrix import Matrix
from flusher.pricing.measure import QUANTITY_LIMIT, Need, Reading, Run
from flusher.pricing.money import grouped
from flusher.pricing.percentage import Percentage
from flusher.pricing.period import BillingPeriod
from flusher.pricing.plan import FixedPrice, UsagePrice
from flusher.pricing.prorate import prorated
from flusher.pricing.share import share, share_note
from flusher.pricing.tiers import ZERO, units
from flusher.pricing.writing import Writer


def need_of(price: UsagePrice, own: BillingPeriod) -> Need:
    """Return what a price reads of its meter over one of its own periods."""
    model = price.model
    free_events = model.free_events if isinstance(model, Percentage) and model.is_per_event else None
    return Need(price.meter, own.period, free_events, price.per_group or isinstance(model, Matrix))


def fixed_charge(price: FixedPrice, own: BillingPeriod, write: Writer) -> Charge:
    """Return a fee for one of its own periods, its share of a partial one."""
    line = write.line(LineKind.FIXED, price.name, own.period, price.model.part(own))
    return Charge(ChargeKind.PRICE, price.name, own.period, (line,))


def usage_charge(price: UsagePrice, own: BillingPeriod, reading: Reading, write: Writer) -> Charge:
    """Return what usage costs over one of its price's own periods, with the price's own minimum and maximum.

    Raises `ValueError` for a quantity that is not finite or too large, and for units of single events that don't make
    up the reading.
    """
    if price.prorate and own.is_partial:
        price = prorated(price, own)
    lines = []
    for used in _together(price, reading):
        for part in _parts(price, used):
            dimensions = part.dimensions if used.dimensions is None else used.dimensions
            lines.append(
                write.line(
                    LineKind.USAGE,
                    price.name,
                    own.period,
                    part,
                    meter=price.meter,
                    dimensions=dimensions,
                    description=_describe(price, used.dimensions, part),
                )
            )
    lines += _limits(price, own, lines, write)
    return Charge(ChargeKind.PRICE, price.name, own.period, tuple(lines), price.meter, reading.quantity, reading.events)


@dataclass(slots=True)
class _Used:
    """What is priced together: everything, or one group."""

    dimensions: Dimensions | None
    quantity: Decimal = ZERO
    events: int = 0
    runs: list[Run] = field(default_factory=list)
    groups: list[tuple[Dimensions, Decimal]] = field(default_factory=list)


def _together(price: UsagePrice, reading: Reading) -> list[_Used]:
    """Return what is priced together, in the order of the dimensions."""
    found: dict[Dimensions | None, _Used] = {}
    for measure in reading.measures:
        if not measure.quantity.is_finite() or abs(measure.quantity) >= QUANTITY_LIMIT:
            raise ValueError(f"meter {price.meter}: expected a quantity below 10^27, got {measure.quantity}")
        key = measure.dimensions if price.per_group else None
        used = found.setdefault(key, _Used(key))
        used.quantity += measure.quantity
        used.events += measure.events
        used.runs += measure.runs
        used.groups.append((measure.dimensions, measure.quantity))
    return sorted(found.values(), key=lambda used: used.dimensions or ())


def _parts(price: UsagePrice, used: _Used) -> tuple[Part, ...]:
    """Return what the price's model makes of what was used, less the free units; nothing where nothing is left."""
    if isinstance(price.model, Matrix):
        return price.model.parts(used.groups, price.free_units)
    quantity = used.quantity - price.free_units
    if quantity <= 0:
        return ()
    if isinstance(price.model, Percentage):
        return price.model.parts(quantity, used.events, used.runs)
    return price.model.parts(quantity)


def _describe(price: UsagePrice, dimensions: Dimensions | None, part: Part) -> str:
    """Return the line's text for the customer: "api_call, first 1,000 units"."""
    group = "".join(f" ({name} {value})" for name, value in dimensions or ())
    free = f", after {units(price.free_units)} free" if price.free_units and part.dimensions is None else ""
    return f"{price.name}{group}, {part.label}{free}"


def _limits(price: UsagePrice, own: BillingPeriod, lines: Iterable[Line], write: Writer) -> Iterator[Line]:
    """Yield the line that brings the sum of the price's rounded lines to its minimum or its maximum."""
    base = total(lines)
    covered, whole = share(own) if price.prorate else (1, 1)
    note = f", {share_note(own)}" if price.prorate and own.is_partial else ""
    for kind, limit, compare in (
        (LineKind.MINIMUM, price.minimum, missing),
        (LineKind.MAXIMUM, price.maximum, excess),
    ):
        if limit is None:
            continue
        part = compare(base, write.rounded(limit * covered, whole), f"{kind} of {grouped(limit)}{note}")
        if part is not None:
            yield write.line(kind, price.name, own.period, part, meter=price.meter)
