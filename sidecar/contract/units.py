"""Exact decimals without floats: every quantity is an int of *nanos*, the value times 10^9.

Python's ints never lose a digit. Redis counts in signed 64-bit fields, which one value of 24 digits would overflow,
so a quantity is split into limbs of 9 digits that are summed apart (`split`) and put together again (`join`).
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

NANO: Final = 10**9
UNITS_BOUND: Final = 10**15
NANOS_BOUND: Final = UNITS_BOUND * NANO
LIMBS: Final = 3  # nanos, units, and units of 10^9: each below 10^9 in one event

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,9}))?", re.ASCII)


def parse_units(text: str) -> int | None:
    """Return the nanos that the decimal `text` means, or None when it is not a decimal of this form.

    At most 15 digits before the point and 9 behind it; no exponent, no plus sign, no leading zeros, ASCII only.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match.groups()
    nanos = int(whole) * NANO + (int(fraction.ljust(9, "0")) if fraction else 0)
    return -nanos if text.startswith("-") else nanos


def format_units(nanos: int) -> str:
    """Return the shortest decimal text of `nanos`: `"12"`, `"-0.5"`; never an exponent, never trailing zeros."""
    whole, fraction = divmod(abs(nanos), NANO)
    sign = "-" if nanos < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:09d}".rstrip("0")


def to_decimal(nanos: int) -> Decimal:
    """Return `nanos` as a Decimal in units, exact at any size."""
    return Decimal(format_units(nanos))


def from_decimal(units: Decimal) -> int:
    """Return a Decimal in units as nanos. Raises ValueError when it has more than 9 fractional digits."""
    sign, digits, exponent = units.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"units: expected a finite decimal, got {units}")
    value = int("".join(map(str, digits)) or "0")
    shift = exponent + 9
    if shift >= 0:
        value *= int(10**shift)
    else:
        value, lost = divmod(value, int(10**-shift))
        if lost:
            raise ValueError(f"units: expected at most 9 fractional digits, got {units}")
    return -value if sign else value


def from_text(text: str) -> int:
    """Return the nanos of a sum of units as `format_units` writes it, of any size. Raises ValueError otherwise."""
    try:
        return from_decimal(Decimal(text))
    except InvalidOperation as error:
        raise ValueError(f"units: expected a decimal, got {text!r}") from error


def split(nanos: int) -> tuple[int, int, int]:
    """Return the limbs (nanos, units, units of 10^9) of a quantity; all have its sign."""
    sign = -1 if nanos < 0 else 1
    rest, low = divmod(abs(nanos), NANO)
    high, middle = divmod(rest, NANO)
    return sign * low, sign * middle, sign * high


def join(low: int, middle: int, high: int) -> int:
    """Return the quantity whose limbs, or whose sums of limbs, these are."""
    return low + middle * NANO + high * NANO * NANO
