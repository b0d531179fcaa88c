"""What `taximeter invoice` prints: as JSON one invoice after the other, however many there are; for people a table."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from flusher.cli.invoice_view import console, invoice_list, invoice_page
from flusher.invoicing.invoice import Delivery, Invoice, invoice_json, period_json
from flusher.invoicing.run import Waiting
from flusher.pricing.money import currency, format_amount

SHOWN_MAX: Final = 50
"""Rows of the table for people; the rest is counted. `taximeter invoices` pages through all."""


@dataclass(slots=True)
class Count:
    """How many invoices, and what they add up to, by currency."""

    invoices: int = 0
    sums: dict[str, Decimal] = field(default_factory=dict)

    def add(self, invoice: Invoice) -> None:
        """Add an invoice."""
        self.invoices += 1
        self.sums[invoice.currency] = self.sums.get(invoice.currency, Decimal(0)) + invoice.total

    def __str__(self) -> str:
        amounts = ", ".join(
            f"{format_amount(amount, currency(code))} {code.upper()}" for code, amount in self.sums.items()
        )
        return f"{self.invoices} invoice{'' if self.invoices == 1 else 's'} ({amounts or 'nothing'})"


def report_json(invoices: Iterable[Invoice], waiting: Iterable[Waiting], parked: Iterable[Invoice]) -> None:
    """Print the report as JSON. `waiting` may still be filled while `invoices` are read: it is printed after them."""
    sys.stdout.write('{\n  "invoices": [')
    _write_items(map(invoice_json, invoices))
    sys.stdout.write('],\n  "waiting": [')
    _write_items(map(_waiting_json, waiting))
    sys.stdout.write('],\n  "parked": [')
    _write_items(map(invoice_json, parked))
    sys.stdout.write("]\n}\n")


def report_text(
    invoices: Iterable[Invoice], waiting: Iterable[Waiting], parked: Iterable[Invoice], *, dry_run: bool
) -> None:
    """Print the report for a person: tables on standard output, the summary and how to mend it on standard error."""
    out = console()
    count, shown, notes, sent = Count(), list[Invoice](), list[str](), 0
    for invoice in invoices:
        count.add(invoice)
        sent += invoice.delivery is Delivery.SENT
        if len(shown) < SHOWN_MAX:
            shown.append(invoice)
            if invoice.closed_without:
                notes.append(f"closed without: {invoice.id}: {', '.join(invoice.closed_without)}")
            if dry_run and invoice.reason:
                notes.append(f"so far: {invoice.subscription}: {invoice.reason}: {invoice.detail}")
    if count.invoices == 1:
        out.print(invoice_page(shown[0]))
    elif shown:
        out.print(invoice_list(shown))
    if count.invoices > len(shown):
        out.print(f"... and {count.invoices - len(shown)} more")
    done = "would be made" if dry_run else f"made or sent, {sent} of them at Stripe"
    sys.stderr.write(f"{count} {done}\n")
    _write_some("waits", (f"{found.subscription}: {found.reason}: {found.detail}" for found in waiting))
    _write_some("parked", (f"{found.id} ({found.customer}): {found.reason}: {found.detail}" for found in parked))
    sys.stderr.write("".join(f"{note}\n" for note in notes))


def _write_some(what: str, texts: Iterable[str]) -> None:
    """Write the first of some texts, each in a line, and how many more there are."""
    count = 0
    for count, text in enumerate(texts, 1):
        if count <= SHOWN_MAX:
            sys.stderr.write(f"{what}: {text}\n")
    if count > SHOWN_MAX:
        sys.stderr.write(f"{what}: ... and {count - SHOWN_MAX} more, `taximeter invoice --json` has all of them\n")


def _write_items(items: Iterable[dict[str, object]]) -> None:
    """Write the items of a JSON array, indented as the array stands."""
    for text in _separated(json.dumps(item, indent=2, ensure_ascii=False) for item in items):
        sys.stdout.write(text)


def _separated(texts: Iterable[str]) -> Iterator[str]:
    written = False
    for text in texts:
        yield ("," if written else "") + "\n    " + text.replace("\n", "\n    ")
        written = True
    if written:
        yield "\n  "


def _waiting_json(waiting: Waiting) -> dict[str, object]:
    return {
        "customer": waiting.customer,
        "subscription": waiting.subscription,
        "plan": waiting.plan,
        "period": period_json(waiting.period),
        "reason": waiting.reason,
        "detail": waiting.detail,
        "invoice": waiting.invoice,
    }
