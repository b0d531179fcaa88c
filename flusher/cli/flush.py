"""`taximeter flush`: bring everything that is in Redis into PostgreSQL now."""

import argparse
import logging
import sys
from contextlib import closing

from flusher.cli.output import print_json
from flusher.cli.target import add_target_arguments, find_target
from flusher.drain import Drained
from flusher.worker import Worker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--json` and the target."""
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database")


def run(args: argparse.Namespace) -> int:
    """Seal and drain everything and say what that was. Raises TryAgainError when a server does not answer."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    target = find_target(args)
    redis_url, database_url = target.need_redis(), target.need_database()
    target.announce("redis", "database")
    with closing(Worker.connect(redis_url, database_url)) as worker:
        drained = worker.flush()
    if args.json:
        print_json(drained.as_json())
    else:
        sys.stdout.write(_summary(drained))
    return 0


def _summary(drained: Drained) -> str:
    if not drained.epochs:
        return "nothing to flush: PostgreSQL has everything that was in Redis\n"
    lines = [f"{drained.events:,} new events in PostgreSQL, from {drained.epochs:,} epochs"]
    left_out = {"duplicates": drained.duplicates, "conflicts": drained.conflicts, "in quarantine": drained.quarantined}
    lines += [f"{count:,} {what}, not counted" for what, count in left_out.items() if count]
    if drained.voided:
        lines.append(f"{drained.voided:,} events cancelled by voids")
    if drained.discrepancies:
        lines.append(f"{drained.discrepancies:,} counters did not agree with the events; see `taximeter verify`")
    return "\n".join(lines) + "\n"
