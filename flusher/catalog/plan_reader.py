"""Reads a plan from its table, and writes it back as one: the form that a file and the database share."""

from decimal import Decimal
from enum import StrEnum
from typing import Final

from flusher.catalog.reader import Table
from flusher.pricing.money import CURRENCIES, Rounding, plain
from flusher.pricing.period import Anchor, Cycle, Interval
from flusher.pricing.plan import (
    ChargeTime,
    Fixed,
    FixedPrice,
    Graduated,
    Package,
    PerUnit,
    Plan,
    Price,
    Tier,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.tiers import ZERO

PRICES_MAX: Final = 100
TIERS_MAX: Final = 100

PLAN_KEYS: Final = ("name", "currency", "interval", "anchor", "rounding", "prices")
PLAN_KEYS_LATER: Final = ("discounts", "credits", "commitment", "trial", "overrides", "minimum", "maximum")
USAGE_KEYS: Final = ("name", "meter", "model", "free_units", "per_group")
PRICE_KEYS_LATER: Final = ("minimum", "maximum", "interval", "prorate")
MODELS_LATER: Final = ("stairstep", "percentage", "graduated_percentage", "matrix")


class Model(StrEnum):
    """The names of the models in a catalog."""

    FIXED = "fixed"
    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PACKAGE = "package"


MODEL_KEYS: Final = {
    Model.FIXED: ("name", "model", "amount", "charge"),
    Model.PER_UNIT: (*USAGE_KEYS, "unit_price"),
    Model.GRADUATED: (*USAGE_KEYS, "tiers"),
    Model.VOLUME: (*USAGE_KEYS, "tiers"),
    Model.PACKAGE: (*USAGE_KEYS, "package_size", "package_price"),
}
"""The keys of a price, by its model."""


def read_plan(table: Table) -> Plan | None:
    """Return the plan of a table, or None when the table's report has a problem with it."""
    mark = table.report.mark()
    name = table.text("name")
    code = _currency(table)
    cycle = Cycle(table.choice("interval", Interval, Interval.MONTH), table.choice("anchor", Anchor, Anchor.CALENDAR))
    rounding = table.choice("rounding", Rounding, Rounding.HALF_UP)
    prices = [read_price(price) for price in table.tables("prices", PRICES_MAX, required=True)]
    _distinct_names(table, prices)
    table.only(PLAN_KEYS, PLAN_KEYS_LATER)
    if not table.report.clean_since(mark):
        return None
    return Plan(name, code, tuple(price for price in prices if price), cycle, rounding)


def read_price(table: Table) -> Price | None:
    """Return the price of a table, or None when the table's report has a problem with it."""
    mark = table.report.mark()
    model = table.choice("model", Model, None, MODELS_LATER)
    if not table.report.clean_since(mark):
        return None
    table.only(MODEL_KEYS[model], PRICE_KEYS_LATER)
    price = _fixed_price(table) if model is Model.FIXED else _usage_price(table, model)
    return price if table.report.clean_since(mark) else None


def _currency(table: Table) -> str:
    """Return the plan's currency as a lower-case code."""
    mark = table.report.mark()
    code = table.text("currency").lower()
    if table.report.clean_since(mark) and code not in CURRENCIES:
        table.problem("currency", 'a three-letter currency that Stripe supports, such as "usd"')
    return code


def _distinct_names(table: Table, prices: list[Price | None]) -> None:
    """Note a price whose name another one of the plan has."""
    seen: set[str] = set()
    for number, price in enumerate(prices):
        if price is not None and price.name in seen:
            path = f"{table.at('prices')}[{number}].name"
            table.report.add(path, f'"{price.name}" names an earlier price of this plan; give each its own name')
        elif price is not None:
            seen.add(price.name)


def _fixed_price(table: Table) -> FixedPrice:
    return FixedPrice(
        table.text("name"), Fixed(table.amount("amount"), table.choice("charge", ChargeTime, ChargeTime.IN_ARREARS))
    )


def _usage_price(table: Table, model: Model) -> UsagePrice:
    meter = table.text("meter")
    return UsagePrice(
        name=table.text("name", meter),
        meter=meter,
        model=_usage_model(table, model),
        free_units=table.quantity("free_units", "0"),
        per_group=table.flag("per_group", default=False),
    )


def _usage_model(table: Table, model: Model) -> UsageModel:
    match model:
        case Model.GRADUATED:
            return Graduated(_tiers(table))
        case Model.VOLUME:
            return Volume(_tiers(table))
        case Model.PACKAGE:
            size = table.quantity("package_size", above=ZERO)
            return Package(size, table.amount("package_price"))
        case _:
            return PerUnit(table.amount("unit_price"))


def _tiers(table: Table) -> tuple[Tier, ...]:
    """Return the tiers of a price: rising, the last one and no other without `up_to`."""
    tables = list(table.tables("tiers", TIERS_MAX, required=True))
    tiers: list[Tier] = []
    below = ZERO
    for number, tier in enumerate(tables, start=1):
        tier.only(("up_to", "unit_price", "flat_fee"))
        up_to = _up_to(tier, below, last=number == len(tables))
        below = below if up_to is None else max(below, up_to)
        if not tier.has("unit_price") and not tier.has("flat_fee"):
            tier.report.add(tier.path, 'expected unit_price or flat_fee, got neither; write unit_price = "0" for free')
        tiers.append(Tier(up_to, tier.amount("unit_price", "0"), tier.amount("flat_fee", "0")))
    return tuple(tiers)


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


def plan_table(plan: Plan) -> dict[str, object]:
    """Return the plan as the table that `read_plan` reads: JSON values only, decimals as texts."""
    return {
        "name": plan.name,
        "currency": plan.currency,
        "interval": plan.cycle.interval.value,
        "anchor": plan.cycle.anchor.value,
        "rounding": plan.rounding.value,
        "prices": [_price_table(price) for price in plan.prices],
    }


def _price_table(price: Price) -> dict[str, object]:
    if isinstance(price, FixedPrice):
        fixed = price.model
        return {
            "name": price.name,
            "model": Model.FIXED.value,
            "amount": plain(fixed.amount),
            "charge": fixed.charge.value,
        }
    return {
        "name": price.name,
        "meter": price.meter,
        **_model_table(price.model),
        "free_units": plain(price.free_units),
        "per_group": price.per_group,
    }


def _model_table(model: UsageModel) -> dict[str, object]:
    match model:
        case PerUnit(unit_price):
            return {"model": Model.PER_UNIT.value, "unit_price": plain(unit_price)}
        case Graduated(tiers):
            return {"model": Model.GRADUATED.value, "tiers": [_tier_table(tier) for tier in tiers]}
        case Volume(tiers):
            return {"model": Model.VOLUME.value, "tiers": [_tier_table(tier) for tier in tiers]}
        case Package(size, price):
            return {"model": Model.PACKAGE.value, "package_size": plain(size), "package_price": plain(price)}


def _tier_table(tier: Tier) -> dict[str, object]:
    end = {} if tier.up_to is None else {"up_to": plain(tier.up_to)}
    return {**end, "unit_price": plain(tier.unit_price), "flat_fee": plain(tier.flat_fee)}
