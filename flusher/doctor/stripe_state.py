"""Checks of what comes back from Stripe: whether anybody tells us, and what nobody has ended."""

from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.doctor.finding import Finding, Level, finding
from flusher.sql import query

SILENT_S: Final = 7 * 86_400  # an account that invoices has some event in a week

_ASK: Final = (
    "run `taximeter webhooks` and point an endpoint at Stripe to it, or `taximeter reconcile --stripe --fix-status`"
)


class Back(NamedTuple):
    """Invoices that are open at Stripe for over a week, seconds since the last event (None: never), and credit notes
    whose confirmation was not ended."""

    open: int
    heard_s: int | None
    confirming: int


def check_stripe(connection: psycopg.Connection[TupleRow]) -> list[Finding]:
    """Return what is found; nothing where no invoice went to Stripe. Raises psycopg.Error."""
    sent, *rest = connection.execute(query("doctor_stripe"), {"age_s": SILENT_S}).fetchall()[0]
    return judge_back(Back(*rest)) if sent else []


def judge_back(back: Back) -> list[Finding]:
    """Say whether statuses come back, and whether credit notes were ended."""
    silent = back.heard_s is None or back.heard_s > SILENT_S
    heard = "no event of Stripe ever came" if back.heard_s is None else f"the last event came {back.heard_s} s ago"
    detail = f"{heard}; {back.open} invoices are open since over a week"
    found = [finding("stripe", "statuses", detail, Level.WARN if silent and back.open else Level.OK, _ASK)]
    if back.confirming:
        text = f"{back.confirming} credit notes may exist at Stripe"
        remedy = "`taximeter credit --status confirming` lists them: confirm each again"
        found.append(finding("stripe", "credit_notes", text, Level.WARN, remedy))
    return found
