"""`taximeter invoices [ID]`: list the invoices, newest first, or show one."""

import argparse
import json
import sys

from flusher.cli.invoice_view import console, invoice_list, invoice_page
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.invoicing.invoice import invoice_json
from flusher.invoicing.store import load_invoices, page_invoices
from sidecar.contract.codes import TaximeterError

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the invoice to show, and how a list is filtered and paged."""
    parser.add_argument("id", metavar="ID", nargs="?", help="show this invoice")
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=limit,
        default=LIMIT_DEFAULT,
        help=f"at most N, up to {LIMIT_MAX} (default: %(default)s)",
    )
    parser.add_argument("--after", metavar="ID", help="those that follow this invoice in the list")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Print the list or the invoice. Raises TaximeterError `invoice_unknown` for an id that no invoice has."""
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    with connect(url, autocommit=True) as connection:
        check_schema(connection)
        named = args.id or args.after
        if named is not None and not load_invoices(connection, [named]):
            raise TaximeterError("invoice_unknown", f"no invoice {named!r}; `taximeter invoices` lists them")
        if args.id is not None:
            (invoice,) = load_invoices(connection, [args.id])
            if args.json:
                _print_json(invoice_json(invoice))
            else:
                console().print(invoice_page(invoice))
            return 0
        # One more than asked for tells whether there are further ones.
        found = page_invoices(connection, limit=args.limit + 1, after=args.after, customer=args.customer)
    shown, more = found[: args.limit], len(found) > args.limit
    last = shown[-1].id if more else None
    if args.json:
        _print_json({"invoices": [invoice_json(invoice) for invoice in shown], "after": last})
        return 0
    console().print(invoice_list(shown) if shown else "no invoices yet; `taximeter invoice` makes what is due")
    if last is not None:
        sys.stderr.write(f"there are more: --after {last}\n")
    return 0


def limit(text: str) -> int:
    """Return how many of a list to show; the type of an argument."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {LIMIT_MAX}, got {text!r}")
    return int(text)


def _print_json(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
