"""Reads one price of a plan, of any model, from its table."""

from decimal import Decimal
from enum import StrEnum
from typing import Final

from flusher.catalog.reader import FloatText, Table, shown, text_fault
from flusher.pricing.around import RESERVED
from flusher.pricing.line import Dimensions, dimensions_of
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    ChargeTime,
    Entry,
    Fixed,
    FixedPrice,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Price,
    RateTier,
    Stairstep,
    Tier,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.tiers import ZERO
from sidecar.contract.meters import property_text

TIERS_MAX: Final = 100
ENTRIES_MAX: Final = 1_000
FREE_EVENTS_MAX: Final = 1_000_000

FIXED_KEYS: Final = ("name", "model", "interval")
USAGE_KEYS: Final = (
    *("name", "meter", "model", "free_units", "per_group"),
    *("minimum", "maximum", "interval", "prorate"),
)


class Model(StrEnum):
    """The names of the models in a catalog."""

    FIXED = "fixed"
    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    STAIRSTEP = "stairstep"
    PACKAGE = "package"
    PERCENTAGE = "percentage"
    GRADUATED_PERCENTAGE = "graduated_percentage"
    MATRIX = "matrix"


MODEL_KEYS: Final = {
    Model.FIXED: (*FIXED_KEYS, "amount", "charge"),
    Model.PER_UNIT: (*USAGE_KEYS, "unit_price"),
    Model.GRADUATED: (*USAGE_KEYS, "tiers"),
    Model.VOLUME: (*USAGE_KEYS, "tiers"),
    Model.STAIRSTEP: (*USAGE_KEYS, "tiers"),
    Model.PACKAGE: (*USAGE_KEYS, "package_size", "package_price"),
    Model.PERCENTAGE: (
        *(*USAGE_KEYS, "rate", "fee_per_event", "free_events"),
        *("minimum_per_event", "maximum_per_event"),
    ),
    Model.GRADUATED_PERCENTAGE: (*USAGE_KEYS, "tiers"),
    Model.MATRIX: (*USAGE_KEYS, "prices", "unmatched"),
}
"""The keys of a price, by its model."""


class _Unmatched(StrEnum):
    FREE = "free"


def read_price(table: Table) -> Price | None:
    """Return the price of a table, or None when the table's report has a problem with it."""
    mark = table.report.mark()
    model = table.choice("model", Model, None)
    if not table.report.clean_since(mark):
        return None
    table.only(MODEL_KEYS[model])
    price = _fixed_price(table) if model is Model.FIXED else _usage_price(table, model)
    if price.name in RESERVED:
        names = ", ".join(f'"{name}"' for name in RESERVED)
        key = "name" if table.has("name") else "meter"
        table.problem(key, f"another name for the price than {names}", "lines of an invoice have these; give it a name")
    return price if table.report.clean_since(mark) else None


def read_limits(table: Table, low: str = "minimum", high: str = "maximum") -> tuple[Decimal | None, Decimal | None]:
    """Return a minimum and a maximum, each None where it is absent; note a minimum above the maximum."""
    mark = table.report.mark()
    minimum, maximum = optional_amount(table, low), optional_amount(table, high)
    if minimum is not None and maximum is not None and minimum > maximum and table.report.clean_since(mark):
        table.problem(low, f"at most the {high.replace('_', ' ')}, {maximum}")
    return minimum, maximum


def optional_amount(table: Table, key: str) -> Decimal | None:
    """Return money in major units, None where it is absent."""
    return table.amount(key) if table.has(key) else None


def _interval(table: Table) -> Interval | None:
    """Return a price's own interval, None for its plan's."""
    return table.choice("interval", Interval, None) if table.has("interval") else None


def _fixed_price(table: Table) -> FixedPrice:
    charge = table.choice("charge", ChargeTime, ChargeTime.IN_ARREARS)
    return FixedPrice(table.text("name"), Fixed(table.amount("amount"), charge), _interval(table))


def _usage_price(table: Table, model: Model) -> UsagePrice:
    meter = table.text("meter")
    minimum, maximum = read_limits(table)
    price = UsagePrice(
        name=table.text("name", meter),
        meter=meter,
        model=_usage_model(table, model),
        free_units=table.quantity("free_units", "0"),
        per_group=table.flag("per_group", default=False),
        minimum=minimum,
        maximum=maximum,
        interval=_interval(table),
        prorate=table.flag("prorate", default=False),
    )
    if isinstance(price.model, Percentage) and price.model.is_per_event and price.free_units:
        expected = "none beside free_events, minimum_per_event or maximum_per_event"
        table.problem("free_units", expected, "which events they would be of is not defined; use free_events")
    return price


