"""`taximeter invoice`: make every invoice that is due, and take them to Stripe when a key is set."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Final

import psycopg
from psycopg.rows import TupleRow
from rich.progress import Progress as Bar

from flusher.cli.instant import instant
from flusher.cli.invoice_view import console, invoice_list, invoice_page
from flusher.cli.stripe_target import announce_stripe, find_stripe
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.invoicing.deliver import Delivered, bind_stripe, deliver_invoices, look_at
from flusher.invoicing.gateway import Gateway, StripeSettings
from flusher.invoicing.invoice import Delivery, Invoice, invoice_json, period_json
from flusher.invoicing.run import Made, Options, Progress, Waiting, make_invoices
from flusher.invoicing.settle import WINDOW_DEFAULT, WINDOW_MAX
from flusher.invoicing.store import load_invoices, undelivered
from flusher.pricing.money import currency, format_amount
from sidecar.contract.codes import TaximeterError

WINDOW_VARIABLE: Final = "TAXIMETER_FINALIZATION_WINDOW_S"

_DONE: Final = 0
_FAILED: Final = 1
_TRY_AGAIN: Final = 75

Connection = psycopg.Connection[TupleRow]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is to be invoiced, and what must be said before real money moves."""
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument("--at", metavar="T", type=instant, help="make what is due at this time (default: now)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be made, and make nothing")
    parser.add_argument("--live", action="store_true", help="allow a live Stripe key: real money")
    parser.add_argument("--yes", action="store_true", help="with a live key, do not ask before sending")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    parser.add_argument(
        "--finalization-window-s",
        metavar="SECONDS",
        help="how long after a period's end a sidecar that does not answer is waited for "
        f"(default: {WINDOW_VARIABLE}, else {WINDOW_DEFAULT.total_seconds():.0f})",
    )
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Make, send and report. Returns 0, 1 when an invoice is parked, 75 when something only waits."""
    window = find_window(args.finalization_window_s, os.environ)
    stripe = find_stripe(live=args.live, sends=not args.dry_run)
    ask = stripe is not None and stripe.livemode and not (args.yes or args.dry_run)
    if ask and not sys.stdin.isatty():
        raise TaximeterError("usage_invalid", "a live key moves real money, and nobody can be asked here: add --yes")
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    announce_stripe(stripe)
    options = Options(args.at, args.customer, stripe is not None, args.dry_run, window)
    with connect(url, autocommit=True) as connection:
        check_schema(connection)
        with _progress("making invoices") as progress:
            made = make_invoices(connection, options, progress)
        delivered, failure = Delivered(), None
        if not args.dry_run:
            delivered, failure = _deliver(connection, url, stripe, options, ask=ask)
    _report(made, delivered, dry_run=args.dry_run, as_json=args.json)
    if failure is not None:
        raise failure
    if delivered.parked:
        return _FAILED
    return _TRY_AGAIN if made.waiting or delivered.waiting else _DONE


def find_window(flag: str | None, environment: Mapping[str, str]) -> timedelta:
    """Return the finalization window from the flag or the environment.

    Raises TaximeterError `usage_invalid` or `config_invalid` for anything but 0 to 72 hours in seconds.
    """
    text = flag if flag is not None else environment.get(WINDOW_VARIABLE, "")
    if not text:
        return WINDOW_DEFAULT
    longest = int(WINDOW_MAX.total_seconds())
    if text.isascii() and text.isdigit() and int(text[:9]) <= longest:
        return timedelta(seconds=int(text))
    where, code = ("--finalization-window-s", "usage_invalid") if flag else (WINDOW_VARIABLE, "config_invalid")
    raise TaximeterError(code, f"{where}: expected whole seconds from 0 to {longest}, got {text!r}")


def _deliver(
    connection: Connection, url: str, stripe: StripeSettings | None, options: Options, *, ask: bool
) -> tuple[Delivered, TaximeterError | None]:
    """Send what is on its way; what stopped the whole of it is returned, to be raised after the report."""
    ids = undelivered(connection, at=options.at, customer=options.customer)
    if stripe is None:
        return look_at(connection, ids, "stripe_key_missing", "STRIPE_API_KEY is not set"), None
    if not ids:
        return Delivered(), None
    with closing(Gateway(stripe)) as gateway:
        try:
            bind_stripe(connection, gateway)
            if ask:
                _confirm(load_invoices(connection, ids))
            with _progress("sending invoices") as progress:
                return deliver_invoices(connection, url, gateway, ids, collect=stripe.collect, progress=progress), None
        except TaximeterError as error:
            return look_at(connection, ids, error.code, error.message), error


def _confirm(invoices: Sequence[Invoice]) -> None:
    """Ask before real money moves. Raises TaximeterError `not_confirmed` unless the answer is yes."""
    sys.stderr.write(f"send {_counted(invoices)} to Stripe, LIVE? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TaximeterError("not_confirmed", "nothing was sent; the invoices are made and wait")


def _counted(invoices: Sequence[Invoice]) -> str:
    """Return how many invoices these are and what they add up to, by currency."""
    sums: dict[str, Decimal] = {}
    for invoice in invoices:
        sums[invoice.currency] = sums.get(invoice.currency, Decimal(0)) + invoice.total
    amounts = ", ".join(f"{format_amount(amount, currency(code))} {code.upper()}" for code, amount in sums.items())
    return f"{len(invoices)} invoice{'' if len(invoices) == 1 else 's'} ({amounts or 'nothing'})"


def _report(made: Made, delivered: Delivered, *, dry_run: bool, as_json: bool) -> None:
    """Print what was made and sent, what waits and what is parked."""
    moving = {invoice.id for invoice in (*delivered.sent, *delivered.parked)}
    moving |= {waiting.invoice for waiting in delivered.waiting if waiting.invoice}
    invoices = [*(invoice for invoice in made.invoices if invoice.id not in moving), *delivered.sent]
    waiting = [*made.waiting, *delivered.waiting]
    if as_json:
        report = {
            "invoices": [invoice_json(invoice) for invoice in invoices],
            "waiting": [_waiting_json(found) for found in waiting],
            "parked": [invoice_json(invoice) for invoice in delivered.parked],
        }
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        return
    out = console()
    if len(invoices) == 1:
        out.print(invoice_page(invoices[0]))
    elif invoices:
        out.print(invoice_list(invoices))
    if delivered.parked:
        out.print(invoice_list(delivered.parked))
    sent = sum(invoice.delivery is Delivery.SENT for invoice in invoices)
    done = "would be made" if dry_run else f"made or sent, {sent} of them at Stripe"
    notes = [f"{_counted(invoices)} {done}"]
    notes += [f"waits: {found.subscription}: {found.reason}: {found.detail}" for found in waiting]
    notes += [f"parked: {found.id}: {found.reason}: {found.detail}" for found in delivered.parked]
    notes += [
        f"closed without: {found.id}: {', '.join(found.closed_without)}" for found in invoices if found.closed_without
    ]
    sys.stderr.write("\n".join(notes) + "\n")


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


@contextmanager
def _progress(text: str) -> Iterator[Progress]:
    """Show a progress bar on standard error, only where that is a terminal."""
    shown = console(sys.stderr)
    with Bar(console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
