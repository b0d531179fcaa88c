"""`taximeter send`: events from a file or standard input, over HTTP; safe to interrupt and to repeat."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from flusher.cli.instant import instant
from flusher.cli.output import print_json, progress
from flusher.cli.target import add_target_arguments, find_target
from flusher.pricing.line import rfc3339
from flusher.sending.client import EVENTS, PATIENCE_S, Client, Problem, Tally
from flusher.sending.file import EventFile, open_events
from flusher.sending.memory import memory_directory, remembered_time
from flusher.sending.records import Batch, Filling, Record, Refused, csv_records, ndjson_records
from sidecar.contract.codes import TaximeterError

BATCH_EVENTS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 2 << 20
PROBLEMS_SHOWN_MAX: Final = 10
AUTHORISATION_VARIABLE: Final = "TAXIMETER_TOKEN_FILE"
FORMATS: Final = {"ndjson": ndjson_records, "csv": csv_records}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file, its format, and the way to the sidecar."""
    parser.description = (
        "Send events from a file or standard input. An event without an id gets one from the file's digest and its "
        "line, one without a timestamp the time at which the file was first sent, so sending the same file again "
        "counts nothing twice. A file with other bytes is another file."
    )
    parser.add_argument("file", metavar="FILE", help="the events; - for standard input")
    parser.add_argument("--timestamp", metavar="T", type=instant, help="the time of events that have none")
    add_way(parser)
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "http")


def add_way(parser: argparse.ArgumentParser) -> None:
    """Declare how a file of events is read and how it gets to the sidecar; the sidecar's address is apart."""
    parser.add_argument(
        "--format", choices=sorted(FORMATS), help="ndjson: an event a line; csv: with a header (default: by the name)"
    )
    parser.add_argument("--socket", metavar="PATH", type=Path, help="the sidecar's Unix socket, instead of its address")
    parser.add_argument(
        "--token-file",
        metavar="F",
        type=Path,
        help=f"a file with the token that authorises, on its first line (default: {AUTHORISATION_VARIABLE})",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=PATIENCE_S,
        help="how long to try while the sidecar takes nothing (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Send everything and say what became of it. Returns 1 when an event was rejected or in conflict."""
    records = FORMATS[args.format or format_of(args.file)]
    client = client_of(args)
    with open_events(args.file) as file:
        filling = Filling(file.digest, _timestamp(args.timestamp, file.digest))
        try:
            asyncio.run(send_all(client, file, batches_of(records(file.lines(), filling), client.tally)))
        except (TaximeterError, KeyboardInterrupt):
            sys.stderr.write(f"stopped after {client.tally.sent:,} events; send the same file again to go on\n")
            raise
    tally = client.tally
    if args.json:
        print_json(tally_json(tally))
    else:
        sys.stdout.write(summary(tally, file.name))
    return 1 if tally.rejected or tally.conflicts else 0


def client_of(args: argparse.Namespace, path: str = EVENTS) -> Client:
    """Return the way to the sidecar that the arguments name; `path` is where it takes what is sent."""
    token = _token(args.token_file or os.environ.get(AUTHORISATION_VARIABLE))
    if args.socket is not None:
        sys.stderr.write(f"socket: {args.socket} (from --socket)\n")
        return Client("http://localhost", path=path, socket=args.socket, token=token, patience_s=args.wait)
    target = find_target(args)
    url = target.need_http()
    target.announce("http")
    return Client(url, path=path, token=token, patience_s=args.wait)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected seconds, got {text!r}")
    return float(text)


def _token(path: Path | str | None) -> str | None:
    """Return the token in a file. Raises TaximeterError `usage_invalid` when there is none to be read."""
    if not path:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaximeterError("usage_invalid", f"--token-file: expected a file that can be read: {error}") from error
    token = next((line.strip() for line in lines if line.strip()), "")
    if not token:
        raise TaximeterError("usage_invalid", f"--token-file: expected a token, {path} is empty")
    return token


def format_of(name: str) -> str:
    """Return the format that the name of a file means."""
    return "csv" if name.lower().endswith(".csv") else "ndjson"


def _timestamp(given: datetime | None, digest: str) -> Callable[[], str]:
    """Return what gives the time of events without one; nothing is remembered unless it is asked for."""
    if given is not None:
        return lambda: rfc3339(given)
    return cache(lambda: remembered_time(memory_directory(os.environ), digest, lambda: datetime.now(UTC)))


async def send_all(client: Client, file: EventFile, batches: Iterator[Batch]) -> None:
    """Send the batches of a file, with a progress bar; what became of them is in the client's tally."""
    with progress() as shown:
        task = shown.add_task("sending", total=file.size, note="")

        def advance() -> None:
            shown.update(task, completed=file.read, note=f"{client.tally.sent:,} events")

        async with client:
            await client.send_all(batches, progress=advance)


def batches_of(records: Iterator[Record | Refused], tally: Tally) -> Iterator[Batch]:
    """Yield the records in batches; what is no event is counted as rejected here."""
    events: list[bytes] = []
    lines: list[int] = []
    size = 0
    for record in records:
        if isinstance(record, Refused):
            tally.refuse(Problem(record.line, None, record.code, record.message))
            continue
        if events and (len(events) >= BATCH_EVENTS_MAX or size + len(record.event) > BATCH_BYTES_MAX):
            yield Batch(events, lines)
            events, lines, size = [], [], 0
        events.append(record.event)
        lines.append(record.line)
        size += len(record.event)
    if events:
        yield Batch(events, lines)


def tally_json(tally: Tally) -> dict[str, object]:
    """Return what became of events for a program to read."""
    counts = ("sent", "accepted", "journaled", "duplicates", "conflicts", "rejected")
    problems = sorted(tally.problems, key=lambda problem: problem.line)
    return {name: getattr(tally, name) for name in counts} | {
        "problems": [
            {"line": problem.line, "id": problem.id, "code": problem.code, "message": problem.message}
            for problem in problems
        ]
    }


def summary(tally: Tally, name: str) -> str:
    """Return what became of the events of a file for a person to read."""
    lines = [f"{tally.sent:,} events of {name}"]
    journaled = f", {tally.journaled:,} of them safe on disk and to be applied" if tally.journaled else ""
    lines.append(f"{tally.accepted:>12,} accepted{journaled}")
    for count, what in (
        (tally.duplicates, "duplicates, accepted before and not counted again"),
        (tally.conflicts, "in conflict: the same identity was accepted with other content; not counted"),
        (tally.rejected, "rejected; not counted"),
    ):
        if count:
            lines.append(f"{count:>12,} {what}")
    problems = sorted(tally.problems, key=lambda problem: problem.line)
    for problem in problems[:PROBLEMS_SHOWN_MAX]:
        said = problem.message or "the same identity was accepted with other content"
        lines.append(f"line {problem.line}: {problem.code}: {said}")
    more = tally.rejected + tally.conflicts - len(problems[:PROBLEMS_SHOWN_MAX])
    if more > 0:
        lines.append(f"... and {more:,} more; see --json")
    if tally.rejected:
        lines.append("Send the mended lines in a file of their own: this file, changed, is another file to Taximeter.")
    return "\n".join(lines) + "\n"
