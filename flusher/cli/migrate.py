"""`taximeter migrate`: bring the schema in PostgreSQL up to date, and make the ledger the first time."""

import argparse
import sys

from flusher.cli.output import print_json
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import migrate
from flusher.ledger import Ledger, LedgerRow
from flusher.sql import Migration
from sidecar.contract.codes import TaximeterError

SHARDS_MAX = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shards, `--json` and the target."""
    parser.add_argument(
        "--shards",
        metavar="N",
        help=f"shards of a new ledger, 1 to {SHARDS_MAX}; they stay as they are (default: 1, or what it has)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Migrate and say what was done. Safe to repeat and to run several times at once.

    Raises TaximeterError `ledger_mismatch` when the ledger was made with another number of shards than is asked for.
    """
    shards = _read_shards(args.shards)
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    applied = migrate(url, shards=shards or 1)
    row = _ledger(url)
    if shards not in {None, row.shards}:
        raise TaximeterError(
            "ledger_mismatch",
            f"--shards: the ledger has {row.shards} and keeps them, got {shards}; the schema itself is up to date",
        )
    if args.json:
        steps = [{"number": step.number, "name": step.name} for step in applied]
        print_json({"applied": steps, "ledger": row.id, "shards": row.shards})
    else:
        sys.stdout.write(_summary(applied, row))
    return 0


def _read_shards(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= SHARDS_MAX):
        raise TaximeterError("usage_invalid", f"--shards: expected a number from 1 to {SHARDS_MAX}, got {text!r}")
    return int(text)


def _ledger(url: str) -> LedgerRow:
    ledger = Ledger(url)
    try:
        with ledger.transaction():
            return ledger.read()
    finally:
        ledger.close()


def _summary(applied: list[Migration], row: LedgerRow) -> str:
    lines = [f"applied migration {step.number} ({step.name})" for step in applied]
    lines.append(f"the schema is up to date; ledger {row.id}, shards: {row.shards}")
    return "\n".join(lines) + "\n"
