"""Currencies and rounding: exact amounts in, amounts that Stripe accepts out.

An amount is a `Decimal` in major units (dollars, not cents). Arithmetic before rounding runs in `EXACT`, which
raises instead of losing a digit; rounding happens in one function, `round_to`, and nowhere else.
"""

from dataclasses import dataclass
from decimal import (
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from enum import StrEnum

EXACT = Context(prec=60, traps=[InvalidOperation, DivisionByZero, Overflow, FloatOperation, Inexact])
"""Sixty digits and no silent loss: a result that would need rounding raises `decimal.Inexact`.

A quantity below 10^27 with 9 fractional digits (36 digits) times a price below 10^12 with 12 (24 digits) fits.
"""


class Rounding(StrEnum):
    """What happens to an amount exactly between two that can be billed."""

    HALF_UP = "half_up"
    """Away from zero: 0.125 becomes 0.13, -0.125 becomes -0.13. The default."""
    HALF_EVEN = "half_even"
    """To the even neighbour: 0.125 becomes 0.12, 0.135 becomes 0.14."""


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency as we show it and as Stripe takes it.

    `digits`: fractional digits of a shown amount. `step`: the smallest amount that can be billed, in major
    units. `stripe_digits`: Stripe's integer amounts are major units times 10 to this power.
    """

    code: str
    digits: int
    step: Decimal
    stripe_digits: int


class UnknownCurrencyError(ValueError):
    """The code is not a currency that Stripe bills in."""

    def __init__(self, code: str) -> None:
        super().__init__(f"expected a three-letter currency that Stripe supports, such as usd, got {code!r}")
        self.code = code


# Source of the table: https://docs.stripe.com/currencies, sections "Supported presentment currencies",
# "Zero-decimal currencies", "Three-decimal currencies" and "Special cases".
_TWO_DIGITS = """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf cny cop
    crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg huf idr ils inr jmd kes kgs
    khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab
    pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs
    uah usd uyu uzs wst xcd xcg yer zar zmw
"""
_NO_DIGITS = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
_THREE_DIGITS = "bhd jod kwd omr tnd"
"""Stripe wants the last of the three digits to be 0, so the step is 0.010."""
_WHOLE_BUT_TWO_AT_STRIPE = "isk ugx"
"""Whole units only, yet Stripe's integer still counts hundredths: ISK 5 is sent as 500."""


def _table() -> dict[str, Currency]:
    """Return every currency by its lower-case code."""
    kinds = (
        (_TWO_DIGITS, 2, Decimal("0.01"), 2),
        (_NO_DIGITS, 0, Decimal(1), 0),
        (_THREE_DIGITS, 3, Decimal("0.010"), 3),
        (_WHOLE_BUT_TWO_AT_STRIPE, 0, Decimal(1), 2),
    )
    return {
        code: Currency(code, digits, step, stripe_digits)
        for codes, digits, step, stripe_digits in kinds
        for code in codes.split()
    }


CURRENCIES = _table()
"""Every currency that a plan may name, by lower-case ISO 4217 code."""


def currency(code: str) -> Currency:
    """Return the currency of `code`, in upper or lower case; raise `UnknownCurrencyError` for any other."""
    try:
        return CURRENCIES[code.lower()]
    except KeyError:
        raise UnknownCurrencyError(code) from None


_LAST_DIGIT = {digits: Decimal(1).scaleb(-digits) for digits in (0, 2, 3)}
"""The last digit that a currency shows, by how many it has."""


def round_amount(amount: Decimal, to: Currency, rounding: Rounding = Rounding.HALF_UP, *, divisor: int = 1) -> Decimal:
    """Return `amount` / `divisor`, rounded once to a multiple of the currency's step.

    The result has exactly the currency's digits and is never minus zero. `divisor` is above 0.
    Raises `decimal.InvalidOperation` when the result would need more than 60 digits.
    """
    rounded = round_to(amount, to.step, rounding, divisor=divisor)
    return EXACT.quantize(rounded, _LAST_DIGIT[to.digits])


def round_to(number: Decimal, step: Decimal, rounding: Rounding = Rounding.HALF_UP, *, divisor: int = 1) -> Decimal:
    """Return `number` / `divisor`, rounded once to a multiple of `step`; never minus zero.

    The quotient is never computed: the exact remainder decides, so a share of a fee is as exact as a product.
    """
    with localcontext(EXACT):
        unit = step * divisor
        steps, rest = divmod(abs(number), unit)
        twice = rest * 2
        odd = steps % 2 == 1
        if twice > unit or (twice == unit and (rounding is Rounding.HALF_UP or odd)):
            steps += 1
        rounded = steps * step
        return -rounded if number < 0 and rounded else rounded


def format_amount(amount: Decimal, of: Currency) -> str:
    """Return a rounded amount as text with exactly the currency's digits: "101.73", or "1200" for JPY.

    Raises `ValueError` for an amount with more digits than the currency shows: round it first.
    """
    try:
        shown = EXACT.quantize(amount, _LAST_DIGIT[of.digits])
    except Inexact:
        raise ValueError(f"{amount} has more than the {of.digits} fractional digits of {of.code}") from None
    return format(EXACT.abs(shown) if shown.is_zero() else shown, "f")


def to_stripe(amount: Decimal, of: Currency) -> int:
    """Return a rounded amount as the integer that Stripe's API takes: USD 1.20 is 120, ISK 5 is 500.

    Raises `ValueError` for an amount that is not a multiple of the currency's step: Stripe would refuse it.
    """
    with localcontext(EXACT):
        if amount % of.step:
            raise ValueError(f"{amount} {of.code} is not a multiple of {of.step}")
        return int(amount.scaleb(of.stripe_digits))


def from_stripe(integer: int, of: Currency) -> Decimal:
    """Return Stripe's integer amount in major units, with exactly the currency's digits.

    Raises `ValueError` for an integer that the currency can't show, such as 150 for ISK.
    """
    with localcontext(EXACT):
        amount = Decimal(integer).scaleb(-of.stripe_digits)
    return Decimal(format_amount(amount, of))


def plain(number: Decimal) -> str:
    """Return a quantity or a unit price as text: every digit, no exponent, no trailing zeros ("0.005", "1000")."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


def grouped(number: Decimal) -> str:
    """Return a quantity for a reader: as `plain`, with a comma between thousands ("12,345.5")."""
    return format(Decimal(plain(number)), ",f")
