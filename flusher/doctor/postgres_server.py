"""Checks of PostgreSQL as a server: version, schema, and what a commit is worth."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow, dict_row

from flusher.database import check_schema
from flusher.doctor.finding import Finding, Level, finding
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

VERSION_MIN: Final = 150_000
_PART: Final = "postgres"


def check_postgres(connection: psycopg.Connection[TupleRow]) -> list[Finding]:
    """Return what is found of the server. Raises psycopg.Error when it can't be asked."""
    with connection.cursor(row_factory=dict_row) as cursor:
        (server,) = cursor.execute(query("doctor_server")).fetchall()
    connection.rollback()
    return [*judge_postgres(server), _schema(connection)]


def judge_postgres(server: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the row of `doctor_server` says."""
    major, minor = divmod(int(server["version"]), 10_000)
    level = Level.OK if server["version"] >= VERSION_MIN else Level.FAIL
    yield finding(_PART, "version", f"PostgreSQL {major}.{minor}", level, "use PostgreSQL 15 or newer")
    if server["in_recovery"]:
        remedy = "name the primary's address"
        yield finding(_PART, "role", "it is a standby and takes no writes", Level.FAIL, remedy)
    yield _durability(server)
    yield _standby(server)


def _durability(server: Mapping[str, Any]) -> Finding:
    name = "durability"
    for setting in ("fsync", "full_page_writes"):
        if server[setting] != "on":
            remedy = f"set {setting} = on: after a power failure the ledger may be damaged beyond repair"
            return finding(_PART, name, f"{setting} is {server[setting]}", Level.FAIL, remedy)
    commit = server["synchronous_commit"]
    level = Level.OK if commit != "off" else Level.WARN
    remedy = "set synchronous_commit = on: a crash takes back what was committed last, and only journals still have it"
    return finding(_PART, name, f"synchronous_commit is {commit}", level, remedy)


def _standby(server: Mapping[str, Any]) -> Finding:
    """Rule 12: an asynchronous standby that takes over may lack commits whose journal segments are deleted by then."""
    name = "standby"
    if server["synchronous_standbys"] and server["synchronous_commit"] != "local":
        return finding(_PART, name, f"{server['synchronous_standbys']} synchronous")
    named = server["synchronous_standby_names"]
    if named and server["standbys"]:
        detail = f"synchronous_standby_names is {named}, {server['standbys']} connected; their state can't be seen"
        remedy = "GRANT pg_monitor to this role, so that this can be checked"
    elif server["standbys"]:
        detail = f"{server['standbys']} connected, none synchronous"
        remedy = "make one synchronous: else a failover loses the last commits, and journals hold them only for a while"
    else:
        detail = "none"
        remedy = "run a synchronous standby: without one, this server's disk is the only one with what journals dropped"
    return finding(_PART, name, detail, Level.WARN, remedy)


def _schema(connection: psycopg.Connection[TupleRow]) -> Finding:
    try:
        check_schema(connection)
    except TaximeterError as error:
        return finding(_PART, "schema", error.message, Level.FAIL, "see the message")
    return finding(_PART, "schema", "up to date")
