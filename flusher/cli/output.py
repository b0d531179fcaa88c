"""What commands print: JSON and tables on standard output, progress on standard error and only on a terminal."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_PIPE_WIDTH: Final = 240  # nothing is cut off for whoever reads a table from a pipe


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON value for a program to read."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_rows(name: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Print `{name: [rows]}`, a row a line, as they come: there may be more than fit in memory."""
    sys.stdout.write(f'{{"{name}": [')
    separator = "\n  "
    for row in rows:
        sys.stdout.write(separator + json.dumps(row, ensure_ascii=False))
        separator = ",\n  "
    sys.stdout.write("]}\n" if separator == "\n  " else "\n]}\n")


def console(stream: TextIO | None = None) -> Console:
    """Return a console on `stream` (default: standard output) that wraps and colours on a terminal alone."""
    stream = stream or sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)


def progress() -> Progress:
    """Return a progress display on standard error; it shows nothing where that is no terminal.

    A task has a field `note`, which stands beside the bar.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
