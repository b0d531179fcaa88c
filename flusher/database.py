"""Connections to PostgreSQL, and the migration runner: the only place that decides deadlines and session settings."""

import hashlib
import secrets
from typing import Final, LiteralString

import psycopg
from psycopg.rows import TupleRow

from flusher.sql import Migration, migrations, query
from sidecar.contract.codes import TaximeterError, TryAgainError

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 120
LOCK_TIMEOUT_S: Final = 10
TCP_TIMEOUT_MS: Final = 15_000  # a server that went silent is noticed, also while a cancel can't reach it

_OPTIONS: Final = (
    f"-c search_path=taximeter -c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_S}s "
    f"-c lock_timeout={LOCK_TIMEOUT_S}s -c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_S}s"
)


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection[TupleRow]:
    """Return a connection whose session reads and writes schema `taximeter`, in UTC, under deadlines.

    Raises TryAgainError `database_unavailable` when the server does not answer, TaximeterError `config_invalid` for
    an address that can't be read.
    """
    try:
        return psycopg.connect(
            url,
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=TCP_TIMEOUT_MS,
            options=_OPTIONS,
            application_name="taximeter",
        )
    except psycopg.OperationalError as error:
        raise TryAgainError("database_unavailable", f"PostgreSQL does not answer: {first_line(error)}") from error
    except psycopg.ProgrammingError as error:
        raise TaximeterError("config_invalid", f"PostgreSQL's address can't be read: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of what an error says: the server's sentence, without its context."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def migrate(url: str, *, shards: int = 1) -> list[Migration]:
    """Bring the schema up to date and return the migrations that were applied, oldest first.

    Each runs in a transaction of its own, under an advisory lock, so that several may start it at once. The first
    run makes the ledger with `shards` shards; later runs leave it as it is. Raises TaximeterError `schema_outdated`
    when an applied migration is not the one that this program has.
    """
    with connect(url, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '60s'")
        connection.execute(query("create_schema"))
        applied: list[Migration] = []
        for step in migrations():
            with connection.transaction():
                connection.execute(query("lock_migrations"))
                if _is_applied(connection, step):
                    continue
                connection.execute(step.text)
                connection.execute(query("record_migration"), (step.number, step.name, _digest(step.text)))
                applied.append(step)
        with connection.transaction():
            connection.execute(query("lock_migrations"))
            connection.execute(query("create_ledger"), {"id": secrets.token_hex(8), "shards": shards})
            connection.execute(query("create_shards"))
        return applied


def _digest(text: LiteralString) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_applied(connection: psycopg.Connection[TupleRow], step: Migration) -> bool:
    row = connection.execute(query("find_migration"), (step.number,)).fetchone()
    if row is not None and row[0] != _digest(step.text):
        raise TaximeterError(
            "schema_outdated",
            f"migration {step.number} ({step.name}) was applied with another text; program and database differ",
        )
    return row is not None


def check_schema(connection: psycopg.Connection[TupleRow]) -> None:
    """Raise TaximeterError `schema_outdated` unless every migration of this program is applied, and no later one.

    Raises TryAgainError `database_unavailable` when the server goes away meanwhile.
    """
    try:
        row = connection.execute(query("last_migration")).fetchone()
        connection.rollback()
    except psycopg.errors.UndefinedTable:
        connection.rollback()
        row = None
    except psycopg.OperationalError as error:
        raise TryAgainError("database_unavailable", f"PostgreSQL does not answer: {first_line(error)}") from error
    found = int(row[0]) if row is not None else 0
    wanted = len(migrations())
    if found != wanted:
        raise TaximeterError(
            "schema_outdated",
            f"the schema is at migration {found}, this program needs {wanted}; run `taximeter migrate`"
            if found < wanted
            else f"the schema is at migration {found}, newer than this program ({wanted}); update the program",
        )
