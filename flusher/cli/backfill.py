"""`taximeter backfill`: events of the past, what they would cost before anything is done, and all of it undone."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import msgspec
import psycopg
from psycopg.rows import TupleRow
from rich import box
from rich.table import Table
from rich.text import Text

from flusher import backfill
from flusher.backfill import Backfill, Brought
from flusher.cli.actions import add_reason, ledger_of, time_text
from flusher.cli.output import console, print_json, print_json_rows
from flusher.cli.send import FORMATS, add_way, batches_of, client_of, format_of, send_all, summary, tally_json
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.cli.trial import confirm, read_batch, report, terms_of, try_out
from flusher.ledger import Ledger
from flusher.pricing.line import rfc3339
from flusher.sending.client import VOIDS, Client, Tally
from flusher.sending.file import EventFile, open_events
from flusher.sending.records import Batch, Filling
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import STRING_BYTES_MAX

Connection = psycopg.Connection[TupleRow]

_encode: Final = msgspec.json.Encoder().encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file or the backfill that is undone, the reason, and the ways to the sidecar and PostgreSQL."""
    parser.description = (
        "Bring in events of the past from a file; each needs a timestamp. One without an id gets an id and a source "
        "from the file's digest and its line, so sending the same file again counts nothing twice. Without FILE and "
        "--undo, list what was brought in."
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="the events; - for standard input")
    parser.add_argument("--undo", metavar="ID", help="cancel every event that this backfill brought")
    add_reason(parser, required=False, text="why; kept with it, and with every void of an undo")
    parser.add_argument("--dry-run", action="store_true", help="show what it would do to invoices, and do nothing")
    parser.add_argument("--yes", action="store_true", help="do it without showing that first and asking")
    add_way(parser)
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "http", "database")


def run(args: argparse.Namespace) -> int:
    """List, send or undo. Returns 1 when an event was rejected or in conflict.

    Raises TaximeterError: backfill_unknown, already_decided, not_confirmed.
    """
    if args.file is not None and args.undo is not None:
        raise TaximeterError("usage_invalid", "expected FILE or --undo, got both")
    target = find_target(args)
    target.need_database()
    if args.file is None and args.undo is None:
        target.announce("database")
        return _list(target, as_json=args.json)
    if args.reason is None or len(args.reason.encode()) > STRING_BYTES_MAX:
        raise TaximeterError("usage_invalid", f"--reason: expected why, in 1 to {STRING_BYTES_MAX} bytes")
    target.announce("database")
    return _undo(target, args) if args.undo is not None else _bring(target, args)


def _list(target: Target, *, as_json: bool) -> int:
    with ledger_of(target) as connection:
        found = backfill.list_backfills(connection)
    if as_json:
        print_json_rows("backfills", map(_as_json, found))
    elif not found:
        sys.stdout.write("nothing was backfilled\n")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("id", "file", "events", "since", "state", "reason"):
            table.add_column(name, justify="right" if name == "events" else "left", overflow="fold")
        for one in found:
            cells = (one.id, one.name, f"{one.events:,}", time_text(one.started_at), _state(one), one.reason)
            table.add_row(*(Text(cell or "") for cell in cells))
        console().print(table)
    return 0


def _state(one: Backfill) -> str:
    if one.undone_at is not None:
        return f"undone: {one.undo_reason}"
    if one.undo_reason is not None:
        return "being undone"
    return "sent" if one.sent_at is not None else "begun"


def _as_json(one: Backfill) -> dict[str, object]:
    times = {name: time_text(getattr(one, name)) for name in ("started_at", "sent_at", "undone_at")}
    return one._asdict() | times


# -- a file


def _bring(target: Target, args: argparse.Namespace) -> int:
    with open_events(args.file) as file, closing(Ledger(target.need_database())) as ledger:
        if args.dry_run or not args.yes:
            tally = Tally()
            trial = try_out(ledger, _records(args, file, tally), tally)
            if args.dry_run:
                return report(trial, file.name, as_json=args.json)
            confirm(trial, f"send {file.name}")
        with ledger_of(target) as connection:
            client = client_of(args)
            _send(connection, ledger, args, file, client)
    tally = client.tally
    if args.json:
        print_json({"backfill": file.digest, **tally_json(tally)})
    else:
        sys.stdout.write(f"backfill {file.digest}: {summary(tally, file.name)}")
    return 1 if tally.rejected or tally.conflicts else 0


def _send(connection: Connection, ledger: Ledger, args: argparse.Namespace, file: EventFile, client: Client) -> None:
    """Send a file, and note what it brings before each batch of it is sent: then all of it can be undone."""
    backfill.begin(connection, file.digest, file.name, args.reason)
    terms = terms_of(ledger)

    def noted() -> Iterator[Batch]:
        for batch in _records(args, file, client.tally):
            backfill.note(connection, file.digest, read_batch(batch, terms).events)
            yield batch

    try:
        asyncio.run(send_all(client, file, noted()))
    except (TaximeterError, KeyboardInterrupt):
        sys.stderr.write(f"stopped after {client.tally.sent:,} events; send the same file again to go on\n")
        raise
    names = ("sent", "accepted", "duplicates", "conflicts", "rejected")
    backfill.finish(connection, file.digest, {name: getattr(client.tally, name) for name in names})


def _records(args: argparse.Namespace, file: EventFile, tally: Tally) -> Iterator[Batch]:
    records = FORMATS[args.format or format_of(args.file)]
    return batches_of(records(file.lines(), Filling(file.digest, None, backfill.source_of(file.digest))), tally)


# -- an undo


def _undo(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        backfill.find_backfill(connection, args.undo)
        if args.dry_run or not args.yes:
            with closing(Ledger(target.need_database())) as ledger:
                trial = try_out(ledger, _voids(connection, args.undo, args.reason), Tally(), voids=True)
            if args.dry_run:
                return report(trial, args.undo, as_json=args.json)
            confirm(trial, f"undo {args.undo}")
        backfill.begin_undo(connection, args.undo, args.reason)
        client = client_of(args, VOIDS)
        asyncio.run(_send_voids(client, _voids(connection, args.undo, args.reason)))
        backfill.finish_undo(connection, args.undo)
    tally = client.tally
    if args.json:
        print_json({"undone": args.undo, **tally_json(tally)})
    else:
        before = tally.duplicates + tally.conflicts
        others = f"; {before:,} were cancelled before" if before else ""
        sys.stdout.write(f"{args.undo} is undone: {tally.accepted:,} events are cancelled{others}\n")
    return 1 if tally.rejected else 0


async def _send_voids(client: Client, voids: Iterator[Batch]) -> None:
    async with client:
        await client.send_all(voids)


def _voids(connection: Connection, name: str, reason: str) -> Iterator[Batch]:
    """Yield the voids of everything that a backfill brought."""
    for page in backfill.brought(connection, name):
        yield Batch([_void(one, reason) for one in page], range(1, len(page) + 1))


def _void(one: Brought, reason: str) -> bytes:
    named = {"user_id": one.user_id, "source": one.source, "id": one.id, "timestamp": rfc3339(one.time)}
    return _encode(named | {"reason": reason})
