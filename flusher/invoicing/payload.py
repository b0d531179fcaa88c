"""What is sent to Stripe for an invoice, as plain parameters. Pure.

The parameters are frozen in `stripe_intents` before the first call, so a retry sends the same ones under the same
key, also after this code has changed.
"""

from datetime import UTC, datetime
from typing import Any, Final

from flusher.invoicing.invoice import Invoice, InvoiceLine
from flusher.pricing.money import currency, to_stripe
from flusher.pricing.period import Period

Params = dict[str, Any]

LINES_MAX: Final = 250  # Stripe's limit of items on an invoice
_DESCRIPTION_MAX: Final = 500
_METADATA_MAX: Final = 500  # characters of a metadata value at Stripe

LEDGER: Final = "taximeter_ledger"
INVOICE: Final = "taximeter_invoice"
LINE: Final = "taximeter_line"


def idempotency_key(ledger: str, invoice: str, step: str, line: str, attempt: int) -> str:
    """Return the key of one attempt at one call: at most 255 characters, the same whenever it is made."""
    return "/".join(("taximeter", ledger, invoice, step, *filter(None, (line,)), str(attempt)))


def invoice_params(invoice: Invoice, ledger: str, customer: str) -> Params:
    """Return the parameters of the draft: nothing pending, no inherited coupon, and it stays a draft by itself."""
    return {
        "customer": customer,
        "currency": invoice.currency,
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "discounts": "",
        "metadata": {
            LEDGER: ledger,
            INVOICE: invoice.id,
            "taximeter_customer": invoice.customer[:_METADATA_MAX],
            "taximeter_subscription": invoice.subscription[:_METADATA_MAX],
            "taximeter_period": f"{invoice.period.start.isoformat()}/{invoice.period.end.isoformat()}",
        },
    }


def item_params(invoice: Invoice, line: InvoiceLine, ledger: str, customer: str, stripe_invoice: str) -> Params:
    """Return the parameters of the item that a line becomes: our amount, as an integer, not discountable."""
    return {
        "customer": customer,
        "invoice": stripe_invoice,
        "amount": amount(invoice, line),
        "currency": invoice.currency,
        "description": line.description[:_DESCRIPTION_MAX],
        "discountable": False,
        "period": _seconds(line.period),
        "metadata": {LEDGER: ledger, INVOICE: invoice.id, LINE: line.id},
    }


def finalize_params(stripe_invoice: str, *, collect: bool) -> Params:
    """Return the parameters of the last call; `collect` lets Stripe collect the payment by itself."""
    return {"invoice": stripe_invoice, "auto_advance": collect}


def amount(invoice: Invoice, line: InvoiceLine) -> int:
    """Return a line's amount as the integer that Stripe takes in the invoice's currency."""
    return to_stripe(line.amount, currency(invoice.currency))


def _seconds(period: Period) -> dict[str, int]:
    """Return a period in whole seconds. Stripe's end is inclusive, ours is not: July ends on July 31, not August 1."""
    start = _floor(period.start)
    return {"start": start, "end": max(start, _floor(period.end) - 1)}


def _floor(instant: datetime) -> int:
    return int(instant.astimezone(UTC).replace(microsecond=0).timestamp())
