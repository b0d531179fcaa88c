"""Everything that can be checked of a set-up, as far as its parts are named and answer."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.doctor.finding import Finding, Level, finding
from flusher.doctor.kept import check_kept
from flusher.doctor.ledger_state import check_clocks, check_ledger
from flusher.doctor.postgres_server import check_postgres
from flusher.doctor.redis_server import check_backlog, check_redis
from flusher.doctor.sidecar_process import check_journal, check_sidecar
from flusher.doctor.stripe_state import check_stripe
from flusher.ledger import unavailable
from flusher.source import Source
from sidecar.contract.codes import TryAgainError


class SetUp(NamedTuple):
    """The parts to look at; what is None is not looked at."""

    redis: str | None = None
    database: str | None = None
    http: str | None = None
    journal_dir: Path | None = None


def examine(parts: SetUp) -> list[Finding]:
    """Return what is found, part by part. What does not answer is a finding too, and what needs it is left out."""
    found: list[Finding] = []
    with (
        closing(Source.connect(parts.redis)) if parts.redis else nullcontext() as source,
        _connection(parts.database, found) as connection,
    ):
        healthy = {
            "redis": source is not None and _attempt(found, "redis", lambda: check_redis(source)),
            "postgres": connection is not None and _attempt(found, "postgres", lambda: check_postgres(connection)),
        }
        if source is not None and healthy["redis"]:
            _attempt(found, "redis", lambda: check_backlog(source))
        if source is not None and connection is not None and all(healthy.values()):
            _attempt(found, "ledger", lambda: check_ledger(source, connection))
            _attempt(found, "ledger", lambda: check_kept(connection))
            _attempt(found, "clocks", lambda: check_clocks(source, connection))
            _attempt(found, "stripe", lambda: check_stripe(connection))
    if parts.http is not None:
        found += check_sidecar(parts.http)
    if parts.journal_dir is not None:
        found += check_journal(parts.journal_dir)
    return found


def _connection(url: str | None, found: list[Finding]) -> "closing[psycopg.Connection[TupleRow]] | nullcontext[None]":
    """Return a connection for a `with`; None in it where nothing is named or nobody answers, which is a finding."""
    if url is None:
        return nullcontext()
    try:
        return closing(connect(url))
    except TryAgainError as error:
        found.append(_silent("postgres", error))
        return nullcontext()


def _attempt(found: list[Finding], part: str, check: Callable[[], list[Finding]]) -> bool:
    """Add what a check finds; where its server does not answer, or the schema is missing, add that."""
    try:
        more = check()
    except TryAgainError as error:
        found.append(_silent(part, error))
        return False
    except psycopg.Error as error:
        found.append(_silent(part, unavailable(error)))
        return False
    found += more
    return not any(one.name == "schema" and one.level is Level.FAIL for one in more)


def _silent(part: str, error: TryAgainError) -> Finding:
    return finding(part, "reachable", error.message, Level.FAIL, "start it, or name its right address")
