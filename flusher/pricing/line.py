"""What rating gives: the lines of an invoice, and the parts that the models make them from."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from enum import StrEnum

from flusher.pricing.money import EXACT, Currency, format_amount, plain
from flusher.pricing.period import Period

Dimensions = tuple[tuple[str, str], ...]
"""A group of a meter: (property, value) pairs in the order of the property's name."""


class LineKind(StrEnum):
    """What a line bills."""

    USAGE = "usage"
    FIXED = "fixed"
    MINIMUM = "minimum"
    """What is missing from a minimum of a price or an invoice, or from a commitment."""
    MAXIMUM = "maximum"
    """What is above a maximum of a price or an invoice; negative."""
    DISCOUNT = "discount"
    """Negative, but where it gives back what was taken off too much in advance."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a model makes of a quantity, before rounding; each becomes one line.

    `tier` counts from 1, None where the model has no tiers. `amount` / `divisor` is exact. `label` says to the
    customer which units these are. `quantity` times `unit_price`, plus the flat fee that `label` names, is the amount;
    where more goes into it (a share of a period, limits per event), `label` says so. `working` is the formula for
    support: "9,000 x 0.01 = 90". `dimensions` is what a matrix's entry matched, None for other models.
    """

    quantity: Decimal
    unit_price: Decimal
    amount: Decimal
    label: str
    tier: int | None = None
    working: str = ""
    divisor: int = 1
    dimensions: Dimensions | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice, rounded; the fields of `lines` in an invoice's JSON.

    `working` says how the amount came about and was rounded: "9,000 x 0.01 = 90; rounded half up to 0.01: 90.00".
    """

    id: str
    kind: LineKind
    price: str
    meter: str | None
    dimensions: Dimensions | None
    tier: int | None
    period: Period
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount: Decimal
    working: str = ""


def line_id(
    scope: str, kind: LineKind, price: str, dimensions: Dimensions | None, tier: int | None, period: Period
) -> str:
    """Return the id of a line: the same line of the same invoice has the same id whenever it is rated.

    `scope` is whatever the lines belong to, usually the invoice's id. Parts are length-prefixed, so that no
    two different lists of parts read the same.
    """
    parts = [scope, kind.value, price, "" if tier is None else str(tier)]
    parts += [period.start.isoformat(), period.end.isoformat()]
    parts += [text for pair in dimensions or () for text in pair]
    encoded = [part.encode() for part in parts]
    named = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return f"line_{hashlib.sha256(named).hexdigest()[:24]}"


def total(lines: Iterable[Line]) -> Decimal:
    """Return the sum of the lines' rounded amounts: that is what an invoice's total is."""
    with localcontext(EXACT):
        return sum((line.amount for line in lines), Decimal(0))


def line_json(line: Line, currency: Currency) -> dict[str, object]:
    """Return a line in the shape of interface.md: decimals are strings, times RFC 3339 in UTC."""
    return {
        "id": line.id,
        "kind": line.kind.value,
        "price": line.price,
        "meter": line.meter,
        "dimensions": None if line.dimensions is None else dict(line.dimensions),
        "tier": line.tier,
        "period": {"from": rfc3339(line.period.start), "to": rfc3339(line.period.end)},
        "description": line.description,
        "quantity": plain(line.quantity),
        "unit_price": plain(line.unit_price),
        "amount": format_amount(line.amount, currency),
        "working": line.working,
    }


def rfc3339(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC with a final Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def dimensions_of(group: Mapping[str, str]) -> Dimensions:
    """Return a group in the form that lines carry: pairs in the order of the property's name."""
    return tuple(sorted(group.items()))
