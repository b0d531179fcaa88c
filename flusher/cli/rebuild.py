"""`taximeter rebuild`: restore Redis from PostgreSQL."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from flusher.cli.output import print_json, progress
from flusher.cli.target import add_target_arguments, find_target
from flusher.rebuild import Rebuilt
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError

LINE_EVERY_S: Final = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--shard`, `--json` and the target."""
    parser.add_argument("--shard", type=int, metavar="N", help="one shard alone (default: all of them)")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database")


def run(args: argparse.Namespace) -> int:
    """Open a new generation of every shard and say what that was. Raises TryAgainError when a server is away."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    target = find_target(args)
    redis_url, database_url = target.need_redis(), target.need_database()
    target.announce("redis", "database")
    with closing(Worker.connect(redis_url, database_url)) as worker:
        shards = range(worker.shards)
        if args.shard is not None and args.shard not in shards:
            raise TaximeterError("usage_invalid", f"--shard: expected 0 to {worker.shards - 1}, got {args.shard}")
        with _watched() as staged:
            rebuilt = worker.rebuild(shards if args.shard is None else [args.shard], staged)
    if args.json:
        print_json(_as_json(rebuilt))
    else:
        sys.stdout.write(_summary(rebuilt))
    return 0


@contextmanager
def _watched() -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how far it is: a moving line on a terminal, a line now and then elsewhere."""
    said_at = time.monotonic()
    with progress() as shown:
        task = shown.add_task("rebuilding", total=None, note="")

        def staged(shard: int, totals: int) -> None:
            nonlocal said_at
            note = f"shard {shard}: {totals:,} totals written"
            shown.update(task, note=note)
            if shown.disable and time.monotonic() - said_at > LINE_EVERY_S:
                said_at = time.monotonic()
                sys.stderr.write(f"{note}\n")

        yield staged


def _as_json(rebuilt: Rebuilt) -> dict[str, object]:
    return {
        "shards": [
            {"shard": one.shard, "totals": one.totals, "seconds": round(one.took_s, 3)} for one in rebuilt.shards
        ],
        "totals": rebuilt.totals,
        "seconds": round(rebuilt.took_s, 3),
        **rebuilt.drained.as_json(),
    }


def _summary(rebuilt: Rebuilt) -> str:
    lines = ["sidecars are told the ledger, its meters and its users anew"]
    for one in rebuilt.shards:
        did = "another flusher opened a generation" if one.totals is None else f"{one.totals:,} totals written"
        lines.append(f"shard {one.shard}: {did} ({one.took_s:.1f} s)")
    drained = rebuilt.drained
    lines.append(f"{drained.events:,} new events in PostgreSQL, from {drained.epochs:,} epochs that were in Redis")
    return "\n".join(lines) + "\n"
