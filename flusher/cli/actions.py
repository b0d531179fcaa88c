"""What the commands share that list something and decide on one of it: `taximeter holes`, `taximeter holes accept`."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.cli.target import Target
from flusher.database import check_schema, connect
from sidecar.contract.codes import TryAgainError

REASON_MAX: Final = 2000


def add_actions(parser: argparse.ArgumentParser, texts: Mapping[str, str]) -> list[argparse.ArgumentParser]:
    """Add actions by name, each with its line of help, and return their parsers.

    Without an action `args.action` is None, and the command lists. Flags that the command has too may stand before
    or behind the action's name.
    """
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    return [
        actions.add_parser(
            name,
            help=text,
            description=f"{text[:1].upper()}{text[1:]}.",
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        for name, text in texts.items()
    ]


def add_reason(parser: argparse.ArgumentParser, *, required: bool, text: str) -> None:
    """Add `--reason`, which is kept with the decision."""
    parser.add_argument("--reason", metavar="TEXT", type=_reason, required=required, help=text)


def _reason(text: str) -> str:
    if not text.strip() or len(text) > REASON_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected a line of 1 to {REASON_MAX} characters, got {text[:80]!r}")
    return text.strip()


def number(text: str) -> int:
    """Return the positive number that `text` means; the type of an argument."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


@contextmanager
def reported() -> Iterator[None]:
    """Turn what Postgres refuses inside into TryAgainError `database_unavailable`: nothing of it was kept."""
    try:
        yield
    except psycopg.Error as error:
        sentence = str(error).strip().partition("\n")[0]
        raise TryAgainError("database_unavailable", f"PostgreSQL: {sentence}") from error


@contextmanager
def ledger_of(target: Target) -> Iterator[psycopg.Connection[TupleRow]]:
    """Give a connection to the ledger, on which each statement is a transaction unless one is begun.

    Raises TryAgainError `database_unavailable` when Postgres does not answer, TaximeterError `schema_outdated`.
    """
    with connect(target.need_database(), autocommit=True) as connection:
        check_schema(connection)
        with reported():
            yield connection


def time_text(moment: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC, to the second."""
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
