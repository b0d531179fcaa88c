"""`taximeter journal`: ways out for the journal of a sidecar: it is damaged, or the sidecar's host is gone."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flusher.cli.actions import add_actions
from flusher.cli.output import print_json, progress
from flusher.cli.target import add_target_arguments, find_target
from sidecar import repair, rescue
from sidecar.contract.asking import Missing
from sidecar.disk import Disk

WAIT_S: Final = 600.0
_PLACES_MAX: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `repair` and `send`, each with the journal's directory."""
    mending, sending = add_actions(
        parser,
        {
            "repair": "go on with a journal that is damaged in the middle; what can't be read becomes a hole",
            "send": "bring what a journal holds into PostgreSQL when its own sidecar will not run again",
        },
    )
    for action in (mending, sending):
        action.add_argument("dir", metavar="DIR", type=Path, help="the journal's directory; its sidecar is stopped")
        action.add_argument("--json", action="store_true", default=False, help="report as JSON on standard output")
    mending.add_argument("--dry-run", action="store_true", default=False, help="say what is damaged, change nothing")
    sending.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="SECONDS", help="how long it may take (default: %(default)s)"
    )
    add_target_arguments(sending, "redis")


def run(args: argparse.Namespace) -> int:
    """Repair a journal or send it.

    Raises TaximeterError: journal_corrupt, journal_locked, journal_failed, ledger_mismatch; usage_invalid without an
    action; TryAgainError journal_waiting.
    """
    if args.action == "repair":
        return _repair(args)
    if args.action == "send":
        return _send(args)
    sys.stderr.write("name what to do: `taximeter journal repair DIR` or `taximeter journal send DIR`\n")
    return 2


def _repair(args: argparse.Namespace) -> int:
    done = repair.repair(Disk(), args.dir, datetime.now(UTC), dry_run=args.dry_run)
    if args.json:
        print_json(
            {
                "producer": done.producer,
                "successor": done.successor,
                "records": done.records,
                "damage": [place._asdict() for place in done.damage],
                "missing": [_as_json(one) for one in done.missing],
                "changed": done.successor != done.producer,
            }
        )
        return 0
    write = sys.stdout.write
    write(f"{done.records:,} whole records of {done.producer}\n")
    if not done.damage:
        write("no damage: nothing was changed\n")
        return 0
    for place in done.damage[:_PLACES_MAX]:
        what = f"{place.size:,} bytes at {place.offset:,} can't be read" if place.size else "is missing"
        write(f"  {place.name}: {what}\n")
    if len(done.damage) > _PLACES_MAX:
        write(f"  and {len(done.damage) - _PLACES_MAX} more\n")
    for one in done.missing:
        write(f"  shard {one.shard}: records {one.first} to {one.last} are missing, unless PostgreSQL has them\n")
    if done.successor == done.producer:
        write("nothing was changed\n")
    else:
        write(
            f"it goes on as {done.successor}; damaged files are kept beside it as *.damaged-*. Start the sidecar: what "
            "PostgreSQL lacks of the missing records shows in `taximeter holes`, and `verify` fails until that is "
            "accepted\n"
        )
    return 0


def _as_json(missing: Missing) -> dict[str, object]:
    return {"shard": missing.shard, "from": missing.first, "to": missing.last}


def _send(args: argparse.Namespace) -> int:
    target = find_target(args)
    redis_url = target.need_redis()
    target.announce("redis")
    with progress() as display:
        task = display.add_task("records in PostgreSQL", total=None, note="")

        def tell(at: rescue.Progress) -> None:
            display.update(task, total=at.records, completed=at.records - at.waiting)

        sent = asyncio.run(rescue.send(redis_url, args.dir, deadline_s=args.wait, tell=tell))
    if args.json:
        print_json({"producer": sent.producer, "records": sent.records, "events": sent.events})
    else:
        sys.stdout.write(
            f"PostgreSQL has all {sent.records:,} records with {sent.events:,} events of {sent.producer}; the sidecar "
            f"is let go, and {args.dir} may be deleted\n"
        )
    return 0
