"""How invoices look to a person: a table on a terminal, the same as plain text elsewhere."""

import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from flusher.invoicing.invoice import Delivery, Invoice
from flusher.pricing.line import rfc3339
from flusher.pricing.money import currency, format_amount, grouped, plain
from flusher.pricing.period import Period

_PLAIN_WIDTH = 160
_STATUS_STYLE = {"paid": "green", "open": "cyan", "draft": "yellow"}


def console(stream: TextIO | None = None) -> Console:
    """Return a console for a stream (standard output): wide and without colours where it is no terminal."""
    target = stream or sys.stdout
    return Console(file=target, highlight=False, width=None if target.isatty() else _PLAIN_WIDTH)


def invoice_list(invoices: Sequence[Invoice]) -> Table:
    """Return one row an invoice."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("invoice", "customer", "subscription", "period", "status", "delivery"):
        table.add_column(name, overflow="fold")
    table.add_column("total", justify="right", no_wrap=True)
    for invoice in invoices:
        table.add_row(
            invoice.id,
            Text(invoice.customer),
            Text(invoice.subscription),
            period_text(invoice.period),
            _status(invoice),
            _delivery(invoice),
            _money(invoice),
        )
    return table


def invoice_page(invoice: Invoice) -> Group:
    """Return one invoice: its head, every line, the total, and what is to be mended."""
    head = Table.grid(padding=(0, 2))
    head.add_row("invoice", invoice.id)
    head.add_row("customer", Text(invoice.customer))
    head.add_row("subscription", Text(f"{invoice.subscription} (plan {invoice.plan}, version {invoice.plan_version})"))
    head.add_row("period", period_text(invoice.period))
    head.add_row("status", _status(invoice))
    head.add_row("delivery", _delivery(invoice))
    if invoice.stripe_invoice is not None:
        head.add_row("Stripe", Text(invoice.stripe_invoice))
    if invoice.detail is not None:
        head.add_row("because", Text(invoice.detail))
    if invoice.closed_without:
        head.add_row("closed without", Text(", ".join(invoice.closed_without)))
    return Group(head, _lines(invoice))


def _lines(invoice: Invoice) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("line", footer="total", overflow="fold")
    for name in ("quantity", "unit price"):
        table.add_column(name, justify="right")
    table.add_column("amount", footer=_money(invoice), justify="right", no_wrap=True)
    money = currency(invoice.currency)
    for line in invoice.lines:
        price = "" if line.unit_price is None else plain(line.unit_price)
        table.add_row(Text(line.description), grouped(line.quantity), price, format_amount(line.amount, money))
    if not invoice.lines:
        table.add_row(Text("nothing was used", style="dim"), "", "", "")
    return table


def _money(invoice: Invoice) -> str:
    return f"{format_amount(invoice.total, currency(invoice.currency))} {invoice.currency.upper()}"


def period_text(period: Period) -> str:
    """Return a period as dates where it runs from midnight to midnight; its end is not in it."""
    if period.start == period.end:
        return f"at {rfc3339(period.start)}"
    shown = (rfc3339(period.start), rfc3339(period.end))
    dates = [text.removesuffix("T00:00:00Z") for text in shown]
    return " to ".join(dates if all(len(date) == 10 for date in dates) else shown)


def _status(invoice: Invoice) -> Text:
    return Text(invoice.status.value, style=_STATUS_STYLE.get(invoice.status.value, "red"))


def _delivery(invoice: Invoice) -> Text:
    reason = f" ({invoice.reason})" if invoice.reason else ""
    return Text(f"{invoice.delivery.value}{reason}", style="red" if invoice.delivery is Delivery.PARKED else "")
