"""Subscriptions in Postgres: written in sets, and what must not be changed behind: invoices and summed rows."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from flusher.catalog.model import NO_OVERRIDES, Subscription
from flusher.catalog.plan_reader import overrides_table
from flusher.pricing.plan import Overrides
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]


class Place(NamedTuple):
    """A boundary of a user's periods, or of everybody's on a plan; `place` is the asker's number for it."""

    place: int
    of: str
    at: datetime


def stage(connection: Connection) -> None:
    """Make an empty stage, for the rest of the transaction."""
    for statement in ("stage_subscriptions", "stage_changes", "clear_stage"):
        connection.execute(query(statement))


def copy_staged(connection: Connection, subscriptions: Iterable[tuple[int, Subscription]]) -> None:
    """Copy subscriptions to the stage, each with the number of its place."""
    rows = list(subscriptions)
    with connection.cursor() as cursor:
        with cursor.copy(query("copy_subscriptions")) as copy:
            for place, found in rows:
                overrides = _jsonb(found.overrides)
                copy.write_row((place, found.id, found.customer, found.plan, found.start, found.end, overrides))
        if any(found.changes for _, found in rows):
            with cursor.copy(query("copy_changes")) as copy:
                for _, found in rows:
                    for change in found.changes:
                        copy.write_row((found.id, change.at, change.plan, _jsonb(change.overrides)))


def write_staged(connection: Connection) -> None:
    """Write what is on the stage. No id may be there twice."""
    for statement in ("analyze_staged", "upsert_subscriptions", "forget_changes", "add_changes"):
        connection.execute(query(statement))


def write_subscriptions(connection: Connection, subscriptions: Collection[Subscription]) -> None:
    """Add subscriptions, or change their terms and end."""
    if subscriptions:
        stage(connection)
        copy_staged(connection, enumerate(subscriptions))
        write_staged(connection)


def load_invoiced(connection: Connection, ids: Collection[str]) -> dict[str, datetime]:
    """Return how far subscriptions are invoiced, by id; those that are not at all are left out."""
    rows = connection.execute(query("list_subscriptions_invoiced"), {"ids": list(ids)}).fetchall()
    return {subscription: until.astimezone(UTC) for subscription, until in rows}


def load_closed(connection: Connection, plans: Collection[str], at: datetime) -> dict[str, datetime]:
    """Return until when periods are invoiced by plans, by name; those by which none is after `at` are left out."""
    rows = connection.execute(query("list_plans_invoiced"), {"plans": list(plans), "at": at}).fetchall()
    return {plan: until.astimezone(UTC) for plan, until in rows}


def rerate(connection: Connection, since: Mapping[str, datetime], reason: str) -> None:
    """Have the closed periods of subscriptions rated anew that begin at or after a time, by id."""
    if since:
        values = {"subscriptions": list(since), "since": list(since.values()), "reason": reason}
        connection.execute(query("add_reratings"), values)


def find_billed_by(connection: Connection, plans: Collection[str], at: datetime) -> list[str]:
    """Return the subscriptions with periods that are invoiced by plans and end after a time."""
    return [row[0] for row in connection.execute(query("list_billed_by"), {"plans": list(plans), "at": at}).fetchall()]


def find_summed(connection: Connection, of_users: Collection[Place], of_plans: Collection[Place]) -> set[int]:
    """Return the places of those moments in whose windows the users have summed rows (design 2.4)."""
    found: set[int] = set()
    for statement, names, moments in (
        ("find_summed", "users", of_users),
        ("find_summed_of_plans", "plans", of_plans),
    ):
        values = {
            "places": [moment.place for moment in moments],
            names: [moment.of for moment in moments],
            "moments": [moment.at for moment in moments],
        }
        if moments:
            found |= {row[0] for row in connection.execute(query(statement), values).fetchall()}
    return found


def _jsonb(overrides: Overrides) -> Jsonb | None:
    return None if overrides == NO_OVERRIDES else Jsonb(overrides_table(overrides))
