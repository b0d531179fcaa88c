"""Quantities are exact at any size: read, written, cut into limbs, summed and put together again."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.contract.event import compact_units
from sidecar.contract.units import (
    LIMBS,
    NANO,
    NANOS_BOUND,
    format_units,
    from_decimal,
    from_text,
    join,
    parse_units,
    split,
    to_decimal,
)
from tests.contract.values import LARGEST, an_event, nanos

sums = st.integers(-(10**60), 10**60)


@given(nanos)
@example(0)
@example(-1)
@example(LARGEST)
@example(-LARGEST)
def test_what_is_written_is_read_again(value: int) -> None:
    assert parse_units(format_units(value)) == value
    assert compact_units(value) == (value // NANO if value % NANO == 0 else format_units(value))


@given(nanos)
def test_text_means_the_number_that_it_shows(value: int) -> None:
    # an independent reading: exact fractions of Python
    assert Fraction(format_units(value)) == Fraction(value, NANO)


@given(nanos)
def test_text_is_the_shortest(value: int) -> None:
    text = format_units(value)
    assert "." not in text or not text.endswith(("0", "."))
    assert not text.startswith(("+", "-0", "00")) or text.startswith("-0.")
    assert text.isascii()
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", NANO),
        ("1.5", 1_500_000_000),
        ("-0.000000001", -1),
        ("0.10", 100_000_000),
        ("999999999999999.999999999", LARGEST),
        ("-999999999999999.999999999", -LARGEST),
    ],
)
def test_decimals_are_read_exactly(text: str, value: int) -> None:
    assert parse_units(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "1e3",
        "+1",
        "01",
        "1.",
        ".5",
        "1.0000000001",
        "1000000000000000",
        "-1000000000000000",
        "NaN",
        "inf",
        "-Infinity",
        "0x10",
        "1_0",
        "1,5",
        "-",
        ".",
    ]
    + ["", " 1", "1 ", "1\n", "\u00a01", "1\x00"]
    + ["\u0661", "\uff11"],  # digits of other scripts
)
def test_anything_else_is_no_decimal(text: str) -> None:
    assert parse_units(text) is None


@given(st.lists(nanos, max_size=40))
@example([LARGEST] * 40)
@example([LARGEST, -LARGEST] * 20)
@example([1, -1, NANO, -NANO, NANO * NANO])
def test_sums_of_limbs_lose_no_digit_however_many_there_are(values: list[int]) -> None:
    sums = [sum(limbs) for limbs in zip(*map(split, values), strict=True)] or [0] * LIMBS
    low, middle, high = sums
    assert join(low, middle, high) == sum(values)


@given(nanos)
def test_limbs_are_small_and_of_one_sign(value: int) -> None:
    limbs = split(value)
    assert all(abs(limb) < NANO for limb in limbs)
    assert all(limb == 0 or (limb < 0) == (value < 0) for limb in limbs)
    assert split(-value) == tuple(-limb for limb in limbs)


def test_a_limb_of_redis_holds_more_sums_than_an_epoch_can_have_events() -> None:
    # a signed 64-bit field against the largest limb of each event
    assert (2**63 - 1) // (NANO - 1) > 1_000 * 2_000_000
    assert NANOS_BOUND == NANO**LIMBS // 1000


@given(sums)
def test_a_sum_of_any_size_survives_text_and_decimal(value: int) -> None:
    assert from_text(format_units(value)) == value
    assert from_decimal(to_decimal(value)) == value


@given(sums)
def test_the_precision_of_the_context_does_not_matter(value: int) -> None:
    with localcontext() as context:
        context.prec = 5
        assert from_decimal(to_decimal(value)) == value


@given(nanos, st.integers(0, 30))
def test_trailing_zeros_and_exponents_of_a_decimal_do_not_matter(value: int, zeros: int) -> None:
    sign, digits, exponent = to_decimal(value).as_tuple()
    assert isinstance(exponent, int)
    assert from_decimal(Decimal((sign, digits + (0,) * zeros, exponent - zeros))) == value
    assert from_decimal(Decimal((sign, digits, exponent + zeros))) == value * 10**zeros


@pytest.mark.parametrize("text", ["0.0000000001", "1.0000000001", "NaN", "sNaN", "Infinity", "-Infinity", "1E-10"])
def test_a_decimal_that_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="units: expected"):
        from_decimal(Decimal(text))


@pytest.mark.parametrize("text", ["", "ten", "1 0", "0.0000000001"])
def test_text_that_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="units: expected"):
        from_text(text)


@given(nanos)
@settings(max_examples=30)
def test_an_event_holds_its_units_exactly(value: int) -> None:
    assert an_event(nanos=value).nanos == value


def test_an_event_whose_units_are_no_decimal_is_refused() -> None:
    with pytest.raises(ValueError, match="units: expected a decimal"):
        _ = replace(an_event(), units="ten").nanos
