"""Properties of an event in their one canonical form: JSON text with sorted keys and exact numbers. Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from sidecar.contract.event import EVENT_BYTES_MAX, PROPERTIES_MAX, STRING_BYTES_MAX
from sidecar.fields import NumberText, Refusal, shown, shown_name, string_problem

# What an event of the longest strings has left, so that every event stays within its limit. Counted as normalised.
PROPERTIES_BYTES_MAX: Final = EVENT_BYTES_MAX - 4 * STRING_BYTES_MAX
NUMBER_DIGITS_MAX: Final = 40  # before the point, and behind it
NUMBER_CHARS_MAX: Final = 120  # of a number as it was written

_encode = msgspec.json.Encoder(order="sorted").encode


def _number_text(name: str, value: int | NumberText) -> str:
    """Return the shortest plain decimal of a number, so that 0.30, 3e-1 and 0.3 are one value."""
    refusal = Refusal(
        "properties_invalid",
        name,
        f"expected a number of at most {NUMBER_DIGITS_MAX} digits before and behind the point, got {shown(value)}",
    )
    if isinstance(value, int):
        if abs(value) >= 10**NUMBER_DIGITS_MAX:
            raise refusal
        return str(value)
    if len(value) > NUMBER_CHARS_MAX:
        raise refusal
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise refusal from None
    if number.is_zero():
        return "0"
    if not number.is_finite() or not -NUMBER_DIGITS_MAX <= number.adjusted() < NUMBER_DIGITS_MAX:
        raise refusal
    whole, _, fraction = format(number, "f").partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > NUMBER_DIGITS_MAX:
        raise refusal
    return f"{whole}.{fraction}" if fraction else whole


def _canonical_value(name: str, value: object) -> str | bool | msgspec.Raw:
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        value = NumberText(repr(value))
    if isinstance(value, int | NumberText):
        return msgspec.Raw(_number_text(name, value).encode())
    if isinstance(value, str):
        problem = string_problem(value, empty=True)
        if problem:
            raise Refusal("properties_invalid", name, problem)
        return value
    raise Refusal("properties_invalid", name, f"expected a string, number or boolean, got {shown(value)}")


def canonical_properties(properties: Mapping[str, object]) -> str:
    """Return the canonical text of flat properties; that of none is empty.

    Values are strings, booleans, ints, floats (by their shortest text) and `NumberText`. Raises Refusal
    `properties_invalid`, or `event_too_large` above their limit.
    """
    if not properties:
        return ""
    if len(properties) > PROPERTIES_MAX:
        counted = f"expected at most {PROPERTIES_MAX} of them, got {len(properties)}"
        raise Refusal("properties_invalid", "properties", counted)
    values = {}
    for name, value in properties.items():
        problem = string_problem(name)
        if problem:
            raise Refusal("properties_invalid", "properties", f"a name: {problem}")
        values[name] = _canonical_value(f"properties.{shown_name(name)}", value)
    encoded = _encode(values)
    if len(encoded) > PROPERTIES_BYTES_MAX:
        measured = f"expected at most {PROPERTIES_BYTES_MAX} bytes, got {len(encoded)}"
        raise Refusal("event_too_large", "properties", measured)
    return encoded.decode()
