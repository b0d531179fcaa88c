"""`taximeter explain INVOICE`: where every line of an invoice comes from, for whoever is asked "why this amount?"."""

import argparse
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flusher.cli.actions import ledger_of
from flusher.cli.invoice_view import period_text
from flusher.cli.output import console, print_json
from flusher.cli.target import add_target_arguments, find_target
from flusher.invoicing.explain import Explained, Figure, Source, explain, pick
from flusher.invoicing.invoice import Invoice, line_json, period_json
from flusher.invoicing.store import load_invoices
from flusher.pricing.line import rfc3339
from flusher.pricing.money import currency, format_amount, grouped, plain
from sidecar.contract.codes import TaximeterError

HOURS_MAX: Final = 24
"""Hours that are shown of a line; `--line` shows all of one, and `--json` all of all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the invoice, and the line."""
    parser.add_argument("invoice", metavar="INVOICE", help="the invoice, as `taximeter invoices` names it")
    parser.add_argument("--line", metavar="L", help="one line alone, by its id or its place from 1, with all its hours")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Explain the invoice. Raises TaximeterError: invoice_unknown, line_unknown."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    with ledger_of(target) as connection:
        found = load_invoices(connection, [args.invoice])
        if not found:
            raise TaximeterError("invoice_unknown", f"no invoice {args.invoice!r}; `taximeter invoices` lists them")
        invoice = found[0] if args.line is None else pick(found[0], args.line)
        explained = explain(connection, invoice)
    if args.json:
        print_json(_as_json(found[0], explained))
    else:
        console().print(_page(found[0], explained, hours_max=None if args.line else HOURS_MAX))
    return 0


def _as_json(invoice: Invoice, explained: Sequence[Explained]) -> dict[str, object]:
    money = currency(invoice.currency)
    return {
        "id": invoice.id,
        "customer": invoice.customer,
        "subscription": invoice.subscription,
        "plan": invoice.plan,
        "plan_version": invoice.plan_version,
        "currency": invoice.currency,
        "period": period_json(invoice.period),
        "total": format_amount(invoice.total, money),
        "lines": [
            {
                **line_json(one.line, invoice.currency),
                "working": one.line.working,
                "terms": one.price,
                "usage": None if one.source is None else _source_json(one.source),
                "history": [
                    {"invoice": step.invoice, "amount": format_amount(step.amount, money)} for step in one.history
                ],
                "grant": None if one.grant is None else one.grant.grant.id,
            }
            for one in explained
        ],
    }


def _source_json(source: Source) -> dict[str, object]:
    return {
        "aggregation": source.aggregation,
        "events": source.events,
        "hours": [
            {"from": rfc3339(hour.start), "units": plain(hour.units), "events": hour.events} for hour in source.hours
        ],
        "billed": _figure_json(source.billed),
        "now": _figure_json(source.now),
        "changed": source.is_changed,
    }


def _figure_json(figure: Figure | None) -> dict[str, object] | None:
    return None if figure is None else {"quantity": plain(figure.quantity), "events": figure.events}


def _page(invoice: Invoice, explained: Sequence[Explained], *, hours_max: int | None) -> Group:
    head = Text(f"{invoice.id}: {invoice.customer}, plan {invoice.plan} version {invoice.plan_version}, ")
    head.append(f"{period_text(invoice.period)}, ").append(_money(invoice, invoice.total), style="bold")
    parts: list[RenderableType] = [head]
    last: Explained | None = None
    for one in explained:
        parts.append(Text(""))
        parts.append(_line(invoice, one))
        # The lines of one price over one period have come from the same: it is said once.
        if last is None or (one.price, one.source) != (last.price, last.source) or one.source is None:
            parts.extend(_reasons(invoice, one, hours_max))
        last = one
    return Group(*parts)


def _line(invoice: Invoice, one: Explained) -> Text:
    text = Text().append(_money(invoice, one.line.amount), style="bold").append(f"  {one.line.description}")
    return text.append(f"\n  {one.line.working}") if one.line.working else text


def _reasons(invoice: Invoice, one: Explained, hours_max: int | None) -> Iterator[RenderableType]:
    if one.price is not None:
        yield Text(f"  price {one.price['name']}: {_terms(one.price)}")
        tiers = one.price.get("tiers")
        if isinstance(tiers, list):
            yield _tiers(tiers)
    if len(one.history) > 1:
        shown = ", ".join(f"{_money(invoice, step.amount)} by {step.invoice}" for step in one.history)
        yield Text(f"  billed of it: {shown}")
    if one.grant is not None:
        found = one.grant.grant
        expires = "never expires" if found.expires_at is None else f"expires {rfc3339(found.expires_at)}"
        yield Text(
            f"  grant {found.id}: {plain(found.amount)} {found.currency.upper()}, {found.kind.value}, "
            f"priority {found.priority}, {expires}; {plain(found.remaining)} remain now"
        )
    if one.source is not None:
        yield from _usage(one, one.source, hours_max)


def _usage(one: Explained, source: Source, hours_max: int | None) -> Iterator[RenderableType]:
    yield Text(
        f"  from {source.events:,} events of {one.line.meter} ({source.aggregation}) in {len(source.hours):,} hours"
    )
    if source.hours:
        shown = source.hours[:hours_max]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("  hour")
        table.add_column(source.aggregation, justify="right")
        table.add_column("events", justify="right")
        for hour in shown:
            table.add_row(f"  {rfc3339(hour.start)}", grouped(hour.units), f"{hour.events:,}")
        yield table
        if len(shown) < len(source.hours):
            yield Text(f"  and {len(source.hours) - len(shown):,} more hours: add --line {one.line.id}, or --json")
    if source.is_changed and source.billed is not None and source.now is not None:
        yield Text(
            f"  usage has changed: {_figure(source.billed)} were billed so far, it shows {_figure(source.now)} now; "
            "the difference comes with the next invoice, or see `taximeter late`",
            style="yellow",
        )


def _figure(figure: Figure) -> str:
    return f"{grouped(figure.quantity)} in {figure.events:,} events"


def _terms(price: dict[str, object]) -> str:
    """Return the keys of a price in words, but for its tiers, which are a table."""
    said = {key: value for key, value in price.items() if key not in {"name", "tiers"}}
    return ", ".join(f"{key} {_value(value)}" for key, value in said.items() if value not in (False, "0"))


def _value(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(_value(entry) for entry in value)
    if isinstance(value, dict):
        return " ".join(f"{key} {_value(entry)}" for key, entry in value.items())
    return str(value)


def _tiers(tiers: Sequence[dict[str, object]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = list(dict.fromkeys(key for tier in tiers for key in tier))
    table.add_column("  tier")
    for name in names:
        table.add_column(name, justify="right")
    for number, tier in enumerate(tiers, 1):
        table.add_row(f"  {number}", *(str(tier.get(name, "")) for name in names))
    return table


def _money(invoice: Invoice, amount: Decimal) -> str:
    return f"{format_amount(amount, currency(invoice.currency))} {invoice.currency.upper()}"
