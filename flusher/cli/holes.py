"""`taximeter holes`: records that are known to be missing, and accepting that they are."""

import argparse
import sys

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.cli.actions import add_actions, add_reason, ledger_of, time_text
from flusher.cli.output import console, print_json, print_json_rows
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.holes import Hole, HoleId, accept_hole, list_holes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and `accept` with the hole and the reason."""
    _add_common(parser)
    (accept,) = add_actions(parser, {"accept": "accept that records are lost; `verify` shows it from then on"})
    accept.add_argument("hole", metavar="PRODUCER/SHARD/FIRST", type=_hole, help="the hole, as the list names it")
    add_reason(accept, required=True, text="why they can't be brought back; kept with the hole")
    _add_common(accept)


def run(args: argparse.Namespace) -> int:
    """List the holes or accept one. Raises TaximeterError: hole_unknown, already_decided."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    return _list(target, as_json=args.json) if args.action is None else _accept(target, args)


def _list(target: Target, *, as_json: bool) -> int:
    with ledger_of(target) as connection:
        holes = list_holes(connection)
    if as_json:
        print_json_rows("holes", map(_as_json, holes))
    elif not holes:
        sys.stdout.write("no holes: no record is known to be missing\n")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("hole", "to", "events", "found", "accepted", "reason"):
            table.add_column(name, justify="right" if name in {"to", "events"} else "left", overflow="fold")
        for hole in holes:
            events = f"{hole.events:,}" if hole.events else "not known"
            accepted = time_text(hole.accepted_at) or "no"
            cells = (str(hole.id), str(hole.last_sequence), events, time_text(hole.found_at), accepted, hole.reason)
            table.add_row(*(Text(cell or "") for cell in cells))
        console().print(table)
    return 0


def _accept(target: Target, args: argparse.Namespace) -> int:
    hole: HoleId = args.hole
    with ledger_of(target) as connection:
        accept_hole(connection, hole, args.reason)
    if args.json:
        print_json({"accepted": str(hole), "reason": args.reason})
    else:
        sys.stdout.write(f"hole {hole} is accepted: {args.reason}\n")
    return 0


def _as_json(hole: Hole) -> dict[str, object]:
    return {
        "id": str(hole.id),
        "producer": hole.id.producer,
        "shard": hole.id.shard,
        "from": hole.id.first_sequence,
        "to": hole.last_sequence,
        "events": hole.events or None,
        "found_at": time_text(hole.found_at),
        "accepted_at": time_text(hole.accepted_at),
        "reason": hole.reason,
    }


def _hole(text: str) -> HoleId:
    try:
        return HoleId.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected PRODUCER/SHARD/FIRST, got {text!r}") from error


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
