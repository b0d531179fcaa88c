"""`taximeter doctor`: check the whole set-up and say what to mend."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from flusher.cli.output import console, print_json
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.doctor.examine import SetUp, examine
from flusher.doctor.finding import Finding, Level
from flusher.endpoints import read_endpoints
from sidecar.contract.codes import TaximeterError

_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_JOURNAL_VARIABLE: Final = "TAXIMETER_JOURNAL_DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the parts to look at."""
    parser.add_argument(
        "--journal-dir",
        metavar="D",
        type=Path,
        help=f"a sidecar's journal on this machine (default: {_JOURNAL_VARIABLE}, or that of a running `up`)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database", "http")


def run(args: argparse.Namespace) -> int:
    """Look at everything that is named. Returns 1 when something failed; warnings are no failure."""
    target = find_target(args)
    parts = SetUp(target.redis, target.database, target.http, _journal_dir(args.journal_dir, target))
    if not any(parts):
        raise TaximeterError(
            "target_missing",
            "nothing to look at is named: give --redis-url, --database-url or --http, or start `taximeter up`",
        )
    target.announce("redis", "database", "http")
    found = examine(parts)
    failed = any(one.level is Level.FAIL for one in found)
    if args.json:
        print_json({"ok": not failed, "checks": [one._asdict() for one in found]})
    else:
        _print_table(found)
        _print_missing(parts)
    return 1 if failed else 0


def _journal_dir(named: Path | None, target: Target) -> Path | None:
    if named is not None:
        return named
    if os.environ.get(_JOURNAL_VARIABLE):
        return Path(os.environ[_JOURNAL_VARIABLE])
    return target.data_dir / "journal" if read_endpoints(target.data_dir) is not None else None


def _print_table(found: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in found:
        table.add_row(Text(one.level.value, _STYLES[one.level]), f"{one.part}.{one.name}", Text(one.detail))
        if one.remedy:
            table.add_row("", "", Text(f"-> {one.remedy}", "bold"))
    console().print(table)
    counts = {level: sum(one.level is level for one in found) for level in Level}
    failed, warned = counts[Level.FAIL], counts[Level.WARN]
    said = f"{failed} failed, " if failed else ""
    sys.stdout.write(f"\n{said}{warned} to be considered, {counts[Level.OK]} ok\n")


def _print_missing(parts: SetUp) -> None:
    """Say what was not looked at."""
    flags = {"redis": "--redis-url", "database": "--database-url", "http": "--http", "journal_dir": "--journal-dir"}
    missing = [flag for name, flag in flags.items() if getattr(parts, name) is None]
    if missing:
        sys.stderr.write(f"not looked at, as nothing names it: {', '.join(missing)}\n")
