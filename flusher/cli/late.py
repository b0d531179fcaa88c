"""`taximeter late`: usage that came too late to be billed by itself, and letting it be billed."""

import argparse
import os
import sys

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.cli.actions import add_actions, add_reason, ledger_of
from flusher.cli.invoice import LATE_LIMIT_VARIABLE, find_late_limit
from flusher.cli.invoice_view import period_text
from flusher.cli.output import console, print_json, print_json_rows
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.invoicing.due import LATE_LIMIT_DEFAULT
from flusher.invoicing.invoice import period_json
from flusher.invoicing.late import Held, list_held, release
from flusher.pricing.money import currency, format_amount


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and `accept` with the subscription and the reason."""
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument(
        "--late-limit-days",
        metavar="DAYS",
        help="what came later than so many days after its period is held "
        f"(default: {LATE_LIMIT_VARIABLE}, else {LATE_LIMIT_DEFAULT.days})",
    )
    _add_common(parser)
    (accept,) = add_actions(parser, {"accept": "let the next run bill a subscription's usage, however late it came"})
    accept.add_argument("subscription", metavar="SUBSCRIPTION", help="the subscription, as the list names it")
    add_reason(accept, required=True, text="why the customer is billed for it now; kept")
    _add_common(accept)


def run(args: argparse.Namespace) -> int:
    """List what is held, or let it be billed. Raises TaximeterError: subscription_unknown, usage_invalid."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    return _list(target, args) if args.action is None else _accept(target, args)


def _list(target: Target, args: argparse.Namespace) -> int:
    limit = find_late_limit(args.late_limit_days, os.environ)
    with ledger_of(target) as connection:
        found = list_held(connection, limit, args.customer)
        if args.json:
            print_json_rows("late", map(_as_json, found))
            return 0
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("subscription", "customer", "period", "amount", "accepted"):
            table.add_column(name, justify="right" if name == "amount" else "left", overflow="fold")
        for held in found:
            money = f"{format_amount(held.amount, currency(held.currency))} {held.currency.upper()}"
            cells = (
                held.subscription,
                held.customer,
                period_text(held.period),
                money,
                "yes" if held.released else "no",
            )
            table.add_row(*map(Text, cells))
    if table.row_count:
        console().print(table)
    else:
        sys.stdout.write("nothing is held: no usage came later than the limit\n")
    return 0


def _accept(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        release(connection, args.subscription, args.reason)
    if args.json:
        print_json({"accepted": args.subscription, "reason": args.reason})
    else:
        sys.stdout.write(f"the next invoice of {args.subscription} bills what came late: {args.reason}\n")
    return 0


def _as_json(held: Held) -> dict[str, object]:
    return {
        "subscription": held.subscription,
        "customer": held.customer,
        "period": period_json(held.period),
        "currency": held.currency,
        "amount": format_amount(held.amount, currency(held.currency)),
        "accepted": held.released,
    }


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
