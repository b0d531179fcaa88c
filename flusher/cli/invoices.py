"""`taximeter invoices [ID]`: list the invoices, newest first, or show one; `taximeter invoices void ID`: void one."""

import argparse
import sys

from flusher.cli.actions import add_reason, ledger_of
from flusher.cli.correcting import Connection, add_live, corrector_for
from flusher.cli.invoice_view import console, invoice_list, invoice_page
from flusher.cli.output import print_json
from flusher.cli.target import add_target_arguments, find_target
from flusher.invoicing.invoice import invoice_json
from flusher.invoicing.store import load_invoices, page_invoices
from sidecar.contract.codes import TaximeterError

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the invoice to show, and how a list is filtered and paged."""
    parser.usage = "taximeter invoices [ID | void ID --reason TEXT [--rebill] [--live] [--yes]] [options]"
    parser.add_argument("id", metavar="ID", nargs="*", help="show this invoice; `void ID` voids it, at Stripe too")
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=limit,
        default=LIMIT_DEFAULT,
        help=f"at most N, up to {LIMIT_MAX} (default: %(default)s)",
    )
    parser.add_argument("--after", metavar="ID", help="those that follow this invoice in the list")
    parser.epilog = (
        "A voided invoice is owed by nobody; what it billed stays billed, and credit that it drew is given back."
    )
    add_reason(parser, required=False, text="void: why; kept")
    parser.add_argument("--rebill", action="store_true", help="void: the next run bills again what it billed")
    add_live(parser)
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """List, show or void. Raises TaximeterError: invoice_unknown, usage_invalid, and what voiding raises."""
    void = args.id[:1] == ["void"]
    named = args.id[1:] if void else args.id
    if len(named) > 1 or (void and not (named and args.reason)):
        raise TaximeterError("usage_invalid", "expected `taximeter invoices [ID]` or `... void ID --reason TEXT`")
    if not void and (args.reason or args.rebill or args.live or args.yes):
        raise TaximeterError(
            "usage_invalid", "--reason, --rebill, --live and --yes belong to `taximeter invoices void`"
        )
    target = find_target(args)
    target.need_database()
    target.announce("database")
    with ledger_of(target) as connection:
        if void:
            return _void(connection, named[0], args)
        return _show(connection, named[0], args) if named else _list(connection, args)


def _show(connection: Connection, invoice_id: str, args: argparse.Namespace) -> int:
    _check_known(connection, invoice_id)
    (invoice,) = load_invoices(connection, [invoice_id])
    if args.json:
        print_json(invoice_json(invoice))
    else:
        console().print(invoice_page(invoice))
    return 0


def _void(connection: Connection, invoice_id: str, args: argparse.Namespace) -> int:
    with corrector_for(connection, args, f"void invoice {invoice_id}") as corrector:
        invoice = corrector.void(invoice_id, args.reason, rebill=args.rebill)
    if args.json:
        print_json(invoice_json(invoice))
    else:
        then = "the next run bills again what it billed" if args.rebill else "what it billed stays billed"
        sys.stdout.write(f"{invoice.id} is {invoice.status}; {then}\n")
    return 0


def _list(connection: Connection, args: argparse.Namespace) -> int:
    if args.after is not None:
        _check_known(connection, args.after)
    # One more than asked for tells whether there are further ones.
    found = page_invoices(connection, limit=args.limit + 1, after=args.after, customer=args.customer)
    shown, more = found[: args.limit], len(found) > args.limit
    last = shown[-1].id if more else None
    if args.json:
        print_json({"invoices": [invoice_json(invoice) for invoice in shown], "after": last})
        return 0
    console().print(invoice_list(shown) if shown else "no invoices yet; `taximeter invoice` makes what is due")
    if last is not None:
        sys.stderr.write(f"there are more: --after {last}\n")
    return 0


def _check_known(connection: Connection, invoice_id: str) -> None:
    if not load_invoices(connection, [invoice_id]):
        raise TaximeterError("invoice_unknown", f"no invoice {invoice_id!r}; `taximeter invoices` lists them")


def limit(text: str) -> int:
    """Return how many of a list to show; the type of an argument."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {LIMIT_MAX}, got {text!r}")
    return int(text)
