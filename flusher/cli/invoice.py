"""`taximeter invoice`: make every invoice that is due, and take them to Stripe when a key is set."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.rows import TupleRow
from rich.progress import Progress as Bar

from flusher.cli.instant import instant
from flusher.cli.invoice_report import counted, report_json, report_text
from flusher.cli.invoice_view import console
from flusher.cli.stripe_target import announce_stripe, find_stripe
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.invoicing.deliver import Delivered, bind_stripe, deliver_invoices, look_at
from flusher.invoicing.due import LATE_LIMIT_DEFAULT
from flusher.invoicing.gateway import Gateway, StripeSettings
from flusher.invoicing.invoice import Invoice
from flusher.invoicing.run import Options, Progress, Waiting, each_outcome
from flusher.invoicing.settle import WINDOW_DEFAULT, WINDOW_MAX
from flusher.invoicing.store import load_invoices, undelivered
from sidecar.contract.codes import TaximeterError

WINDOW_VARIABLE: Final = "TAXIMETER_FINALIZATION_WINDOW_S"
LATE_LIMIT_VARIABLE: Final = "TAXIMETER_LATE_LIMIT_DAYS"
_LATE_LIMIT_DAYS_MAX: Final = 1_000
_PAGE: Final = 500

_DONE: Final = 0
_FAILED: Final = 1
_TRY_AGAIN: Final = 75

Connection = psycopg.Connection[TupleRow]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is to be invoiced, and what must be said before real money moves."""
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument("--at", metavar="T", type=instant, help="make what is due at this time (default: now)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be made, and make nothing; with --at in a running period, what it comes to so far",
    )
    parser.add_argument("--live", action="store_true", help="allow a live Stripe key: real money")
    parser.add_argument("--yes", action="store_true", help="with a live key, do not ask before sending")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    parser.add_argument(
        "--finalization-window-s",
        metavar="SECONDS",
        help="how long after a period's end a sidecar that does not answer is waited for "
        f"(default: {WINDOW_VARIABLE}, else {WINDOW_DEFAULT.total_seconds():.0f})",
    )
    parser.add_argument(
        "--late-limit-days",
        metavar="DAYS",
        help="usage of periods that ended longer ago waits for `taximeter late accept` "
        f"(default: {LATE_LIMIT_VARIABLE}, else {LATE_LIMIT_DEFAULT.days})",
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
    options = Options(
        args.at,
        args.customer,
        stripe is not None,
        args.dry_run,
        window,
        late_limit=find_late_limit(args.late_limit_days, os.environ),
    )
    with connect(url, autocommit=True) as connection:
        check_schema(connection)
        if args.dry_run:
            return _preview(connection, options, as_json=args.json)
        waiting: list[Waiting] = []
        with _progress("making invoices") as progress:
            made = [invoice.id for invoice in _invoices(each_outcome(connection, options, progress), waiting)]
        delivered, failure = _deliver(connection, url, stripe, options, ask=ask)
        waiting += delivered.waiting
        shown = _as_they_stand(connection, made, delivered)
        if args.json:
            report_json(shown, waiting, delivered.parked)
        else:
            report_text(shown, waiting, delivered, dry_run=False)
    if failure is not None:
        raise failure
    if delivered.parked:
        return _FAILED
    return _TRY_AGAIN if waiting else _DONE


def _preview(connection: Connection, options: Options, *, as_json: bool) -> int:
    """Show what would be made; nothing is kept, and memory is that of a chunk."""
    waiting: list[Waiting] = []
    with _progress("rating") as progress:
        invoices = _invoices(each_outcome(connection, options, progress), waiting)
        if as_json:
            report_json(invoices, waiting, ())
        else:
            report_text(invoices, waiting, Delivered(), dry_run=True)
    return _TRY_AGAIN if waiting else _DONE


def _invoices(outcomes: Iterable[Invoice | Waiting], waiting: list[Waiting]) -> Iterator[Invoice]:
    """Yield the invoices among the outcomes; the others are put into `waiting`."""
    for outcome in outcomes:
        if isinstance(outcome, Waiting):
            waiting.append(outcome)
        else:
            yield outcome


def _as_they_stand(connection: Connection, made: Sequence[str], delivered: Delivered) -> Iterator[Invoice]:
    """Yield what was made and is not on its way, then what was sent, by now; pages of it are in memory."""
    moving = {invoice.id for invoice in (*delivered.sent, *delivered.parked)}
    moving |= {found.invoice for found in delivered.waiting if found.invoice}
    ids = [invoice_id for invoice_id in made if invoice_id not in moving]
    for start in range(0, len(ids), _PAGE):
        yield from load_invoices(connection, ids[start : start + _PAGE])
    yield from delivered.sent


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


def find_late_limit(flag: str | None, environment: Mapping[str, str]) -> timedelta:
    """Return how old late usage may be to be billed by itself, from the flag or the environment.

    Raises TaximeterError `usage_invalid` or `config_invalid` for anything but 0 to 1,000 days.
    """
    text = flag if flag is not None else environment.get(LATE_LIMIT_VARIABLE, "")
    if not text:
        return LATE_LIMIT_DEFAULT
    if text.isascii() and text.isdigit() and int(text[:9]) <= _LATE_LIMIT_DAYS_MAX:
        return timedelta(days=int(text))
    where, code = ("--late-limit-days", "usage_invalid") if flag else (LATE_LIMIT_VARIABLE, "config_invalid")
    raise TaximeterError(code, f"{where}: expected whole days from 0 to {_LATE_LIMIT_DAYS_MAX}, got {text!r}")


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
    sys.stderr.write(f"send {counted(invoices)} to Stripe, LIVE? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TaximeterError("not_confirmed", "nothing was sent; the invoices are made and wait")


@contextmanager
def _progress(text: str) -> Iterator[Progress]:
    """Show a progress bar on standard error, only where that is a terminal."""
    shown = console(sys.stderr)
    with Bar(console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
