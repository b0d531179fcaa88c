"""What is sent to Stripe for an invoice, as plain parameters. Pure.

The parameters are frozen in `stripe_intents` before the first call, so a retry sends the same ones under the same
key, also after this code or a setting has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from flusher.invoicing.invoice import Invoice
from flusher.invoicing.rollup import StripeLine
from flusher.pricing.period import Period

Params = dict[str, Any]

_DESCRIPTION_MAX: Final = 500
_METADATA_MAX: Final = 500  # characters of a metadata value at Stripe
_PLACES_KEYS_MAX: Final = 40  # of the 50 keys that Stripe allows

LEDGER: Final = "taximeter_ledger"
INVOICE: Final = "taximeter_invoice"
LINE: Final = "taximeter_line"
PLACES: Final = "taximeter_lines"
CUSTOMER: Final = "taximeter_customer"


class CollectionMethod(StrEnum):
    """How Stripe collects an invoice."""

    CHARGE = "charge_automatically"
    """From the customer's payment method."""
    SEND = "send_invoice"
    """The customer gets the invoice, with a day by which it is to be paid."""


@dataclass(frozen=True, slots=True)
class StripeTerms:
    """What an invoice is at Stripe beside its lines.

    `collect`: Stripe collects it by itself once it is finalized. `days_until_due` belongs to `send_invoice`.
    `send_zero`: an invoice whose total is 0 is sent as well.
    """

    collect: bool = False
    collection_method: CollectionMethod = CollectionMethod.CHARGE
    days_until_due: int | None = None
    automatic_tax: bool = False
    send_zero: bool = False


def idempotency_key(ledger: str, invoice: str, step: str, line: str, attempt: int) -> str:
    """Return the key of one attempt at one call: at most 255 characters, the same whenever it is made."""
    return "/".join(("taximeter", ledger, invoice, step, *filter(None, (line,)), str(attempt)))


def customer_params(customer: str, ledger: str) -> Params:
    """Return the parameters of a customer that is made because Stripe has none."""
    return {"description": customer, "metadata": {LEDGER: ledger, CUSTOMER: customer[:_METADATA_MAX]}}


def invoice_params(invoice: Invoice, ledger: str, customer: str, terms: StripeTerms) -> Params:
    """Return the parameters of the draft: nothing pending, no inherited coupon, and it stays a draft by itself."""
    params = {
        "customer": customer,
        "currency": invoice.currency,
        "auto_advance": False,
        "collection_method": terms.collection_method.value,
        "automatic_tax": {"enabled": terms.automatic_tax},
        "pending_invoice_items_behavior": "exclude",
        "discounts": "",
        "metadata": {
            LEDGER: ledger,
            INVOICE: invoice.id,
            CUSTOMER: invoice.customer[:_METADATA_MAX],
            "taximeter_subscription": invoice.subscription[:_METADATA_MAX],
            "taximeter_period": f"{invoice.period.start.isoformat()}/{invoice.period.end.isoformat()}",
        },
    }
    if terms.days_until_due is not None:
        params["days_until_due"] = terms.days_until_due
    return params


def lines_params(invoice: Invoice, lines: Sequence[StripeLine], ledger: str, stripe_invoice: str) -> Params:
    """Return the parameters that put lines on a draft, whose id is `invoice`: amounts of ours, not discountable."""
    return {
        "invoice": stripe_invoice,
        "lines": [
            {
                "amount": line.amount,
                "description": line.description[:_DESCRIPTION_MAX],
                "discountable": False,
                "period": _seconds(line.period),
                "metadata": {LEDGER: ledger, INVOICE: invoice.id, LINE: line.id, **_places(line.places)},
            }
            for line in lines
        ],
    }


def finalize_params(stripe_invoice: str, *, collect: bool) -> Params:
    """Return the parameters of the last call; `collect` lets Stripe collect the payment by itself."""
    return {"invoice": stripe_invoice, "auto_advance": collect}


def _places(places: str) -> dict[str, str]:
    """Return what a line stands for as metadata: values of limited length, cut off where Stripe takes no more."""
    most = _METADATA_MAX * _PLACES_KEYS_MAX
    told = places if len(places) <= most else f"{places[: most - 3]}..."
    parts = [told[start : start + _METADATA_MAX] for start in range(0, len(told), _METADATA_MAX)]
    return {PLACES if number == 1 else f"{PLACES}_{number}": part for number, part in enumerate(parts, 1)}


def _seconds(period: Period) -> dict[str, int]:
    """Return a period in whole seconds. Stripe's end is inclusive, ours is not: July ends on July 31, not August 1."""
    start = _floor(period.start)
    return {"start": start, "end": max(start, _floor(period.end) - 1)}


def _floor(instant: datetime) -> int:
    return int(instant.astimezone(UTC).replace(microsecond=0).timestamp())
