"""What an invoice costs when there are many: customers with ten usage rows each, from nothing to stored invoices.

Each size is run in a process of its own, so that its peak memory is its own. Time should grow with the number of
customers and no faster; memory is that of a chunk, and of the ids of what was made.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

from flusher.bench.figures import Figure, Goal
from flusher.bench.servers import Stand
from flusher.catalog_store import apply_catalog
from flusher.database import connect
from flusher.invoicing.run import Options, each_outcome
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

MOST: Final = 1.15  # of what an invoice costs with the fewest customers
ROW: Final = "invoices"
USAGE_ROWS: Final = 10
_AT: Final = datetime(2025, 8, 1, tzinfo=UTC)
_CATALOG: Final = """
[[meters]]
name = "api_call"
event_type = "api_call"

[[plans]]
name = "bench"
currency = "usd"
prices = [
    {name = "seat", model = "fixed", amount = "10"},
    {meter = "api_call", model = "graduated", tiers = [
        {up_to = 1000, unit_price = "0"}, {up_to = 10000, unit_price = "0.01"}, {unit_price = "0.005"}]},
]
"""


class Run(NamedTuple):
    """A run over all customers: seconds, seconds of CPU of this side, the peak of its memory, invoices made."""

    took_s: float
    used_s: float
    peak_bytes: int
    invoices: int


def measure(sizes: Sequence[int], parent: Path | None) -> Iterator[Figure]:
    """Yield what an invoice costs with so many customers, the fewest first, beside what it cost with those."""
    smallest: float | None = None
    beside = ""
    with Stand(parent) as stand:
        for size in sorted(sizes):
            _fill(stand, size)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                run = pool.apply(_invoice, (stand.postgres.url,))
            lines = _check(stand, size, run)
            figure = Figure(ROW, f"invoices: {size:,} customers", "ms an invoice")
            figure.ours = [run.took_s * 1e3 / size]
            if smallest is None:
                smallest, beside = figure.ours[0], f"{size:,}"
            figure.beside[beside] = [smallest]
            figure.goals = (Goal(beside, most=MOST),)
            figure.cpu_us = {"taximeter invoice": run.used_s * 1e6 / size}
            figure.note = (
                f"{size * USAGE_ROWS:,} usage rows, {lines:,} lines: {run.took_s:.1f} s, "
                f"peak of {run.peak_bytes / 2**20:.0f} MiB"
            )
            sys.stderr.write(f"taximeter bench: {figure.name}: {figure.note}\n")
            yield figure


def _fill(stand: Stand, customers: int) -> None:
    with connect(stand.postgres.url, autocommit=True) as connection:
        apply_catalog(connection, _CATALOG)
        connection.execute(query("bench_clear"))
        for name in ("bench_subscriptions", "bench_usage"):
            connection.execute(query(name), {"customers": customers})
        connection.execute(query("bench_settle"))


def _invoice(url: str) -> Run:
    """Make the invoices, in a process of its own."""
    began_at, used, made = time.perf_counter(), time.process_time(), 0
    with connect(url, autocommit=True) as connection:
        for _ in each_outcome(connection, Options(at=_AT), _tell):
            made += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Run(time.perf_counter() - began_at, time.process_time() - used, peak, made)


def _tell(done: int, of: int) -> None:
    if of and done * 10 // of != max(0, done - 500) * 10 // of:
        sys.stderr.write(f"taximeter bench: {done:,} of {of:,} customers\n")


def _check(stand: Stand, customers: int, run: Run) -> int:
    """Return how many lines there are. Raises TaximeterError `server_failed` for a wrong invoice anywhere."""
    with connect(stand.postgres.url, autocommit=True) as connection:
        invoices, lines, rows, total = connection.execute(query("bench_sum")).fetchall()[0]
    expected = sum((_price(number) for number in range(1, customers + 1)), Decimal(0))
    if (invoices, rows, total) != (run.invoices, customers * USAGE_ROWS, expected):
        raise TaximeterError("server_failed", f"{invoices} invoices of {total}, expected {customers} of {expected}")
    return int(lines)


def _price(number: int) -> Decimal:
    """Return what a customer's month costs: written apart from the product."""
    quantity = Decimal(number % 977) * 45 + Decimal("4.5")
    cents = Decimal(1000)
    for low, high, price in ((1000, 10_000, Decimal(1)), (10_000, 10**9, Decimal("0.5"))):
        inside = max(Decimal(0), min(quantity, Decimal(high)) - low)
        cents += (inside * price + Decimal("0.5")) // 1
    return cents / 100
