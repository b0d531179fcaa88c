"""`taximeter producers`: the sidecars that are known, and giving up on one that will not come back."""

import argparse
import sys
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.cli.actions import add_actions, add_reason, ledger_of, reported, time_text
from flusher.cli.output import console, print_json, print_json_rows
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.retirement import Known, Missing, list_producers, retire

NO_REASON = "no reason given"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and `retire` with the sidecar and the reason."""
    _add_common(parser)
    (giving_up,) = add_actions(parser, {"retire": "give up on a sidecar that will not come back"})
    giving_up.add_argument("producer", metavar="ID", help="the sidecar, as the list names it")
    add_reason(giving_up, required=False, text="why; kept, and shown by `verify`")
    giving_up.add_argument(
        "--force", action="store_true", default=False, help="also one that was heard of within the last minute"
    )
    _add_common(giving_up)


def run(args: argparse.Namespace) -> int:
    """List the sidecars or retire one. Raises TaximeterError: producer_unknown, producer_active, already_decided."""
    target = find_target(args)
    target.need_database()
    if args.action is None:
        target.announce("database")
        return _list(target, as_json=args.json)
    target.need_redis()
    target.announce("redis", "database")
    return _retire(target, args)


def _list(target: Target, *, as_json: bool) -> int:
    with ledger_of(target) as connection:
        known = list_producers(connection)
    if as_json:
        print_json_rows("producers", map(_as_json, known))
    elif not known:
        sys.stdout.write("no sidecar is registered yet\n")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("sidecar", "host", "registered", "retired", "shard", "position", "events", "behind"):
            table.add_column(
                name, justify="right" if name in {"shard", "position", "events", "behind"} else "left", overflow="fold"
            )
        for one in known:
            cells = [one.producer, one.host, time_text(one.registered_at) or "", _retired(one)]
            for taken in one.taken:
                behind = "" if one.retired_at else f"{max(taken.behind_s, 0):,} s"
                figures = (str(taken.shard), f"{taken.sequence:,}", f"{taken.events:,}", behind)
                table.add_row(*(Text(cell) for cell in (*cells, *figures)))
                cells = [""] * len(cells)
        console().print(table)
    return 0


def _retired(one: Known) -> str:
    retired = time_text(one.retired_at) or ""
    return f"{retired}: {one.retired_reason}" if one.retired_reason else retired


def _retire(target: Target, args: argparse.Namespace) -> int:
    reason = getattr(args, "reason", None) or NO_REASON
    with reported():
        missing = retire(target.need_redis(), target.need_database(), args.producer, reason, force=args.force)
    if args.json:
        holes = [{"id": str(hole), "from": hole.first_sequence, "to": last} for hole, last in missing]
        print_json({"retired": args.producer, "reason": reason, "holes": holes})
    else:
        sys.stdout.write(_said(args.producer, missing))
    return 0


def _said(producer: str, missing: Sequence[Missing]) -> str:
    lines = [f"{producer} is retired: periods and `verify` wait for it no longer"]
    if missing:
        lines.append("records that Redis had are gone; `verify` fails until these holes are accepted:")
        lines += [f"  {hole} to {last}" for hole, last in missing]
    else:
        lines.append("everything that Redis had of it is in PostgreSQL; what only its journal has is not known")
    return "\n".join(lines) + "\n"


def _as_json(one: Known) -> dict[str, object]:
    return {
        "producer": one.producer,
        "host": one.host,
        "predecessor": one.predecessor,
        "registered_at": time_text(one.registered_at),
        "retired_at": time_text(one.retired_at),
        "reason": one.retired_reason,
        "events": sum(taken.events for taken in one.taken),
        "shards": [
            {
                "shard": taken.shard,
                "position": taken.sequence,
                "events": taken.events,
                "watermark": time_text(taken.watermark),
                "behind_s": max(taken.behind_s, 0),
            }
            for taken in one.taken
        ],
    }


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database")
