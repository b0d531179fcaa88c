"""What Stripe demands of amounts by currency (https://docs.stripe.com/currencies), written apart from the product."""

from typing import Final

from tests.stripe_stand_in.errors import ApiError

AMOUNT_MAX: Final = 999_999_999_999

# The least that can be charged, in Stripe's integers. Other currencies: what half a US dollar is worth, not held here.
MINIMUMS: Final = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250,
    "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300,
    "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}  # fmt: skip

# Currencies whose integers must be whole multiples: two decimals that must be 00, or a third one that must be 0.
MULTIPLES: Final = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}


def check_amount(amount: int, currency: str) -> None:
    """Raise ApiError for an amount that Stripe can't bill in this currency."""
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.islower()):
        raise ApiError(400, f"Invalid currency: {currency}.", param="currency")
    if abs(amount) > AMOUNT_MAX:
        raise ApiError(400, "Amount is too large.", code="amount_too_large", param="amount")
    if amount % MULTIPLES.get(currency, 1):
        text = f"Invalid integer: {amount}. In {currency} an amount must be a multiple of {MULTIPLES[currency]}."
        raise ApiError(400, text, code="parameter_invalid_integer", param="amount")


def too_small(amount: int, currency: str) -> bool:
    """Whether an amount that is due is less than can be charged."""
    return 0 < amount < MINIMUMS.get(currency, 1)
