"""`taximeter verify`: the proof that what was accepted is what will be billed."""

import argparse
import json
import sys
from typing import Final

from rich.console import Console
from rich.table import Table

from flusher.cli.target import add_target_arguments, find_target
from flusher.proof import Proof, verify
from sidecar.contract.meters import Amount
from sidecar.contract.units import format_units

ANSWER_TIMEOUT_S: Final = 10.0
_EXIT: Final = {True: 0, False: 1, None: 75}
_MARKS: Final = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[yellow]undecided[/]"}
_FIGURES: Final = (
    ("postgres", "in PostgreSQL, to be billed"),
    ("redis", "in Redis, not drained yet"),
    ("journal", "in a journal, not sent yet"),
    ("duplicates", "repeats, counted once before"),
    ("conflicts", "same identity, other payload"),
    ("quarantined", "in quarantine"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--wait` and `--json`."""
    parser.add_argument(
        "--wait",
        type=float,
        default=ANSWER_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for the sidecars to read their journals (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database")


def run(args: argparse.Namespace) -> int:
    """Print the proof. Returns 0 when it holds, 1 when it does not, 75 when something could not be read."""
    target = find_target(args)
    redis_url, database_url = target.need_redis(), target.need_database()
    target.announce("redis", "database")
    proof = verify(redis_url, database_url, answer_timeout_s=args.wait)
    if args.json:
        sys.stdout.write(json.dumps(proof.as_json(), indent=2) + "\n")
    else:
        show(proof, Console())
    return _EXIT[None if proof.undecided else proof.ok]


def show(proof: Proof, console: Console) -> None:
    """Print the proof for a person: the sum that has to come out even, then every check."""
    table = Table(title="Proof", title_justify="left", box=None, pad_edge=False)
    table.add_column("what became of every accepted event")
    table.add_column("events", justify="right")
    table.add_column("units", justify="right")
    for name, text in _FIGURES:
        _add_row(table, text, getattr(proof, name))
    _add_row(table, "difference", proof.difference)
    table.add_section()
    _add_row(table, "[bold]accepted by sidecars[/]", proof.accepted)
    console.print(table)
    console.print()
    checks = Table(box=None, pad_edge=False, show_header=False)
    for check in proof.checks:
        checks.add_row(_MARKS[check.ok], check.name, check.detail)
    console.print(checks)
    verdict = "undecided: something could not be read" if proof.undecided else "it does not hold"
    console.print("\nThe proof holds." if proof.ok else f"\nThe proof: {verdict}.")


def _add_row(table: Table, text: str, amount: Amount) -> None:
    table.add_row(text, f"{amount.events:,}", format_units(amount.nanos))
