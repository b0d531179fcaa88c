"""Adds, changes and ends subscriptions, one or hundreds of thousands, whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

import psycopg
from psycopg.rows import TupleRow, dict_row

from flusher.catalog.changing import Moment, Settled, running_end, settle
from flusher.catalog.check import terms_problems, twice_text
from flusher.catalog.diff import boundary_problem, new_boundaries
from flusher.catalog.fitting import wants_values
from flusher.catalog.model import NO_OVERRIDES, Subscription
from flusher.catalog.overlap import priced_twice
from flusher.catalog.parse import read_subscription
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog.reader import Report, Table, shown
from flusher.catalog_store import (
    load_customers_of,
    load_meters,
    load_plan_versions,
    load_subscriptions_of,
    lock_catalog,
    read_floor_us,
    read_now,
    subscription_of,
)
from flusher.pricing.line import rfc3339
from flusher.pricing.plan import UsagePrice
from flusher.sql import query
from flusher.subscription_file import Row
from flusher.subscription_store import (
    Place,
    copy_staged,
    find_summed,
    load_invoiced,
    rerate,
    stage,
    write_staged,
)
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

CHUNK: Final = 5_000
IMPORT_MAX: Final = 2_000_000
PROBLEMS_MAX: Final = 100


@dataclass(slots=True)
class Written:
    """How many subscriptions were added, changed, and were so already."""

    added: int = 0
    changed: int = 0
    same: int = 0


def import_subscriptions(
    connection: Connection,
    rows: Iterable[Row],
    report: Report,
    *,
    effective: datetime | None = None,
    into_closed: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> Written:
    """Add the subscriptions of a file, or change those that exist, by id; the file is written whole or not at all.

    `report` gets what is wrong with the file as `rows` are read. `progress` is told how many rows are done. Raises
    CatalogError with the problems, by line, TryAgainError while somebody else changes the catalog.
    """
    with _writing(connection, report, effective, into_closed=into_closed, dry_run=dry_run) as writer:
        done = 0
        remaining = iter(rows)
        while chunk := list(islice(remaining, CHUNK)):
            writer.take([(row.line, found) for row in chunk if (found := writer.read(row))])
            writer.stop_at(PROBLEMS_MAX)
            done += len(chunk)
            progress(done)
            if done > IMPORT_MAX:
                report.add(f"line {chunk[-1].line}", f"expected at most {IMPORT_MAX:,} subscriptions; split the file")
                writer.stop_at(1)
        return writer.write()


def change_subscription(
    connection: Connection,
    subscription: str,
    plan: str,
    at: datetime | None,
    *,
    keep_overrides: bool = False,
    into_closed: bool = False,
    dry_run: bool = False,
) -> Settled:
    """Put a subscription on another plan, from `at` on (None: from the end of its running period).

    What it has otherwise than its plan ends with the plan, unless `keep_overrides`. Raises TaximeterError
    `subscription_unknown`, and CatalogError.
    """
    with _writing(connection, Report(), at, into_closed=into_closed, dry_run=dry_run) as writer:
        before = writer.find(subscription)
        overrides = before.last.overrides if keep_overrides else NO_OVERRIDES
        return writer.change(replace(before, plan=plan, overrides=overrides, changes=()))


def end_subscription(
    connection: Connection, subscription: str, at: datetime | None, *, dry_run: bool = False
) -> Settled:
    """End a subscription at `at` (None: with its running period). Raises as `change_subscription`."""
    with _writing(connection, Report(), None, into_closed=False, dry_run=dry_run) as writer:
        before = writer.find(subscription)
        end = at or writer.running_end(before)
        if end is None:
            raise _refused(subscription, "end", f"it ended at {rfc3339(before.end or before.start)} already")
        if end <= before.start:
            raise _refused(subscription, "end", f"expected a time after its start, {rfc3339(before.start)}")
        last = before.last
        return writer.change(replace(before, plan=last.plan, overrides=last.overrides, end=end, changes=()))


def _refused(subscription: str, key: str, message: str) -> CatalogError:
    return CatalogError([Problem(f"subscription {subscription}: {key}", message)])


@contextmanager
def _writing(
    connection: Connection, report: Report, effective: datetime | None, *, into_closed: bool, dry_run: bool
) -> Iterator["_Writer"]:
    """Give a writer inside a transaction that keeps others from changing the catalog; a dry run is rolled back."""
    with connection.transaction(force_rollback=dry_run):
        lock_catalog(connection)
        moment = Moment(
            read_now(connection), load_plan_versions(connection), effective=effective, into_closed=into_closed
        )
        yield _Writer(connection, report, moment)


class _Writer:
    """Takes subscriptions as they are to be, stages what changes, and writes it when nothing is wrong with any.

    Every subscription has a place: the line that it is from, or 0 for one that a command names.
    """

    def __init__(self, connection: Connection, report: Report, moment: Moment) -> None:
        self._connection = connection
        self._report = report
        self._moment = moment
        self._meters = {meter.name: meter for meter in load_meters(connection)}
        self._floor_us = read_floor_us(connection)
        self._lines: dict[str, int] = {}
        self._rerated: dict[str, datetime] = {}
        self._written = Written()
        stage(connection)

    def read(self, row: Row) -> Subscription | None:
        """Return the subscription of a row, or None when something is wrong with it."""
        return read_subscription(Table(self._report, f"line {row.line}", row.values))

    def find(self, subscription: str) -> Subscription:
        """Return a subscription as it is. Raises TaximeterError `subscription_unknown`."""
        found = load_subscriptions_of(self._connection, [subscription]).get(subscription)
        if found is None:
            message = f"no subscription {subscription!r}; `taximeter subscriptions` lists them"
            raise TaximeterError("subscription_unknown", message)
        return found

    def running_end(self, subscription: Subscription) -> datetime | None:
        """Return the end of the running period of a subscription, None when it has ended."""
        zone = load_customers_of(self._connection, [subscription.customer])[subscription.customer].zone
        return running_end(subscription, zone, self._moment)

    def change(self, wanted: Subscription) -> Settled:
        """Write one subscription and return what became of it."""
        settled = self.take([(0, wanted)])
        self.write()
        return settled[0]

    def stop_at(self, count: int) -> None:
        """Raise CatalogError when there are so many problems."""
        if len(self._report.problems) >= count:
            raise CatalogError(self._report.problems[:PROBLEMS_MAX])

    def take(self, wanted: Sequence[tuple[int, Subscription]]) -> list[Settled]:
        """Stage what changes of subscriptions as they are to be, and note what is wrong with them."""
        ids = [found.id for _, found in wanted]
        existing = load_subscriptions_of(self._connection, ids)
        customers = load_customers_of(self._connection, {found.customer for found in existing.values()})
        moment = replace(self._moment, invoiced=load_invoiced(self._connection, list(existing)))
        staged: list[tuple[int, Subscription]] = []
        settled: list[Settled] = []
        boundaries: list[tuple[int, Subscription, str, datetime]] = []
        for line, found in wanted:
            if not self._is_good(line, found):
                continue
            before = existing.get(found.id)
            zone = customers[before.customer].zone if before is not None else None
            outcome = Settled(found) if zone is None else settle(found, before, zone, moment)
            settled.append(outcome)
            for key, message in outcome.faults:
                self._report.add(self._path(line, found.id, key), message)
            after = outcome.subscription
            if after == before:
                self._written.same += 1
                continue
            self._written.added += before is None
            self._written.changed += before is not None
            staged.append((line, after))
            boundaries += [(line, after, key, at) for key, at in new_boundaries(after, before)]
            if outcome.rerated_since is not None:
                self._rerated[after.id] = outcome.rerated_since
        copy_staged(self._connection, staged)
        self._check_boundaries(boundaries)
        return settled

    def write(self) -> Written:
        """Write what is staged. Raises CatalogError with all that is wrong."""
        write_staged(self._connection)
        rerate(self._connection, self._rerated, "changes of subscriptions that reach behind what is invoiced")
        for place, customer, owner in self._connection.execute(
            query("list_staged_of_others"), {"limit": PROBLEMS_MAX}
        ).fetchall():
            message = (
                f"customer {shown(customer)} has no entry, while user {shown(customer)} is customer {shown(owner)}'s"
            )
            self._report.add(self._path(place, "", "customer"), message)
        self._check_priced_once()
        self.stop_at(1)
        return self._written

    def _is_good(self, line: int, found: Subscription) -> bool:
        """Note what is wrong with a subscription by itself."""
        mark = self._report.mark()
        earlier = self._lines.setdefault(found.id, line)
        if earlier != line:
            self._report.add(self._path(line, found.id, "id"), f"{shown(found.id)} is on line {earlier} already")
        if found.plan not in self._moment.versions:
            message = f"expected the name of a plan, got {shown(found.plan)}; apply a catalog with this plan first"
            self._report.add(self._path(line, found.id, "plan"), message)
        elif found.overrides != NO_OVERRIDES:
            plan = self._moment.versions[found.plan][-1].plan
            for key, message in terms_problems(found, plan, self._meters):
                self._report.add(self._path(line, found.id, key), message)
            for number, price in enumerate(found.overrides.prices):
                meter = self._meters.get(price.meter) if isinstance(price, UsagePrice) else None
                if meter is not None and wants_values(price) and not meter.keeps_values:
                    path = self._path(line, found.id, f"overrides.prices[{number}].meter")
                    message = f"{shown(meter.name)} keeps sums alone and the price looks at single events"
                    self._report.add(path, f"expected a meter with detailed = true, {message}")
        return self._report.clean_since(mark)

    def _check_boundaries(self, boundaries: Sequence[tuple[int, Subscription, str, datetime]]) -> None:
        """Note every boundary inside a window whose single events are not there."""
        if not boundaries:
            return
        customers = load_customers_of(self._connection, {found.customer for _, found, _, _ in boundaries})
        places = [
            Place(number, user, at)
            for number, (_, found, _, at) in enumerate(boundaries)
            for user in customers[found.customer].user_ids
        ]
        summed = find_summed(self._connection, places, ())
        for number, (line, found, key, at) in enumerate(boundaries):
            message = boundary_problem(at, self._floor_us, summed=number in summed)
            if message is not None:
                self._report.add(self._path(line, found.id, key), message)

    def _check_priced_once(self) -> None:
        """Note two subscriptions of a customer, one of them written now, that price one meter at one time."""
        with self._connection.cursor("beside_staged", row_factory=dict_row) as cursor:
            cursor.execute(query("list_beside_staged"))
            batch: list[Subscription] = []
            for _, rows in groupby(cursor, key=itemgetter("customer")):
                batch += map(subscription_of, rows)
                if len(batch) >= CHUNK:
                    self._check_batch(batch)
                    batch = []
        self._check_batch(batch)

    def _check_batch(self, batch: Sequence[Subscription]) -> None:
        """Note those of several customers' subscriptions that price one meter at one time."""
        customers = load_customers_of(self._connection, {found.customer for found in batch})
        for twice in priced_twice(batch, self._moment.versions, lambda customer: customers[customer].zone):
            line = max(self._lines.get(found.id, 0) for found in (twice.one, twice.other))
            self._report.add(self._path(line, twice.other.id, ""), twice_text(twice))
        self.stop_at(PROBLEMS_MAX)

    def _path(self, line: int, subscription: str, key: str) -> str:
        """Return where a problem is: a line of the file, or the subscription that a command names."""
        place = f"line {line}" if line else f"subscription {subscription}"
        return f"{place}.{key}" if key and line else f"{place}: {key}" if key else place
