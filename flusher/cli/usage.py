"""`taximeter usage`: what was counted, by customer and meter, as of the last drain."""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from rich.table import Table

from flusher.cli.instant import instant
from flusher.cli.output import console, print_json_rows
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.pricing.line import rfc3339
from flusher.usage import Part, Range, UsageRow, read_usage, usage_range, users_of
from sidecar.contract.units import format_units, from_decimal

TABLE_ROWS_MAX: Final = 1_000
"""What a person reads on a screen, and more; `--json` has no limit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to show, over which time, and how it is divided."""
    parser.add_argument("--customer", metavar="C", help="of one customer; a user without an entry is its own")
    parser.add_argument("--meter", metavar="M", help="of one meter")
    parser.add_argument(
        "--from", metavar="T", type=instant, dest="start", help="from this time on (default: this month, UTC)"
    )
    parser.add_argument("--to", metavar="T", type=instant, dest="end", help="up to, and not with, this time")
    parser.add_argument("--by", choices=[part.value for part in Part], help="divide by UTC hour, day or month")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Print the usage. Raises TaximeterError `usage_invalid` for times that can't be used."""
    span = usage_range(args.start, args.end, datetime.now(UTC))
    part = None if args.by is None else Part(args.by)
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    with connect(url) as connection:
        check_schema(connection)
        users = None if args.customer is None else users_of(connection, args.customer)
        meters = None if args.meter is None else [args.meter]
        rows = read_usage(connection, span, users=users, meters=meters, part=part)
        if args.json:
            print_json_rows("usage", (row.as_json() for row in rows))
        else:
            _print_table(rows, span, part)
    return 0


def _print_table(rows: Iterator[UsageRow], span: Range, part: Part | None) -> None:
    table = Table(title=f"Usage from {rfc3339(span.start)} to {rfc3339(span.end)}", title_justify="left")
    for heading in (*((part.value,) if part else ()), "customer", "meter", "dimensions"):
        table.add_column(heading)
    table.add_column("units", justify="right")
    table.add_column("events", justify="right")
    for row in islice(rows, TABLE_ROWS_MAX):
        dimensions = ", ".join(f"{name}={value}" for name, value in row.dimensions.items())
        when = (rfc3339(row.span.start),) if part else ()
        units = format_units(from_decimal(row.units))
        table.add_row(*when, row.customer, row.meter, dimensions, units, f"{row.events}")
    if table.row_count:
        console().print(table)
    else:
        sys.stdout.write(f"nothing was counted from {rfc3339(span.start)} to {rfc3339(span.end)}\n")
    if next(rows, None) is not None:
        sys.stderr.write(f"there are more than {TABLE_ROWS_MAX} rows; narrow it down, or use --json\n")
    sys.stderr.write("as of the last drain; `taximeter flush` brings in what Redis has\n")
