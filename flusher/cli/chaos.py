"""`taximeter chaos`: kill anything for five minutes, and prove that every event counts once."""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final

from flusher.chaos.report import Report
from flusher.chaos.run import Run, clear_environment
from flusher.chaos.view import Scene, View
from flusher.cli.main import DONE, FAILED
from flusher.cli.output import print_json
from sidecar.contract.codes import TaximeterError

SEEDS: Final = 1_000_000
_OURS: Final = "chaos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how long, how fast, how often and where."""
    parser.add_argument(
        "--data-dir",
        metavar="D",
        type=Path,
        help="a directory that is empty, or of an earlier run (default: a fresh one)",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=300.0, metavar="S", help="how long to break it (default: %(default)g)"
    )
    parser.add_argument("--rate", type=_rate, default=2000, metavar="N", help="events a second (default: %(default)s)")
    parser.add_argument(
        "--every", type=_seconds, default=5.0, metavar="S", help="seconds from fault to fault (default: %(default)g)"
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="what the faults follow from (default: a random one)")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """Break it, heal it, compare. Returns 1 when anything differs. Raises TaximeterError where it can't be run."""
    fresh = args.data_dir is None
    data_dir = _scratch() if fresh else _checked(args.data_dir)
    clear_environment()
    seed = secrets.randbelow(SEEDS) if args.seed is None else args.seed
    report = Report(seed, args.seconds, args.rate, args.every, str(data_dir))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # as Ctrl-C: what is stopped has to go on before it can end
    view = View(Scene())
    view.say(f"seed {seed}; data and logs are in {data_dir}")
    with view.shown():
        Run(report, view).run()
    if args.json:
        print_json(report.as_json())
    else:
        sys.stdout.write(report.text())
    if fresh and report.ok:
        shutil.rmtree(data_dir, ignore_errors=True)
    return DONE if report.ok else FAILED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _scratch() -> Path:
    made = Path(tempfile.mkdtemp(prefix="taximeter-chaos-"))
    _mark(made)
    return made


def _checked(named: Path) -> Path:
    """Return a directory that a run may use. Raises TaximeterError `usage_invalid` for one with anything else in it."""
    if named.exists():
        there = {path.name for path in named.iterdir()} if named.is_dir() else {""}
        if there and _OURS not in there:
            raise TaximeterError(
                "usage_invalid",
                f"--data-dir: expected an empty directory, or one of an earlier run, got {str(named)!r}",
            )
    named.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mark(named)
    return named.absolute()


def _mark(directory: Path) -> None:
    """Let a later run know that it may use the directory."""
    if os.geteuid() == 0:
        directory.chmod(0o711)  # PostgreSQL runs as another user then, who has to pass through
    (directory / _OURS).touch(mode=0o600)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from 0.1 to 86400, got {text!r}")
    return value


def _rate(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"expected 1 to 1000000 events a second, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)
