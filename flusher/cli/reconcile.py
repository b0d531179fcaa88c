"""`taximeter reconcile --stripe`: compares every invoice here with what Stripe has."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from flusher.cli.actions import ledger_of
from flusher.cli.output import print_json_rows, progress
from flusher.cli.stripe_target import KEY_VARIABLE, announce_stripe, find_stripe
from flusher.cli.target import add_target_arguments, find_target
from flusher.invoicing.binding import check_binding
from flusher.invoicing.finals import Finals
from flusher.invoicing.reconcile import Difference, Side, difference_json, reconcile
from flusher.pricing.money import currency, format_amount, from_stripe
from sidecar.contract.codes import TaximeterError


@dataclass(slots=True)
class _Count:
    """How many invoices were compared, and how many differences are left."""

    compared: int = 0
    left: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare with what to compare, and what may be changed."""
    parser.add_argument("--stripe", action="store_true", required=True, help="compare with Stripe")
    parser.add_argument(
        "--fix-status", action="store_true", help="bring the status of invoices here to Stripe's (paid, void, ...)"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output, a line a difference")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """List the differences. Returns 1 when there are any that were not fixed."""
    stripe = find_stripe(live=False, sends=False)  # it changes nothing there, so a live key needs nobody's word
    if stripe is None:
        raise TaximeterError("config_invalid", f"expected the key that reads invoices in {KEY_VARIABLE}, it is not set")
    target = find_target(args)
    target.need_database()
    target.announce("database")
    announce_stripe(stripe)
    count = _Count()
    with ledger_of(target) as connection, closing(Finals(stripe)) as gateway, progress() as shown:
        check_binding(connection, gateway)
        task = shown.add_task("comparing", total=None, note="")

        def told(compared: int) -> None:
            count.compared = compared
            shown.update(task, completed=compared, note=f"{compared} invoices")

        found = _counted(reconcile(connection, gateway, fix_status=args.fix_status, progress=told), count)
        if args.json:
            print_json_rows("differences", map(difference_json, found))
        else:
            for difference in found:
                sys.stdout.write(_line(difference))
    sys.stderr.write(f"{count.compared} invoices compared, {count.left} differences left\n")
    return 1 if count.left else 0


def _counted(found: Iterator[Difference], count: _Count) -> Iterator[Difference]:
    for difference in found:
        count.left += not difference.fixed
        yield difference


def _line(one: Difference) -> str:
    kind = f"{one.kind.value} (fixed)" if one.fixed else one.kind.value
    return f"{kind}: here {_text(one.here)}; at Stripe {_text(one.there)}\n"


def _text(side: Side | None) -> str:
    if side is None:
        return "nothing"
    try:
        money = currency(side.currency)
        amount = format_amount(from_stripe(side.sum, money), money)
    except ValueError:  # Stripe's may be one that the currency can't show, or of another currency
        amount = f"{side.sum} smallest units"
    return f"{side.id}, {amount} {side.currency.upper()}, {side.status}"
