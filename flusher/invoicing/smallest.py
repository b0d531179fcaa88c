"""Amounts too small for Stripe to collect, and how they are carried to a customer's next invoice. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from flusher.invoicing.invoice import InvoiceLine
from flusher.pricing.line import LineKind, line_id
from flusher.pricing.money import plain
from flusher.pricing.period import Period

CARRIED: Final = "carried"

# Source: https://docs.stripe.com/currencies, section "Minimum and maximum charge amounts". A currency that is not there
# has no minimum of its own; Stripe applies that of the account's own currency after conversion, which nobody can know.
SMALLEST: Final = {
    "aed": Decimal("2.00"),
    "aud": Decimal("0.50"),
    "bgn": Decimal("1.00"),
    "brl": Decimal("0.50"),
    "cad": Decimal("0.50"),
    "chf": Decimal("0.50"),
    "czk": Decimal("15.00"),
    "dkk": Decimal("2.50"),
    "eur": Decimal("0.50"),
    "gbp": Decimal("0.30"),
    "hkd": Decimal("4.00"),
    "huf": Decimal("175.00"),
    "inr": Decimal("0.50"),
    "jpy": Decimal(50),
    "mxn": Decimal("10.00"),
    "myr": Decimal("2.00"),
    "nok": Decimal("3.00"),
    "nzd": Decimal("0.50"),
    "pln": Decimal("2.00"),
    "ron": Decimal("2.00"),
    "sek": Decimal("3.00"),
    "sgd": Decimal("0.50"),
    "thb": Decimal("10.00"),
    "usd": Decimal("0.50"),
}
"""The least that Stripe charges, in major units, by currency."""


@dataclass(frozen=True, slots=True)
class Small:
    """What an invoice came to and was too small to collect: due with the customer's next one, in `currency`."""

    invoice: str
    customer: str
    currency: str
    amount: Decimal


def is_too_small(amount: Decimal, currency: str) -> bool:
    """Whether Stripe would not collect an amount, because it is below the least that it charges."""
    return 0 < amount < SMALLEST.get(currency, Decimal(0))


def carried_on(amount: Decimal, period: Period, *, scope: str) -> InvoiceLine:
    """Return the line that takes an amount off the invoice that is too small."""
    return _line(-amount, "Too little to collect, carried to the next invoice", period, scope, "on")


def carried_in(small: Small, period: Period, *, scope: str) -> InvoiceLine:
    """Return the line that bills what an earlier invoice carried."""
    return _line(small.amount, f"Carried from invoice {small.invoice}", period, scope, small.invoice)


def _line(amount: Decimal, description: str, period: Period, scope: str, part: str) -> InvoiceLine:
    return InvoiceLine(
        id=line_id(f"{scope}/{CARRIED}/{part}", LineKind.FIXED, CARRIED, None, None, period),
        kind="adjustment",
        price=CARRIED,
        meter=None,
        dimensions=None,
        tier=None,
        period=period,
        description=description,
        quantity=Decimal(1),
        unit_price=amount,
        amount=amount,
        working=f"{plain(amount)} carried",
    )
