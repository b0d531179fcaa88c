"""`taximeter bench`: how fast it is here, beside ceilings and peers in the same run."""

import argparse
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from flusher.bench import growth, invoices
from flusher.bench.contest import Pace
from flusher.bench.figures import Figure
from flusher.bench.machine import describe
from flusher.bench.rows import Row, chosen
from flusher.bench.servers import Stand
from flusher.bench.table import render
from flusher.cli.main import DONE, FAILED
from flusher.cli.output import console, print_json
from sidecar.contract.codes import TaximeterError

QUICK: Final = Pace(2, 0.6)
FULL: Final = Pace(3, 1.0)
GROWTH: Final = Pace(7, 1.0)
LEGEND: Final = (
    "Ours and what is beside it are measured in short rounds in turn; figures are medians over the rounds.",
    "A batch is synced to the journal and applied in Redis before it is answered. Its events are of 100 users in turn.",
    "µs of CPU: what each process took of a core for an event, which a busy machine changes less than the ratio.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to measure, how long, where, and where the figures go."""
    parser.add_argument(
        "--quick", action="store_true", help="a row for every goal, in shorter rounds: about two minutes"
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="this row alone; may be given again"
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="rounds of each contestant (default: 3, quick 2)")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="seconds of a round (default: 1, quick 0.6)")
    parser.add_argument(
        "--data-dir",
        metavar="D",
        type=Path,
        help="where a scratch directory is made, and removed again (default: where the system keeps temporary files)",
    )
    parser.add_argument(
        "--growth",
        type=_sizes,
        metavar="MILLIONS",
        help="instead of all rows: what an event costs beside so many millions of keys in Redis and of events in "
        "PostgreSQL, such as 1,10,50",
    )
    parser.add_argument(
        "--invoices",
        type=_customers,
        metavar="CUSTOMERS",
        help="instead of all rows: what an invoice costs with so many customers, of ten usage rows each, such as "
        "10000,100000",
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw what --growth measured, as SVG")
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="write JSON to FILE, or to standard output without one"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 1 when a row could not be measured. Raises TaximeterError when nothing could."""
    rows = chosen(args.only, quick=args.quick)
    if args.chart and not args.growth:
        raise TaximeterError("usage_invalid", "--chart: expected together with --growth, got it alone")
    default = GROWTH if args.growth else QUICK if args.quick else FULL
    pace = Pace(args.rounds or default.rounds, args.seconds or default.seconds)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    if args.growth:
        machine = describe(args.data_dir or Path(tempfile.gettempdir()))
        figures = list(growth.measure(args.growth, args.data_dir, pace))
        if args.chart:
            args.chart.write_text(growth.chart(figures, machine), encoding="utf-8")
    elif args.invoices:
        machine = describe(args.data_dir or Path(tempfile.gettempdir()))
        figures = list(invoices.measure(args.invoices, args.data_dir))
    else:
        with Stand(args.data_dir) as stand:
            machine = describe(stand.directory)
            figures = [one for place, row in enumerate(rows) for one in _measure(row, stand, pace, place, len(rows))]
    report = {"machine": machine, "rounds": pace.rounds, "seconds": pace.seconds}
    report["figures"] = [figure.as_json() for figure in figures]
    if args.json == "-":
        print_json(report)
    else:
        console().print(render(figures, machine, LEGEND))
        if args.json:
            Path(args.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return DONE if all(figure.ours for figure in figures) else FAILED


def _measure(row: Row, stand: Stand, pace: Pace, place: int, rows: int) -> Sequence[Figure]:
    """Return the figures of a row; one that could not be measured says why, and the others go on."""
    sys.stderr.write(f"taximeter bench: {row.name} ({place + 1} of {rows})\n")
    try:
        return list(row.run(stand, pace))
    except TaximeterError as error:
        return [Figure(row.name, row.name, "", note=f"not measured: {error.code}: {error.message}")]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End like Ctrl-C, so that nothing is left behind."""
    raise KeyboardInterrupt


def _rounds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"expected 1 to 100 rounds, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 60:
        raise argparse.ArgumentTypeError(f"expected seconds from 0.1 to 60, got {text!r}")
    return value


def _sizes(text: str) -> list[int]:
    """Return sizes of keys and events, of millions that are joined by commas."""
    try:
        sizes = [round(float(part) * growth.MILLION) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1_000 <= size <= 1_000 * growth.MILLION for size in sizes):
        raise argparse.ArgumentTypeError(f"expected millions from 0.001 to 1000 joined by commas, got {text!r}")
    return sizes


def _customers(text: str) -> list[int]:
    """Return numbers of customers that are joined by commas."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 10 * growth.MILLION for part in parts):
        raise argparse.ArgumentTypeError(f"expected 1 to 10000000 joined by commas, got {text!r}")
    return [int(part) for part in parts]
