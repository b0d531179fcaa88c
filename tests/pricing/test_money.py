"""Currencies, rounding and formatting."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.pricing.money import (
    CURRENCIES,
    Rounding,
    UnknownCurrencyError,
    currency,
    format_amount,
    from_stripe,
    grouped,
    plain,
    round_amount,
    to_stripe,
)

amounts = st.decimals(min_value=-(10**15), max_value=10**15, allow_nan=False, allow_infinity=False, places=12)


@pytest.mark.parametrize(
    ("code", "amount", "rounding", "expected"),
    [
        ("usd", "11.725", "half_up", "11.73"),
        ("usd", "11.725", "half_even", "11.72"),
        ("usd", "11.735", "half_even", "11.74"),
        ("usd", "11.7249999999", "half_up", "11.72"),
        ("usd", "-11.725", "half_up", "-11.73"),
        ("usd", "-11.725", "half_even", "-11.72"),
        ("usd", "0.005", "half_up", "0.01"),
        ("usd", "0.005", "half_even", "0.00"),
        ("usd", "0", "half_up", "0.00"),
        ("usd", "-0.001", "half_up", "0.00"),
        ("jpy", "1199.5", "half_up", "1200"),
        ("jpy", "1200.5", "half_even", "1200"),
        ("kwd", "5.124", "half_up", "5.120"),
        ("kwd", "5.125", "half_up", "5.130"),
        ("kwd", "5.125", "half_even", "5.120"),
        ("kwd", "0.010", "half_up", "0.010"),
        ("isk", "4.5", "half_up", "5"),
        ("ugx", "4.49", "half_up", "4"),
    ],
)
def test_an_amount_is_rounded_to_what_stripe_accepts(code: str, amount: str, rounding: str, expected: str) -> None:
    rounded = round_amount(Decimal(amount), currency(code), Rounding(rounding))
    assert format_amount(rounded, currency(code)) == expected


@given(amounts, st.integers(1, 10**9), st.sampled_from(sorted(CURRENCIES)), st.sampled_from(list(Rounding)))
def test_a_rounded_quotient_is_the_nearest_multiple_of_the_step(
    amount: Decimal, divisor: int, code: str, rounding: Rounding
) -> None:
    # Given an exact quotient and the currency's step
    money = currency(code)
    exact, step = Fraction(amount) / divisor, Fraction(money.step)
    # When it is rounded
    rounded = Fraction(round_amount(amount, money, rounding, divisor=divisor))
    # Then the result is a multiple of the step, at most half a step away, and a tie goes where the rule says
    assert rounded % step == 0
    assert abs(rounded - exact) * 2 <= step
    if abs(rounded - exact) * 2 == step:
        assert abs(rounded) > abs(exact) if rounding is Rounding.HALF_UP else rounded / step % 2 == 0


@given(amounts, st.sampled_from(sorted(CURRENCIES)))
def test_stripes_integer_comes_back_as_the_same_amount(amount: Decimal, code: str) -> None:
    money = currency(code)
    rounded = round_amount(amount, money)
    assert from_stripe(to_stripe(rounded, money), money) == rounded


@pytest.mark.parametrize(
    ("code", "amount", "integer"),
    [("usd", "1.20", 120), ("jpy", "500", 500), ("kwd", "5.120", 5120), ("isk", "5", 500), ("ugx", "5", 500)],
)
def test_stripe_gets_an_integer_in_its_own_unit(code: str, amount: str, integer: int) -> None:
    assert to_stripe(Decimal(amount), currency(code)) == integer


@pytest.mark.parametrize(("code", "amount"), [("usd", "0.005"), ("kwd", "5.125"), ("isk", "0.5"), ("jpy", "0.1")])
def test_an_amount_that_stripe_would_refuse_is_not_sent(code: str, amount: str) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        to_stripe(Decimal(amount), currency(code))


def test_an_integer_that_the_currency_cannot_show_is_refused() -> None:
    with pytest.raises(ValueError, match="isk"):
        from_stripe(150, currency("isk"))


def test_an_unrounded_amount_is_not_formatted() -> None:
    with pytest.raises(ValueError, match="fractional digits"):
        format_amount(Decimal("1.005"), currency("usd"))


def test_minus_zero_is_shown_as_zero() -> None:
    assert format_amount(Decimal("-0.00"), currency("usd")) == "0.00"
    assert plain(Decimal("-0")) == "0"


def test_a_currency_is_found_in_either_case_and_an_unknown_one_is_named() -> None:
    assert currency("USD").code == "usd"
    with pytest.raises(UnknownCurrencyError, match="'zzz'"):
        currency("zzz")


def test_every_step_fits_the_digits_of_its_currency_and_of_stripe() -> None:
    for money in CURRENCIES.values():
        assert money.step.as_tuple().exponent == -money.digits
        assert to_stripe(money.step, money) >= 1


@pytest.mark.parametrize(
    ("number", "expected"), [("1000", "1000"), ("0.0050", "0.005"), ("1E+3", "1000"), ("-1.50", "-1.5"), ("0.0", "0")]
)
def test_a_number_is_shown_with_every_digit_and_no_more(number: str, expected: str) -> None:
    assert plain(Decimal(number)) == expected


def test_a_reader_sees_thousands() -> None:
    assert grouped(Decimal("12345.50")) == "12,345.5"
