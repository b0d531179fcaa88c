"""`taximeter demo`: the whole system, a month of traffic, the invoice and the proof, in less than a minute."""

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from flusher.cli.invoice_view import invoice_page
from flusher.cli.output import console, progress
from flusher.cli.up import DEFAULT_HTTP
from flusher.cli.verify import show as show_proof
from flusher.database import connect
from flusher.demo.traffic import CUSTOMER, END, START, Traffic, make_traffic
from flusher.embedded.system import Address, System, free_address
from flusher.endpoints import Endpoints
from flusher.invoicing.invoice import Invoice
from flusher.invoicing.run import Options, make_invoices
from flusher.pricing.line import dimensions_of
from flusher.proof import Proof, verify
from flusher.sending.client import Client, Tally
from flusher.usage import Range, read_usage
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError, TryAgainError

AMOUNTS: Final = (Decimal("0.00"), Decimal("90.00"), Decimal("11.73"))
TOTAL: Final = Decimal("101.73")
_DRAIN_DEADLINE_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 10.0
_CHECK_INTERVAL_S: Final = 0.1
_EVENT: Final = '{"user_id": "cus_123456", "event_type": "api_call", "units": 1}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the data go, and whether the system stays."""
    parser.add_argument("--data-dir", metavar="D", type=Path, help="where to put the data (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="stay up at the end, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Show it all. Raises TaximeterError `invariant_broken` when anything is not as it has to be."""
    data_dir = _data_dir(args.data_dir)
    for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
        del os.environ[name]  # the demo has settings of its own; a token of yours would shut it out
    with as_file(files("flusher.demo").joinpath("catalog.toml")) as catalog:
        system = System(data_dir, _address(), catalog=catalog, tell=_tell)
        try:
            with _step("starting", "the system runs: Valkey, PostgreSQL, a flusher and a sidecar"):
                endpoints = system.start()
            _show(endpoints)
            if args.keep:
                sys.stdout.write(_next_steps(endpoints.http, data_dir, running=True))
                sys.stdout.flush()
                _stay(system)
            _tell("stopping")
            system.stop()
        except BaseException:
            system.kill()
            _tell(f"the data and the logs stay in {data_dir}")
            raise
    if not args.keep:
        sys.stdout.write(_next_steps(endpoints.http, data_dir, running=False))
    return 0


def _show(endpoints: Endpoints) -> None:
    """Send, flush, count, invoice and prove; print the invoice and the proof."""
    traffic = make_traffic()
    _send(endpoints, traffic)
    with _step("flushing", "flushed: everything is in PostgreSQL"):
        proof = _drained(endpoints)
    with _step("counting", f"counted: {len(traffic.expected)} sums of usage equal what was sent, to the last digit"):
        _check_usage(endpoints, traffic)
    with _step("invoicing", f"invoiced: July 2025 of {CUSTOMER}"):
        invoice = _invoice(endpoints)
    out = console()
    out.print()
    out.print(invoice_page(invoice))
    show_proof(proof, out)
    check_proof(proof, traffic)
    _check_invoice(invoice)


def _send(endpoints: Endpoints, traffic: Traffic) -> None:
    began_at = time.monotonic()
    tally = asyncio.run(_send_all(endpoints, traffic))
    took_s = time.monotonic() - began_at
    _tell(
        f"{traffic.sent:,} events of 50 customers sent over HTTP: {traffic.different:,} different ones, "
        f"{traffic.sent - traffic.different:,} repeated by retries ({took_s:.1f} s, {traffic.sent / took_s:,.0f}/s)"
    )
    if tally.sent != traffic.sent or tally.rejected or tally.conflicts:
        raise _unexpected(
            "the answers", f"{traffic.sent} events and no rejection", f"{tally.sent}, {tally.rejected} rejected"
        )


async def _send_all(endpoints: Endpoints, traffic: Traffic) -> Tally:
    with progress() as shown:
        task = shown.add_task("sending", total=traffic.sent, note="")
        async with Client(endpoints.http) as client:
            tally = client.tally

            def advance() -> None:
                shown.update(task, completed=tally.sent, note=f"{tally.sent:,} events, {tally.duplicates:,} repeats")

            await client.send_all(iter(traffic.batches), progress=advance)
    return tally


def _drained(endpoints: Endpoints) -> Proof:
    """Flush until nothing is left in Redis or in a journal, and return the proof."""
    deadline = time.monotonic() + _DRAIN_DEADLINE_S
    with closing(Worker.connect(endpoints.redis, endpoints.database)) as worker:
        while True:
            try:
                worker.flush()
                proof = verify(endpoints.redis, endpoints.database, answer_timeout_s=_ANSWER_TIMEOUT_S)
            except TryAgainError:  # the system's own flusher is at work on the same shard
                if time.monotonic() > deadline:
                    raise
                continue
            if not (proof.redis.events or proof.journal.events or proof.undecided):
                return proof
            if time.monotonic() > deadline:
                left = f"{proof.redis.events} events in Redis, {proof.journal.events} in the journal"
                raise _unexpected("the flush", "everything in PostgreSQL", left)


def _check_usage(endpoints: Endpoints, traffic: Traffic) -> None:
    with connect(endpoints.database) as connection:
        found = {
            (row.customer, row.meter, dimensions_of(row.dimensions)): (row.units, row.events)
            for row in read_usage(connection, Range(START, END))
        }
    for place in found.keys() | traffic.expected.keys():
        if found.get(place) != traffic.expected.get(place):
            raise _unexpected(f"usage of {place}", f"{traffic.expected.get(place)}", f"{found.get(place)}")


def _invoice(endpoints: Endpoints) -> Invoice:
    with connect(endpoints.database, autocommit=True) as connection:
        made = make_invoices(connection, Options(at=END, customer=CUSTOMER))
    if len(made.invoices) != 1 or made.waiting:
        waiting = "; ".join(found.detail for found in made.waiting)
        raise _unexpected("the invoice run", "one invoice", f"{len(made.invoices)} {waiting}".strip())
    return made.invoices[0]


def _check_invoice(invoice: Invoice) -> None:
    amounts = tuple(line.amount for line in invoice.lines)
    if amounts != AMOUNTS or invoice.total != TOTAL:
        raise _unexpected("the invoice", f"{', '.join(map(str, AMOUNTS))}", f"{', '.join(map(str, amounts))}")


def check_proof(proof: Proof, traffic: Traffic) -> None:
    """Raise TaximeterError `invariant_broken` unless the proof holds and is of this traffic."""
    if not proof.ok:
        raise _unexpected("the proof", "that it holds", "that it does not")
    repeated = traffic.sent - traffic.different
    if proof.postgres.events != traffic.different or proof.conflicts.events or proof.duplicates.events < repeated:
        expected = f"{traffic.different} events and {repeated} duplicates"
        raise _unexpected("the proof", expected, f"{proof.postgres.events} and {proof.duplicates.events}")


def _unexpected(what: str, expected: str, got: str) -> TaximeterError:
    return TaximeterError("invariant_broken", f"{what}: expected {expected}, got {got}")


def _stay(system: System) -> None:
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    while not asked:
        system.check()
        time.sleep(_CHECK_INTERVAL_S)


def _data_dir(named: Path | None) -> Path:
    """Return an empty directory. Raises TaximeterError `usage_invalid` for a named one that has something in it."""
    if named is not None:
        if named.exists() and (not named.is_dir() or any(named.iterdir())):
            raise TaximeterError("usage_invalid", f"--data-dir: expected a directory that is empty, got {str(named)!r}")
        return named.absolute()
    made = Path(tempfile.mkdtemp(prefix="taximeter-demo-"))
    if os.geteuid() == 0:
        made.chmod(0o711)  # PostgreSQL runs as another user then, who has to pass through
    return made


def _address() -> Address:
    """Return the address that `up` has by default, or a free one where that is taken."""
    address = Address.parse(DEFAULT_HTTP)
    try:
        address.require_free()
    except TaximeterError:
        return free_address()
    return address


@cache
def _screen() -> Console:
    """The one console on standard error: two at once would write into each other's moving lines."""
    return console(sys.stderr)


def _tell(line: str) -> None:
    _screen().print(f"taximeter demo: {line}", markup=False, soft_wrap=True)


@contextmanager
def _step(doing: str, done: str) -> Iterator[None]:
    """Say that something was done, and how long it took; on a terminal, that it goes on, too."""
    began_at = time.monotonic()
    with _screen().status(f"{doing} ..."):
        yield
    _tell(f"{done} ({time.monotonic() - began_at:.1f} s)")


def _next_steps(http: str, data_dir: Path, *, running: bool) -> str:
    program = "taximeter" if shutil.which("taximeter") else shlex.quote(sys.argv[0])
    here = f"--data-dir {shlex.quote(str(data_dir))}"
    address = http.removeprefix("http://")
    elsewhere = "" if address == DEFAULT_HTTP else f" --http {address}"
    again = f"\nTo start it again, with these data:\n\n  {program} up {here}{elsewhere}\n"
    head = f"\nTaximeter is up at {http} until Ctrl-C.\n" if running else again
    return f"""{head}
Send an event{"" if running else ", when it is up"}:

  curl {http}/v1/events -H 'Content-Type: application/json' -d '{_EVENT}'

And then:

  {program} usage {here} --customer {CUSTOMER} --by month --from 2025-07-01
  {program} invoices {here}
  {program} verify {here}
  {program} doctor {here}
"""
