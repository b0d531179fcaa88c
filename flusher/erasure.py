"""`taximeter erase`: who a customer was is replaced by random tokens; what was counted and billed stays.

Money first: one transaction makes the tokens, closes the customer's invoices to every later change and gives them the
token. Then events and usage, a day of a shard at a time, so that both change together and the proof holds at any
moment. Then Redis, by new generations (rule 5). Killed anywhere, the same command goes on: whose token is which is kept
until the end, and forgotten there.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.types.json import Jsonb

from flusher.erased_records import concerns, read_record, without
from flusher.invoicing.late import list_held
from flusher.invoicing.run import Options, make_invoices
from flusher.nodes import Place
from flusher.partitions import end_of_month, start_of_month
from flusher.source import Source, random_token
from flusher.sql import query
from flusher.worker import Worker
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.identity import shard_of

WAIT_S: Final = 60.0
POLL_S: Final = 0.5
MANY_EVENTS: Final = 200_000  # of a day: more are changed hour by hour
RECORDS_AT_ONCE: Final = 100
SCAN_COUNT: Final = 1_000
NAMED_MAX: Final = 5
_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MONEY: Final = (
    "subscriptions",
    "invoices",
    "invoice_lines",
    "invoice_voids",
    "intents",
    "credit_notes",
    "small_amounts",
    "grants",
    "stripe_customers",
    "metered_hours",
    "metered_carries",
    "metered_events",
)
_BY_TIME: Final = ("events", "boundary_events", "usage", "usage_values")
_AT_ONCE: Final = ("event_conflicts", "voids", "backfill_events", "discrepancies")

Connection = psycopg.Connection[TupleRow]
Heard = Callable[[str], object]
"""Hears what is being done, for a progress display."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did: the customer's token, and how many rows were changed, by table."""

    token: str
    users: int
    counts: Mapping[str, int]
    begun_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Whose token is which, and on which shard its events are."""

    erasure: str
    of_user: Mapping[str, str]
    shard_of_user: Mapping[str, int]

    @property
    def by_shard(self) -> dict[int, list[str]]:
        """The users of each shard."""
        found: dict[int, list[str]] = {}
        for user, shard in sorted(self.shard_of_user.items()):
            found.setdefault(shard, []).append(user)
        return found


class _Span(NamedTuple):
    """Users of a shard, and a stretch of time of theirs."""

    shard: int
    users: list[str]
    start: datetime
    end: datetime


class Eraser:
    """Erases one customer. `connection` is in autocommit mode; `wait_s`: how long sidecars are waited for."""

    def __init__(
        self,
        connection: Connection,
        worker: Worker,
        source: Source,
        customer: str,
        *,
        wait_s: float = WAIT_S,
        heard: Heard = lambda _: None,
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._source = source
        self._customer = customer
        self._wait_s = wait_s
        self._heard = heard
        if not self._rows("lock_erasures")[0]["pg_try_advisory_lock"]:
            raise TryAgainError("erasure_waits", "another erasure is under way; they go one after the other")

    def users(self) -> list[str]:
        """Return the users of the customer, itself among them.

        Raises TaximeterError `erasure_refused` where it is a user of another customer.
        """
        (row,) = self._rows("find_users_to_erase", customer=self._customer)
        if row["other"] is not None:
            raise TaximeterError(
                "erasure_refused", f"{self._customer} is a user of customer {row['other']}; erase that customer"
            )
        return list(dict.fromkeys([*row["users"], self._customer]))

    def is_begun(self) -> bool:
        """Whether an erasure of the customer was begun and not finished."""
        return bool(self._rows("find_erasing", customer=self._customer))

    def check(self) -> None:
        """Raise TaximeterError `erasure_refused` while anything may still have to be billed to the customer."""
        users = self.users()
        shards = sorted(self._shards_of(users).values())
        (found,) = self._rows("find_open_business", customer=self._customer, users=users, shards=shards)
        waiting = self._quarantined(users)
        problems = [
            (found["running"], "subscriptions that have not ended: {}; end them with `taximeter apply`"),
            (found["undelivered"], "invoices that are not delivered: {}; run `taximeter invoice`"),
            (found["notes"], "credit notes that are not issued: {}; see `taximeter credit`"),
            (found["metered"], "meter events that are not sent: {}; see `taximeter meters`"),
            (waiting, "events in quarantine: {}; see `taximeter quarantine retry` and `discard`"),
            (found["discrepancies"], "{} open discrepancies; see `taximeter verify`"),
            (found["holes"], "{} holes that nobody accepted, which may be its events; see `taximeter holes`"),
        ]
        for value, text in problems:
            if value:
                shown = ", ".join(map(str, value[:NAMED_MAX])) if isinstance(value, list) else str(value)
                raise TaximeterError("erasure_refused", f"{self._customer} has {text.format(shown)}")
        made = make_invoices(self._connection, Options(customer=self._customer, dry_run=True))
        held = list(list_held(self._connection, timedelta(0), self._customer))
        if made.invoices or made.waiting or held:
            raise TaximeterError(
                "erasure_refused",
                f"{self._customer} has usage that is not billed ({len(made.invoices) + len(made.waiting)} invoices are "
                f"due, {len(held)} closed periods have changed); run `taximeter invoice`, see `taximeter late`",
            )

    def run(self) -> Erased:
        """Erase the customer, or go on with it.

        Raises TryAgainError when a server is away, or `erasure_waits` when a sidecar may still hold events of the
        customer; TaximeterError `erasure_refused` as `check` does. Nothing is changed then, unless it was begun.
        """
        tokens = self._begun()
        if tokens is None:
            self._settle(self.users())
            self.check()
            tokens = self._begin()
        for span in self._spans(tokens):
            self._heard(f"shard {span.shard}: {span.start:%Y-%m-%d %H:%M}")
            self._erase_span(tokens, span)
        self._erase_rest(tokens)
        self._erase_redis(tokens)
        with self._connection.transaction():
            self._run("note_erased_usage", erasure=tokens.erasure)
            self._run("finish_erasure", erasure=tokens.erasure)
        (row,) = self._rows("read_erasure", erasure=tokens.erasure)
        return Erased(tokens.erasure, row["users"], row["counts"], row["begun_at"], row["finished_at"])

    # -- before ---------------------------------------------------------------------------------------------------

    def _settle(self, users: Sequence[str]) -> None:
        """Drain, until nothing that was accepted before now can be in a journal or in Redis any more."""
        shards = sorted(set(self._shards_of(users).values()))
        since = self._rows("read_clock")[0]["now"]
        deadline = time.monotonic() + self._wait_s
        while True:
            self._heard("draining what sidecars and Redis hold")
            self._worker.flush()
            behind = self._rows("find_behind", shards=shards, since=since)
            if not behind:
                return
            if time.monotonic() >= deadline:
                named = ", ".join(f"{row['producer']} on {row['host']}" for row in behind[:NAMED_MAX])
                raise TryAgainError(
                    "erasure_waits",
                    f"{len(behind)} sidecars may still hold events from before {since:%Y-%m-%dT%H:%M:%SZ}: {named}; "
                    "start them, or give them up with `taximeter producers retire`",
                )
            time.sleep(POLL_S)

    def _quarantined(self, users: Sequence[str]) -> list[int]:
        """Return the open rows of the quarantine that are, or may be, events of the users."""
        names = dict.fromkeys(users, "")
        found = []
        for row in self._records(users):
            batch = None if row["decided"] else read_record(row["record"])
            if not row["decided"] and (batch is None or concerns(batch, row["place"], names)):
                found.append(row["quarantined"])
        return found

    def _shards_of(self, users: Sequence[str]) -> dict[str, int]:
        return {user: shard_of(user, self._worker.shards) for user in users}

    def _begun(self) -> _Tokens | None:
        rows = self._rows("find_erasing", customer=self._customer)
        if not rows:
            return None
        of_user = {row["user_id"]: row["token"] for row in rows}
        return _Tokens(rows[0]["erasure"], of_user, {row["user_id"]: row["shard"] for row in rows})

    def _begin(self) -> _Tokens:
        """Make the tokens, and close what was billed, in one transaction."""
        shards = self._shards_of(self.users())
        of_user = {user: _token(shard, self._worker.shards) for user, shard in shards.items()}
        erasure, salt = of_user[self._customer], secrets.token_bytes(32)
        known = {"customer": self._customer, "erasure": erasure, "salt": salt}
        users, tokens = list(of_user), list(of_user.values())
        with self._connection.transaction():
            self._run("begin_erasure", erasure=erasure, users=len(users))
            self._run("add_erased_users", erasure=erasure, tokens=tokens)
            self._run("add_erasing", **known, users=users, tokens=tokens, shards=list(shards.values()))
            self._run("allow_erasing")
            counts = {"customer_users": self._run("erase_customer_users", **known)}
            counts["customers"] = self._run("erase_customers", **known)
            for name in _MONEY:
                counts[name] = self._run(f"erase_{name}", **known)
            self._count(erasure, counts)
        return _Tokens(erasure, of_user, shards)

    # -- events and usage -----------------------------------------------------------------------------------------

    def _spans(self, tokens: _Tokens) -> Iterator[_Span]:
        """Yield what there is something of: days of shards, or hours of days with many events.

        Events are looked through once, a day a statement: there is no index by user.
        """
        used = {
            (row["shard"], row["day"].astimezone(UTC))
            for row in self._rows("usage_days_to_erase", erasure=tokens.erasure)
        }
        days = {day for _, day in used}.union(*(map(_days_of, self._months())))
        everybody = list(tokens.of_user)
        for day in sorted(days):
            found = self._rows("count_events_to_erase", start=day, end=day + _DAY, users=everybody)
            events = {row["shard"]: row["events"] for row in found}
            for shard, users in tokens.by_shard.items():
                if shard in events or (shard, day) in used:
                    step = _HOUR if events.get(shard, 0) > MANY_EVENTS else _DAY
                    for number in range(_DAY // step):
                        yield _Span(shard, users, day + number * step, day + (number + 1) * step)

    def _months(self) -> list[str]:
        return [row["month"] for row in self._rows("list_partitions")]

    def _erase_span(self, tokens: _Tokens, span: _Span) -> None:
        """Change events and usage of a span together: the shard is held, so nothing is counted between them."""
        known = {"erasure": tokens.erasure, "users": span.users, "start": span.start, "end": span.end}
        with self._connection.transaction():
            self._run("wait_for_shard")
            self._connection.execute(query("lock_shard"), (span.shard,))
            self._count(tokens.erasure, {name: self._run(f"erase_{name}", **known) for name in _BY_TIME})

    def _erase_rest(self, tokens: _Tokens) -> None:
        """Change what is not many rows, and the records in quarantine."""
        self._heard("conflicts, voids, quarantine")
        with self._connection.transaction():
            counts = {name: self._run(f"erase_{name}", erasure=tokens.erasure) for name in _AT_ONCE}
            self._count(tokens.erasure, counts)
        for row in self._records(list(tokens.of_user)):
            batch = read_record(row["record"])
            if batch is not None and not concerns(batch, None, tokens.of_user):
                continue  # an id that is a part of another text
            record = b"" if batch is None else without(batch, tokens.of_user)
            own = batch is None or concerns(batch, row["place"], tokens.of_user)
            with self._connection.transaction():
                self._run("erase_quarantined", quarantined=row["quarantined"], record=record, own=own)
                self._count(tokens.erasure, {"quarantine": 1})

    def _records(self, users: Sequence[str]) -> Iterator[DictRow]:
        """Yield rows of the quarantine whose records have the name of a user somewhere."""
        after, texts = 0, [user.encode() for user in users]
        while rows := self._rows("list_quarantine_with", after=after, texts=texts, limit=RECORDS_AT_ONCE):
            yield from rows
            after = rows[-1]["quarantined"]

    # -- Redis ----------------------------------------------------------------------------------------------------

    def _erase_redis(self, tokens: _Tokens) -> None:
        """Open new generations, which are written from Postgres, and remove the totals of the old ones at once."""
        shards = list(tokens.by_shard)
        with self._connection.transaction():
            for shard in shards:
                self._run("wait_for_shard")
                self._connection.execute(query("lock_shard"), (shard,))
                # Should we be killed before the next step, the next cycle of any flusher does it.
                self._connection.execute(query("store_token"), (random_token(), shard))
        self._heard("Redis")
        self._worker.rebuild(shards, lambda shard, totals: self._heard(f"Redis: shard {shard}, {totals:,} totals"))
        names = {user.encode() for user in tokens.of_user}
        current = {(shard, self._source.state(shard).generation) for shard in shards}
        place = Place()
        while True:
            place, found = self._source.scan(place, "{t*", SCAN_COUNT)
            for key in found:
                if keys.user_of_totals(key) in names and keys.generation_of(key) not in current:
                    self._source.command("UNLINK", key)
            if place == Place():
                return

    # -- statements -----------------------------------------------------------------------------------------------

    def _rows(self, name: str, **values: object) -> list[DictRow]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), values).fetchall()

    def _run(self, name: str, **values: Any) -> int:
        """Run a statement and return how many rows it touched."""
        return self._connection.execute(query(name), values).rowcount

    def _count(self, erasure: str, counts: Mapping[str, int]) -> None:
        changed = {name: count for name, count in counts.items() if count}
        if changed:
            self._run("count_erased", erasure=erasure, counts=Jsonb(changed))


def _days_of(month: str) -> list[datetime]:
    start = start_of_month(month)
    return [start + number * _DAY for number in range((end_of_month(start) - start) // _DAY)]


def _token(shard: int, shards: int) -> str:
    """Return a random name whose events belong to the same shard: what is there stays where it is looked for."""
    while True:
        token = f"erased_{secrets.token_hex(12)}"
        if shard_of(token, shards) == shard:
            return token
