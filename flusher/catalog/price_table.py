"""Writes a price as the table that it was or could have been read from: JSON values only, decimals as texts."""

from collections.abc import Iterable
from decimal import Decimal

from flusher.catalog.price_reader import Model
from flusher.pricing.money import plain
from flusher.pricing.plan import (
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
    Volume,
)

TableOut = dict[str, object]


def price_table(price: Price) -> TableOut:
    """Return the price as the table that `read_price` reads, without optional keys that are absent."""
    interval = {} if price.interval is None else {"interval": price.interval.value}
    if isinstance(price, FixedPrice):
        return {"name": price.name, **_fixed_table(price.model), **interval}
    return {
        "name": price.name,
        "meter": price.meter,
        **_model_table(price.model),
        "free_units": plain(price.free_units),
        "per_group": price.per_group,
        **amounts_table(minimum=price.minimum, maximum=price.maximum),
        **interval,
        **({"prorate": True} if price.prorate else {}),
    }


def amounts_table(**amounts: Decimal | None) -> TableOut:
    """Return amounts by key, without those that are absent."""
    return {key: plain(amount) for key, amount in amounts.items() if amount is not None}


def _fixed_table(fixed: Fixed) -> TableOut:
    return {"model": Model.FIXED.value, "amount": plain(fixed.amount), "charge": fixed.charge.value}


def _model_table(model: UsageModel) -> TableOut:
    match model:
        case PerUnit(unit_price):
            return {"model": Model.PER_UNIT.value, "unit_price": plain(unit_price)}
        case Graduated(tiers):
            return {"model": Model.GRADUATED.value, "tiers": _tiers_table(tiers)}
        case Volume(tiers):
            return {"model": Model.VOLUME.value, "tiers": _tiers_table(tiers)}
        case Stairstep(tiers):
            steps = [{**_end(tier), "flat_fee": plain(tier.flat_fee)} for tier in tiers]
            return {"model": Model.STAIRSTEP.value, "tiers": steps}
        case Package(size, price):
            return {"model": Model.PACKAGE.value, "package_size": plain(size), "package_price": plain(price)}
        case Percentage():
            return {"model": Model.PERCENTAGE.value, **_percentage_table(model)}
        case GraduatedPercentage(rates):
            steps = [{**_end(tier), "rate": plain(tier.rate), "flat_fee": plain(tier.flat_fee)} for tier in rates]
            return {"model": Model.GRADUATED_PERCENTAGE.value, "tiers": steps}
        case Matrix():
            return {"model": Model.MATRIX.value, **_matrix_table(model)}


def _percentage_table(model: Percentage) -> TableOut:
    return {
        "rate": plain(model.rate),
        "fee_per_event": plain(model.fee_per_event),
        "free_events": model.free_events,
        **amounts_table(minimum_per_event=model.minimum_per_event, maximum_per_event=model.maximum_per_event),
    }


def _matrix_table(model: Matrix) -> TableOut:
    prices = [{"match": dict(entry.match), "unit_price": plain(entry.unit_price)} for entry in model.entries]
    return {"prices": prices, **({"unmatched": "free"} if model.entries[-1].match else {})}


def _tiers_table(tiers: Iterable[Tier]) -> list[TableOut]:
    return [{**_end(tier), "unit_price": plain(tier.unit_price), "flat_fee": plain(tier.flat_fee)} for tier in tiers]


def _end(tier: Tier | RateTier) -> TableOut:
    return {} if tier.up_to is None else {"up_to": plain(tier.up_to)}
