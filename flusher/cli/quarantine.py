"""`taximeter quarantine`: accepted events that could not be counted, and what is to become of them."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.cli.actions import add_actions, add_reason, ledger_of, number, time_text
from flusher.cli.output import console, print_json, print_json_rows
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.law import Outcome
from flusher.ledger import Ledger
from flusher.quarantine import Quarantined, discard, list_quarantine, retry
from sidecar.contract.units import format_units

LIMIT_DEFAULT: Final = 50
_ACTIONS: Final = {
    "retry": "try to count it again, with this version of the program",
    "discard": "decide that it is never billed; `verify` shows it from then on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and `retry` and `discard` with the id."""
    parser.add_argument("--all", action="store_true", help="also what was retried or discarded")
    parser.add_argument(
        "--limit", metavar="N", type=number, default=LIMIT_DEFAULT, help="the newest N (default: %(default)s)"
    )
    _add_common(parser)
    again, away = add_actions(parser, _ACTIONS)
    for action in (again, away):
        action.add_argument("id", metavar="ID", type=number, help="its id, as the list names it")
    add_reason(away, required=True, text="why; kept with it")
    for action in (again, away):
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """List or decide. Raises TaximeterError: quarantine_unknown, already_decided, still_refused, codec_unknown."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    if args.action is None:
        return _list(target, args)
    return _retry(target, args) if args.action == "retry" else _discard(target, args)


def _list(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        found = list_quarantine(connection, args.limit, resolved=args.all)
    if args.json:
        print_json_rows("quarantine", map(_as_json, found))
    elif not found:
        sys.stdout.write("nothing is in quarantine\n")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("id", "since", "reason", "events", "units", "detail", "decided"):
            table.add_column(name, justify="right" if name in {"id", "events", "units"} else "left", overflow="fold")
        for one in found:
            decided = f"{one.resolved_as}: {one.resolution}" if one.resolved_as else ""
            cells = (str(one.id), time_text(one.created_at), one.reason, f"{one.events:,}", one.units, one.detail)
            table.add_row(*(Text(cell or "") for cell in (*cells, decided)))
        console().print(table)
    return 0


def _retry(target: Target, args: argparse.Namespace) -> int:
    with connect(target.need_database()) as connection:
        check_schema(connection)
    with closing(Ledger(target.need_database())) as ledger:
        outcomes = retry(ledger, args.id)
    if args.json:
        print_json({"retried": args.id, **{outcome.value: count for outcome, count in outcomes.items()}})
    else:
        sys.stdout.write(_said(args.id, outcomes))
    return 0


def _said(identifier: int, outcomes: Mapping[Outcome, int]) -> str:
    texts = {
        Outcome.INSERTED: "count now",
        Outcome.DUPLICATE: "had been counted before",
        Outcome.CONFLICT: "are in conflict, and not counted",
        Outcome.QUARANTINED: "are in quarantine again",
    }
    lines = [f"{outcomes[outcome]:,} {text}" for outcome, text in texts.items() if outcomes[outcome]]
    return f"{identifier} is out of quarantine; of its events " + ", ".join(lines) + "\n"


def _discard(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        amount = discard(connection, args.id, args.reason)
    units = format_units(amount.nanos)
    if args.json:
        print_json({"discarded": args.id, "events": amount.events, "units": units, "reason": args.reason})
    else:
        sys.stdout.write(f"{args.id} is discarded: {amount.events:,} events, {units} units: {args.reason}\n")
    return 0


def _as_json(one: Quarantined) -> dict[str, object]:
    return one._asdict() | {"created_at": time_text(one.created_at), "resolved_at": time_text(one.resolved_at)}


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
