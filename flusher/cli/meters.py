"""`taximeter meters`: meter events that are not at Stripe, and deciding on those that are parked."""

import argparse
import sys
from typing import Final

from flusher.cli.actions import add_actions, add_reason, ledger_of
from flusher.cli.meter_push import event_json
from flusher.cli.output import print_json, print_json_rows
from flusher.cli.target import add_target_arguments, find_target
from flusher.invoicing.meter_sink import decide
from flusher.invoicing.store import rows

LIMIT: Final = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and the two decisions with the event and the reason."""
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    _add_common(parser)
    actions = {
        "again": "carry the units of a parked event to its customer's next one",
        "sent": "take a parked event for sent: Stripe has it, or its units are billed otherwise",
    }
    for action in add_actions(parser, actions):
        action.add_argument("id", metavar="ID", help="the meter event, as the list names it")
        add_reason(action, required=True, text="how that is known; kept")
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """List what is not sent, or decide. Raises TaximeterError: meter_event_missing, already_decided."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    with ledger_of(target) as connection:
        if args.action is not None:
            decide(connection, args.id, again=args.action == "again", reason=args.reason)
            if args.json:
                print_json({"id": args.id, "decided": args.action, "reason": args.reason})
            else:
                then = "is carried to the next event" if args.action == "again" else "counts as sent"
                sys.stdout.write(f"{args.id} {then}: {args.reason}\n")
            return 0
        values = {"customer": args.customer, "state": None, "limit": LIMIT}
        found = [event_json(row) for row in rows(connection, "list_metered_events", values)]
    if args.json:
        print_json_rows("meter_events", found)
        return 0
    for one in found:
        what = f"{one['units']} units of {one['meter']}, {one['customer']}, {one['hour']}"
        why = f": {one['reason']}: {one['detail']}" if one["reason"] else ""
        sys.stdout.write(f"{one['state']} {one['id']} ({what}){why}\n")
    if not found:
        sys.stdout.write("every meter event is sent\n")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
