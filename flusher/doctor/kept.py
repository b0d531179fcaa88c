"""Checks of what is forgotten (rule 15): the floors, what is below them, and whether dropping it keeps up."""

from datetime import datetime
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.doctor.finding import Finding, Level, finding
from flusher.partitions import start_of_month
from flusher.sql import query

WAITING_MAX: Final = 100_000  # claims that wait to be dropped: a flusher drops some 10,000 a second
LAG_MAX_S: Final = 5 * 86_400  # the floor of claims is three days back where no sidecar is away
DROP_MAX_S: Final = 2 * 86_400  # from telling the sidecars to a month that is gone

_RUN_ONE: Final = "run a flusher (`taximeter flusher`), and look at its log"
_Connection = psycopg.Connection[TupleRow]


class Claims(NamedTuple):
    """The floor of claims, its age and the ledger's; roughly how many claims there are, and how many are to go."""

    floor: datetime | None
    floor_age_s: int | None
    ledger_age_s: int
    estimate: int
    oldest: datetime | None
    waiting: int


class Events(NamedTuple):
    """The floor of events, the one that sidecars know since `told_ago_s`, what is dropped, and months still there."""

    floor: datetime | None
    told: datetime | None
    told_ago_s: int
    months_dropped: int
    events_dropped: int
    months: list[str]
    held_by: str


def check_kept(connection: _Connection) -> list[Finding]:
    """Return what is found. Raises psycopg.Error when Postgres can't be asked."""
    slowest = connection.execute(query("doctor_last_heard")).fetchone()
    behind = f"sidecar {slowest[0]} on {slowest[1] or 'an unknown host'}" if slowest else ""
    claims = Claims(*connection.execute(query("doctor_claims"), {"many": WAITING_MAX + 1}).fetchall()[0])
    months = sorted(row[0] for row in connection.execute(query("list_partitions")).fetchall() if row[0].isdigit())
    needed = connection.execute(query("doctor_needed")).fetchone()
    held_by = f"{needed[0]} ({_day(needed[1]) if needed[1] else 'whatever it may be'})" if needed else ""
    floor, told, told_ago_s, dropped, events = connection.execute(query("doctor_events")).fetchall()[0]
    kept = Events(floor, told, told_ago_s, dropped, events, months, held_by)
    return [judge_claims(claims, behind), judge_events(kept, behind)]


def judge_claims(claims: Claims, behind: str) -> Finding:
    """Say whether old claims go. `behind` names the sidecar that was heard of last of all, empty for none."""
    detail = f"about {claims.estimate}"
    if claims.oldest is not None:
        detail += f", the oldest accepted on {_day(claims.oldest)}"
    if claims.floor is None or claims.floor_age_s is None:
        level = Level.WARN if claims.ledger_age_s > LAG_MAX_S else Level.OK
        return finding("ledger", "claims", f"{detail}; no flusher has dropped any yet", level, _RUN_ONE)
    detail += f"; what was accepted up to {_day(claims.floor)} is in PostgreSQL"
    if claims.waiting > WAITING_MAX:
        remedy = "dropping does not keep up: run one more flusher, or look at what slows PostgreSQL down"
        return finding("ledger", "claims", f"{detail}; over {WAITING_MAX} wait to be dropped", Level.WARN, remedy)
    level = Level.OK if claims.floor_age_s <= LAG_MAX_S else Level.WARN
    return finding("ledger", "claims", f"{detail}; {claims.waiting} wait to be dropped", level, _wait_for(behind))


def judge_events(events: Events, behind: str) -> Finding:
    """Say which months of events there are, and whether those that may go do."""
    detail = f"months {events.months[0]} to {events.months[-1]}" if events.months else "none yet"
    if events.months_dropped:
        detail += f"; {events.events_dropped} of {events.months_dropped} months are dropped"
    if events.held_by:
        detail += f"; all is kept that is needed by {events.held_by}"
    if events.told is None:
        return finding("ledger", "events", detail)
    detail += f"; up to {_day(events.told)} they are refused"
    late = events.told_ago_s > DROP_MAX_S
    if events.floor is None or events.floor < events.told:
        detail += ", and go when every sidecar was heard of since"
        return finding("ledger", "events", detail, Level.WARN if late else Level.OK, _wait_for(behind))
    waiting = [month for month in events.months if start_of_month(month) <= events.floor]
    if waiting:
        detail += f", and {len(waiting)} months are being dropped"
        return finding("ledger", "events", detail, Level.WARN if late else Level.OK, _RUN_ONE)
    return finding("ledger", "events", detail)


def _wait_for(behind: str) -> str:
    if not behind:
        return _RUN_ONE
    return f"{behind} is waited for: start it, or `taximeter producers retire` it if it will never come back"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
