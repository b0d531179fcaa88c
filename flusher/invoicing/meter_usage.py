"""Takes usage into meter events: what of it is in events, and what is carried, is stored with the reading (rule 16)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer
from flusher.catalog_store import load_customers_of
from flusher.invoicing.meter_events import HOUR, Carry, Change, Pair, Whole, cut, floor_hour, identifier, settled_until
from flusher.invoicing.settle import WINDOW_DEFAULT, Clock, NotYet, settlement
from flusher.invoicing.sound import Doubts
from flusher.invoicing.store import ledger_of, read_clock, rows
from flusher.pricing.measure import Need
from flusher.pricing.period import Period
from flusher.sql import query
from sidecar.contract.units import from_decimal, to_decimal

Connection = psycopg.Connection[TupleRow]
Progress = Callable[[int, int], None]

CUSTOMERS_AT_ONCE: Final = 200
HOURS_AT_ONCE: Final = 20_000
LOOK_BACK: Final = timedelta(days=70)
"""How far back usage is compared with what was taken: twice as far as Stripe takes events."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be taken: of meters, from an hour on, until a time where one is given, of a customer where one is."""

    meters: Sequence[str]
    since: datetime
    at: datetime | None = None
    customer: str | None = None
    window: timedelta = WINDOW_DEFAULT


@dataclass(frozen=True, slots=True)
class Held:
    """Usage that is not taken yet, and why. `customer` and `meter` are empty where it is everybody's."""

    customer: str
    meter: str
    why: NotYet


def take_usage(connection: Connection, wanted: Wanted, progress: Progress) -> list[Held]:
    """Make events of all usage that is settled and in none yet; return what is held back.

    Each chunk of customers is a transaction. Safe to kill anywhere, to repeat and to run several times at once.
    """
    # Read before any usage: watermarks only grow.
    clock = read_clock(connection)
    until = settled_until(clock, wanted.window)
    if wanted.at is not None:
        until = min(until, floor_hour(wanted.at))
    since = max(wanted.since, floor_hour(clock.now - LOOK_BACK))
    held = _behind(clock, wanted, until)
    if until <= since:
        return held
    taker = _Taker(connection, wanted.meters, Period(since, until))
    if wanted.customer is not None:
        return held + taker.take([wanted.customer])
    done = 0
    for name in ("list_metered_users", "list_left_customers"):
        after = ""
        while found := rows(connection, name, {"after": after, "limit": CUSTOMERS_AT_ONCE}):
            progress(done, 0)
            held += taker.take(sorted({row["customer"] for row in found if not row["is_erased"]}))
            done, after = done + len(found), found[-1]["name"]
    return list(dict.fromkeys(held))  # a customer comes once for each page with users of its


def _behind(clock: Clock, wanted: Wanted, until: datetime) -> list[Held]:
    """Return what the hours are held back for that have ended and are not settled."""
    ended = floor_hour(min(clock.now, wanted.at or clock.now))
    found = settlement(until + HOUR, clock, wanted.window) if until < ended else None
    return [Held("", "", found)] if isinstance(found, NotYet) else []


class _Taker:
    """Takes usage of one span, chunk after chunk."""

    def __init__(self, connection: Connection, meters: Sequence[str], span: Period) -> None:
        self._connection = connection
        self._meters = meters
        self._span = span
        self._ledger, _ = ledger_of(connection)

    def take(self, ids: Sequence[str]) -> list[Held]:
        """Take the usage of some customers, so many hours a transaction; return what is held back."""
        while True:
            with self._connection.transaction():
                # What is read after the lock has what other runs stored before it.
                self._connection.execute(query("lock_metering"))
                customers = load_customers_of(self._connection, ids)
                held, open_pairs = self._sort(customers)
                changes = self._changes(open_pairs)
                self._store(changes, {pair for pair, _ in open_pairs})
            if sum(map(len, changes.values())) < HOURS_AT_ONCE:
                return held

    def _sort(self, customers: dict[str, Customer]) -> tuple[list[Held], list[tuple[Pair, Customer]]]:
        """Return what the proof holds back, and the pairs that may be taken."""
        doubts = Doubts(self._connection, [user for customer in customers.values() for user in customer.user_ids])
        held, open_pairs = [], []
        for customer in customers.values():
            for meter in self._meters:
                why = doubts.about(customer, Need(meter, self._span))
                if why is None:
                    open_pairs.append((Pair(customer.id, meter), customer))
                else:
                    held.append(Held(customer.id, meter, why))
        return held, open_pairs

    def _changes(self, open_pairs: Iterable[tuple[Pair, Customer]]) -> dict[Pair, list[Change]]:
        """Return what of the pairs' usage is not taken; of one whose users are another's now, all that was."""
        given = [(pair, user) for pair, customer in open_pairs for user in customer.user_ids or (None,)]
        values = {
            "customers": [pair.customer for pair, _ in given],
            "users": [user for _, user in given],
            "meters": [pair.meter for pair, _ in given],
            "since": self._span.start,
            "until": self._span.end,
            "limit": HOURS_AT_ONCE,
        }
        found = rows(self._connection, "read_unmetered", values)
        by_pair = groupby(found, key=lambda row: Pair(row["customer"], row["meter"]))
        return {
            pair: [Change(row["hour"].astimezone(UTC), from_decimal(row["units"])) for row in group]
            for pair, group in by_pair
        }

    def _store(self, changes: dict[Pair, list[Change]], allowed: set[Pair]) -> None:
        """Store what becomes of the changes, and of whole units that are carried."""
        pairs = {"customers": sorted({pair.customer for pair in allowed}), "meters": list(self._meters)}
        before = {
            Pair(row["customer"], row["meter"]): Carry(from_decimal(row["units"]), row["events"])
            for row in rows(self._connection, "read_carries", pairs)
        }
        latest = self._span.end - HOUR
        after: dict[Pair, Carry] = {}
        events: list[tuple[Pair, Whole]] = []
        for pair in sorted(allowed & (changes.keys() | before.keys())):
            made, carry = cut(changes.get(pair, ()), before.get(pair, Carry()), latest)
            if pair in changes or made:
                after[pair] = carry
                events += [(pair, whole) for whole in made]
        hours = [(pair, change) for pair, some in changes.items() for change in some]
        self._write(
            "take_hours",
            [pair for pair, _ in hours],
            hours=[change.hour for _, change in hours],
            units=[to_decimal(change.nanos) for _, change in hours],
        )
        self._write(
            "set_carries",
            list(after),
            units=[to_decimal(carry.nanos) for carry in after.values()],
            events=[carry.events for carry in after.values()],
        )
        self._write(
            "add_metered_events",
            [pair for pair, _ in events],
            identifiers=[identifier(self._ledger, pair, whole) for pair, whole in events],
            hours=[whole.hour for _, whole in events],
            units=[whole.units for _, whole in events],
        )

    def _write(self, name: str, pairs: Sequence[Pair], **columns: list[Any]) -> None:
        if pairs:
            keys = {"customers": [pair.customer for pair in pairs], "meters": [pair.meter for pair in pairs]}
            self._connection.execute(query(name), {**keys, **columns})