def _usage_model(table: Table, model: Model) -> UsageModel:
    match model:
        case Model.GRADUATED:
            return Graduated(_tiers(table))
        case Model.VOLUME:
            return Volume(_tiers(table))
        case Model.STAIRSTEP:
            return Stairstep(_steps(table))
        case Model.PACKAGE:
            size = table.quantity("package_size", above=ZERO)
            return Package(size, table.amount("package_price"))
        case Model.PERCENTAGE:
            return _percentage(table)
        case Model.GRADUATED_PERCENTAGE:
            return GraduatedPercentage(_rate_tiers(table))
        case Model.MATRIX:
            return _matrix(table)
        case _:
            return PerUnit(table.amount("unit_price"))


def _percentage(table: Table) -> Percentage:
    minimum, maximum = read_limits(table, "minimum_per_event", "maximum_per_event")
    return Percentage(
        rate=table.rate("rate"),
        fee_per_event=table.amount("fee_per_event", "0"),
        free_events=table.integer("free_events", 0, 0, FREE_EVENTS_MAX),
        minimum_per_event=minimum,
        maximum_per_event=maximum,
    )


def _tiers(table: Table) -> tuple[Tier, ...]:
    return tuple(
        Tier(up_to, tier.amount("unit_price", "0"), tier.amount("flat_fee", "0"))
        for tier, up_to in _ends(table, "unit_price", "flat_fee")
    )


def _steps(table: Table) -> tuple[Tier, ...]:
    return tuple(Tier(up_to, flat_fee=tier.amount("flat_fee", "0")) for tier, up_to in _ends(table, "flat_fee"))


def _rate_tiers(table: Table) -> tuple[RateTier, ...]:
    return tuple(
        RateTier(up_to, tier.rate("rate", "0"), tier.amount("flat_fee", "0"))
        for tier, up_to in _ends(table, "rate", "flat_fee")
    )


def _ends(table: Table, *keys: str) -> list[tuple[Table, Decimal | None]]:
    """Return the tables of the tiers with their ends: rising, the last one and no other without `up_to`.

    `keys` are what a tier may say beside; it says at least one of them.
    """
    tables = list(table.tables("tiers", TIERS_MAX, required=True))
    found = []
    below = ZERO
    for number, tier in enumerate(tables, start=1):
        tier.only(("up_to", *keys))
        up_to = _up_to(tier, below, last=number == len(tables))
        below = below if up_to is None else max(below, up_to)
        if not any(tier.has(key) for key in keys):
            came = "got neither" if len(keys) > 1 else "it is missing"
            tier.report.add(tier.path, f'expected {" or ".join(keys)}, {came}; write {keys[0]} = "0" for free')
        found.append((tier, up_to))
    return found


def _up_to(tier: Table, below: Decimal, *, last: bool) -> Decimal | None:
    """Return where a tier ends, None for the last."""
    if last:
        if tier.has("up_to"):
            tier.problem("up_to", "none in the last tier", "the last tier holds all that is above; leave it out")
        return None
    if not tier.has("up_to"):
        tier.problem("up_to", "a quantity", "only the last tier is without")
        return None
    return tier.quantity("up_to", above=below)


def _matrix(table: Table) -> Matrix:
    """Return a matrix whose every entry can be reached, and that says what no other entry matches."""
    mark = table.report.mark()
    unmatched_is_free = table.has("unmatched") and table.choice("unmatched", _Unmatched, None) is _Unmatched.FREE
    tables = list(table.tables("prices", ENTRIES_MAX, required=True))
    entries: list[Entry] = []
    for entry in tables:
        entry.only(("match", "unit_price"))
        match = _match(entry)
        earlier = next((number for number, other in enumerate(entries) if other.matches(match)), None)
        if earlier is not None and table.report.clean_since(mark):
            first = f"{table.at('prices')}[{earlier}]"
            text = f"{first} comes first and matches all that this one does; put this one before it, or leave it out"
            entry.report.add(entry.at("match"), text)
        entries.append(Entry(match, entry.amount("unit_price")))
    if entries and entries[-1].match and not unmatched_is_free and table.report.clean_since(mark):
        remedy = 'or unmatched = "free" beside prices'
        tables[-1].problem("match", "match = {} in the last entry, for all that no other matches", remedy)
    return Matrix(tuple(entries))


def _match(entry: Table) -> Dimensions:
    """Return the pairs of a match; integers and booleans as the text that events are grouped by."""
    if not entry.has("match"):
        entry.problem("match", 'a table, such as {region = "eu"}', "write match = {} for all others")
    inner = entry.table("match")
    pairs = {}
    for key, value in inner.values.items():
        fault = text_fault(value) if isinstance(value, str) else None
        if isinstance(value, FloatText) or not isinstance(value, str | int) or fault:
            inner.report.add(
                inner.at(key), f"{fault or 'expected a text, an integer or a boolean'}, got {shown(value)}"
            )
        else:
            pairs[key] = property_text(value)
    return dimensions_of(pairs)
