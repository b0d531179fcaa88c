"""`taximeter invoice`: make every invoice that is due, and take them to Stripe when a key is set."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import chain
from typing import Final

import psycopg
from psycopg.rows import TupleRow
from rich.progress import Progress as Bar

from flusher.cli.instant import instant
from flusher.cli.invoice_report import Count, report_json, report_text
from flusher.cli.invoice_view import console
from flusher.cli.meter_push import push
from flusher.cli.stripe_target import announce_stripe, find_stripe
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.invoicing.customers import Billed, customers_to_bill, describe_absent
from flusher.invoicing.deliver import bind_stripe
from flusher.invoicing.due import LATE_LIMIT_DEFAULT
from flusher.invoicing.gateway import Known, StripeSettings
from flusher.invoicing.invoice import Invoice
from flusher.invoicing.mending import how_to_mend
from flusher.invoicing.outbox import Outbox, each_invoice, each_waiting, standing
from flusher.invoicing.run import Options, Progress, Waiting, each_outcome
from flusher.invoicing.settle import WINDOW_DEFAULT, WINDOW_MAX, NotYet
from flusher.invoicing.sink import Sink, check_sink
from flusher.invoicing.store import rows, undelivered
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
    parser.add_argument(
        "--sink",
        choices=[sink.value for sink in Sink],
        default=Sink.INVOICES,
        help="what goes to Stripe: invoices, or usage to the Billing Meters there, which then invoices it itself",
    )
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Make, send and report. Returns 0, 1 when an invoice is parked, 75 when something only waits."""
    window = find_window(args.finalization_window_s, os.environ)
    if args.sink == Sink.METERS:
        return push(args, window)
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
        if stripe is not None:
            check_sink(connection, Sink.INVOICES)
        if args.dry_run:
            return _preview(connection, options, as_json=args.json)
        waiting: list[Waiting] = []
        with _progress("making invoices") as progress:
            made = [invoice.id for invoice in _invoices(each_outcome(connection, options, progress), waiting)]
        ids = undelivered(connection, at=options.at, customer=options.customer)
        failure = _deliver(connection, url, stripe, ids, ask=ask)
        found = standing(connection, ids)
        moving = {*found.waiting, *found.parked, *found.sent}
        shown = each_invoice(connection, [invoice for invoice in made if invoice not in moving] + found.sent)
        waits = chain(waiting, each_waiting(connection, found.waiting, _why_waiting(stripe, failure)))
        parked = each_invoice(connection, found.parked)
        if args.json:
            report_json(shown, waits, parked)
        else:
            report_text(shown, waits, parked, dry_run=False)
    if failure is not None:
        raise failure
    if found.parked:
        return _FAILED
    return _TRY_AGAIN if waiting or found.waiting else _DONE


def _preview(connection: Connection, options: Options, *, as_json: bool) -> int:
    """Show what would be made; nothing is kept, and memory is that of a chunk."""
    waiting: list[Waiting] = []
    with _progress("rating") as progress:
        invoices = _invoices(each_outcome(connection, options, progress), waiting)
        if as_json:
            report_json(invoices, waiting, ())
        else:
            report_text(invoices, waiting, (), dry_run=True)
    return _TRY_AGAIN if waiting else _DONE


def _invoices(outcomes: Iterable[Invoice | Waiting], waiting: list[Waiting]) -> Iterator[Invoice]:
    """Yield the invoices among the outcomes; the others are put into `waiting`."""
    for outcome in outcomes:
        if isinstance(outcome, Waiting):
            waiting.append(outcome)
        else:
            yield outcome


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
    connection: Connection, url: str, stripe: StripeSettings | None, ids: Sequence[str], *, ask: bool
) -> TaximeterError | None:
    """Send what is on its way; what stopped the whole of it is returned, to be raised after the report."""
    if stripe is None or not ids:
        return None
    outbox = Outbox(url, stripe)
    try:
        with closing(outbox.open_gateway()) as gateway:
            bind_stripe(connection, gateway)
        wanted = customers_to_bill(connection, ids, send_zero=stripe.terms.send_zero)
        absent = _check_customers(outbox, wanted, makes=stripe.create_customers)
        if ask:
            _confirm(connection, ids)
        if stripe.create_customers:
            absent = _make_customers(outbox, wanted, absent)
        with _progress("sending invoices") as progress:
            outbox.deliver(ids, progress, absent)
    except TaximeterError as error:
        return error
    return None


def _check_customers(outbox: Outbox, wanted: Sequence[Billed], *, makes: bool) -> dict[str, Known]:
    """Return the customers of ours that are not at Stripe, and name them before anything is sent."""
    with _progress("looking for customers") as progress:
        absent = outbox.find_absent(wanted, progress)
    if absent:
        becomes = "those that are missing are made" if makes else "their invoices are parked"
        sys.stderr.write(
            f"{len(absent)} of {len(wanted)} customers are not at Stripe, {becomes}: {describe_absent(absent)}\n"
            f"to mend it: {how_to_mend('stripe_customer_missing')}\n"
        )
    return absent


def _make_customers(outbox: Outbox, wanted: Sequence[Billed], absent: dict[str, Known]) -> dict[str, Known]:
    """Make the customers that Stripe never had, and return those that are absent still."""
    missing = [billed for billed in wanted if absent.get(billed.customer) is Known.MISSING]
    with _progress("making customers") as progress:
        made = outbox.make_customers(missing, progress)
    return {customer: known for customer, known in absent.items() if customer not in made}


def _why_waiting(stripe: StripeSettings | None, failure: TaximeterError | None) -> NotYet:
    """Return what an invoice waits for that does not say it itself."""
    if stripe is None:
        return NotYet("stripe_key_missing", "STRIPE_API_KEY is not set")
    if failure is not None:
        return NotYet(failure.code, failure.message)
    return NotYet("stripe_unavailable", "Stripe did not answer for the invoices before it")


def _confirm(connection: Connection, ids: Sequence[str]) -> None:
    """Ask before real money moves. Raises TaximeterError `not_confirmed` unless the answer is yes."""
    found = rows(connection, "sum_invoices", {"ids": list(ids)})
    count = Count(sum(row["invoices"] for row in found), {row["currency"]: row["total"] for row in found})
    sys.stderr.write(f"send {count} to Stripe, LIVE? [y/N] ")
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
