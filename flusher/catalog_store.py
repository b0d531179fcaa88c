"""The catalog in Postgres: read it, and apply a file to it in one transaction."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.types.json import Jsonb

from flusher.catalog.changing import Moment
from flusher.catalog.detailed import changes_what_is_kept
from flusher.catalog.diff import (
    Boundary,
    Change,
    Changes,
    SettledDraft,
    boundaries_to_look_up,
    compare,
    names_to_look_up,
    settle_draft,
)
from flusher.catalog.encode import meter_table
from flusher.catalog.model import NO_OVERRIDES, Catalog, Customer, PlanChange, PlanVersion, Subscription
from flusher.catalog.parse import Draft, parse
from flusher.catalog.plan_reader import plan_table, read_overrides, read_plan
from flusher.catalog.reader import Report, Table
from flusher.pricing.line import rfc3339
from flusher.pricing.plan import Overrides, Plan
from flusher.sql import query
from flusher.subscription_store import (
    Place,
    find_billed_by,
    find_summed,
    load_closed,
    load_invoiced,
    rerate,
    write_subscriptions,
)
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.meters import Meter

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did, or would do: the changes, the revision of the meters then in force, and by plan the
    number of each version that it made. A dry run tells the numbers that would come next."""

    changes: Changes
    revision: int
    plan_versions: dict[str, int]


def apply_catalog(
    connection: Connection,
    text: str,
    *,
    dry_run: bool = False,
    effective: datetime | None = None,
    into_closed: bool = False,
) -> Applied:
    """Apply a catalog file, whole or not at all, and return what changed; a dry run changes nothing.

    Changed plans and subscriptions take effect at `effective`, else with the periods after the running ones;
    `into_closed` lets that reach behind what is invoiced (`catalog.changing.Moment`). Applying the same file again
    changes nothing. Raises CatalogError with every problem of the file, and TryAgainError as `lock_catalog` does.
    """
    with connection.transaction(force_rollback=dry_run):
        lock_catalog(connection)
        current = load_catalog(connection)
        draft = parse(text, current)
        moment = _moment(connection, draft, current, effective, into_closed=into_closed)
        settled = settle_draft(draft, current, moment)
        if changes_what_is_kept(draft.catalog, current.with_entries(draft.catalog), current):
            _hold_drains(connection)
        used = _used(connection, names_to_look_up(draft))
        changes = compare(settled, current, used, read_floor_us(connection), _summed(connection, settled, current))
        applied = _write(connection, changes, settled)
        if effective is not None and into_closed:
            of_plans = dict.fromkeys(find_billed_by(connection, list(moment.closed), effective), effective)
            rerate(connection, {**of_plans, **settled.rerated}, f"a catalog applied from {rfc3339(effective)} on")
        return applied


def lock_catalog(connection: Connection) -> None:
    """Keep the catalog from others' changes, and invoices from being made by it, until the transaction ends.

    Raises TryAgainError when somebody else is at it for longer than the session's lock timeout.
    """
    try:
        connection.execute(query("lock_catalog"))
    except psycopg.errors.LockNotAvailable as error:
        message = "the catalog is being changed, or invoices are made by it; try again when that is done"
        raise TryAgainError("database_unavailable", message) from error


def _hold_drains(connection: Connection) -> None:
    """Keep drains from committing until the transaction ends. Raises TryAgainError while one takes long."""
    try:
        connection.execute(query("hold_drains"))
    except psycopg.errors.LockNotAvailable as error:
        raise TryAgainError("database_unavailable", "a flusher is busy; try again") from error


def read_floor_us(connection: Connection) -> int | None:
    """Return up to when single events are dropped, in microseconds since the epoch; None when none are."""
    floor_us: int | None = connection.execute(query("read_ledger")).fetchall()[0][4]
    return floor_us


def read_now(connection: Connection) -> datetime:
    """Return the time by Postgres's clock."""
    now: datetime = connection.execute(query("read_clock")).fetchall()[0][0]
    return now.astimezone(UTC)


def load_catalog(connection: Connection) -> Catalog:
    """Return the catalog in force: every meter, customer and subscription, and the newest version of every plan."""
    return Catalog(
        {meter.name: meter for meter in load_meters(connection)},
        {name: versions[-1].plan for name, versions in load_plan_versions(connection).items()},
        {customer.id: customer for customer in load_customers(connection)},
        {found.id: found for found in load_subscriptions(connection)},
    )


def load_meters(connection: Connection) -> list[Meter]:
    """Return the meters in force, by name."""
    return [
        Meter(
            row["name"],
            row["event_type"],
            row["aggregation"],
            row["field"],
            tuple(row["group_by"]),
            {name: tuple(values) for name, values in row["filter"].items()},
            row["detailed"],
        )
        for row in _rows(connection, query("list_meters"), {})
    ]


def load_plan_versions(connection: Connection, plan: str | None = None) -> dict[str, tuple[PlanVersion, ...]]:
    """Return the versions of every plan, or of one, oldest first; `catalog.model.version_at` picks among them."""
    versions: dict[str, tuple[PlanVersion, ...]] = {}
    for row in _rows(connection, query("list_plan_versions"), {"plan": plan}):
        effective_at = row["effective_at"].astimezone(UTC)
        found = PlanVersion(_read_definition(row), row["version"], effective_at, row["at_once"])
        versions[row["plan"]] = (*versions.get(row["plan"], ()), found)
    return versions


def load_customers(connection: Connection) -> list[Customer]:
    """Return every customer that has an entry, by id."""
    return [_customer(row) for row in _rows(connection, query("list_customers"), {})]


def load_customers_of(connection: Connection, ids: Collection[str]) -> dict[str, Customer]:
    """Return customers by id: each by its entry, or by itself where it has none.

    One without an entry whose user belongs to another customer has no users.
    """
    rows = _rows(connection, query("find_customers"), {"ids": list(ids)})
    return {row["id"]: _customer(row) if row["time_zone"] else _implied(row) for row in rows}


def load_customer(connection: Connection, customer_id: str) -> Customer:
    """Return one customer as `load_customers_of` does."""
    return load_customers_of(connection, [customer_id])[customer_id]


def load_subscriptions(
    connection: Connection,
    customer: str | None = None,
    *,
    after: str | None = None,
    upto: str | None = None,
    limit: int | None = None,
) -> list[Subscription]:
    """Return every subscription, or a customer's, by customer and start.

    With `after`, `upto` or `limit` it is a page of them by id: at most `limit` that follow the id `after`, as far as
    the id `upto`.
    """
    values: dict[str, object] = {"customer": customer, "after": after or "", "upto": upto, "limit": limit}
    paged = after is not None or upto is not None or limit is not None
    rows = _rows(connection, query("page_subscriptions" if paged else "list_subscriptions"), values)
    return [subscription_of(row) for row in rows]


def load_subscriptions_of(connection: Connection, ids: Collection[str]) -> dict[str, Subscription]:
    """Return subscriptions by id; those that don't exist are left out."""
    rows = _rows(connection, query("find_subscriptions"), {"ids": list(ids)})
    return {row["id"]: subscription_of(row) for row in rows}


def load_subscriptions_of_customers(connection: Connection, customers: Collection[str]) -> list[Subscription]:
    """Return every subscription of some customers, by customer and start."""
    rows = _rows(connection, query("list_subscriptions_of"), {"customers": list(customers)})
    return [subscription_of(row) for row in rows]


def _customer(row: DictRow) -> Customer:
    return Customer(row["id"], tuple(row["user_ids"]), row["stripe_customer"], row["time_zone"])


def _implied(row: DictRow) -> Customer:
    return Customer(row["id"], (), row["id"]) if row["is_taken"] else Customer.implied(row["id"])


def subscription_of(row: DictRow) -> Subscription:
    """Return the subscription of a row of `subscription_terms`."""
    columns = (row[name] or () for name in ("changed_at", "changed_plan", "changed_overrides"))
    return Subscription(
        row["id"],
        row["customer"],
        row["plan"],
        row["start_at"].astimezone(UTC),
        None if row["end_at"] is None else row["end_at"].astimezone(UTC),
        _read_overrides(row["id"], row["overrides"]),
        tuple(
            PlanChange(at.astimezone(UTC), plan, _read_overrides(row["id"], overrides))
            for at, plan, overrides in zip(*columns, strict=True)
        ),
    )


def _read_overrides(subscription: str, table: dict[str, object] | None) -> Overrides:
    """Return the overrides of a stored table. Raises TaximeterError when this program can't read them."""
    if table is None:
        return NO_OVERRIDES
    report = Report()
    overrides = read_overrides(Table(report, f"subscription {subscription}", table))
    if overrides is None:
        raise _unreadable(f"subscription {subscription}", report)
    return overrides


def _unreadable(what: str, report: Report) -> TaximeterError:
    reason = "; ".join(map(str, report.problems))
    return TaximeterError("schema_outdated", f"{what} can't be read, update the program: {reason}")


def _read_definition(row: DictRow) -> Plan:
    """Return the plan of a stored version. Raises TaximeterError when this program can't read it."""
    report = Report()
    plan = read_plan(Table(report, f"plan {row['plan']}", row["definition"]))
    if plan is None:
        raise _unreadable(f"version {row['version']} of a plan", report)
    return plan


def _used(connection: Connection, names: Iterable[str]) -> frozenset[str]:
    """Return those of the names under which usage was counted."""
    rows = connection.execute(query("meters_with_usage"), {"names": sorted(names)}).fetchall()
    return frozenset(row[0] for row in rows)


def _moment(
    connection: Connection, draft: Draft, current: Catalog, effective: datetime | None, *, into_closed: bool
) -> Moment:
    """Return when the changes of a file are made, and what they may not reach behind."""
    changed = [name for name in draft.catalog.subscriptions if name in current.subscriptions]
    plans = [name for name, plan in draft.catalog.plans.items() if current.plans.get(name) not in (None, plan)]
    return Moment(
        read_now(connection),
        load_plan_versions(connection),
        load_invoiced(connection, changed),
        {} if effective is None else load_closed(connection, plans, effective),
        effective,
        into_closed,
    )


def _summed(connection: Connection, settled: SettledDraft, current: Catalog) -> frozenset[Boundary]:
    """Return the new boundaries in whose windows somebody whom they concern has summed rows."""
    after = current.with_entries(settled.draft.catalog)
    boundaries = boundaries_to_look_up(settled, current)
    of_users, of_plans = [], []
    for place, boundary in enumerate(boundaries):
        if boundary.section == "plans":
            of_plans.append(Place(place, boundary.name, boundary.at))
            continue
        customer = after.subscriptions[boundary.name].customer
        users = after.customers.get(customer, Customer.implied(customer)).user_ids
        of_users += [Place(place, user, boundary.at) for user in users]
    return frozenset(boundaries[place] for place in find_summed(connection, of_users, of_plans))


def _write(connection: Connection, changes: Changes, settled: SettledDraft) -> Applied:
    """Write the changes, each section by itself, and return their numbers."""
    by_section: dict[str, list[Change]] = {}
    for change in changes.changes:
        by_section.setdefault(change.section, []).append(change)
    for change in by_section.get("meters", ()):
        if isinstance(change.after, Meter):
            meter = meter_table(change.after)
            lists = {key: Jsonb(meter[key]) for key in ("group_by", "filter")}
            connection.execute(query("upsert_meter"), {"detailed": change.after.detailed, **meter, **lists})
    versions = {
        change.name: _write_plan(connection, settled.versions[change.name][-1])
        for change in by_section.get("plans", ())
    }
    _write_customers(connection, [c.after for c in by_section.get("customers", ()) if isinstance(c.after, Customer)])
    write_subscriptions(
        connection, [c.after for c in by_section.get("subscriptions", ()) if isinstance(c.after, Subscription)]
    )
    return Applied(changes, _write_revision(connection, changes), versions)


def _write_plan(connection: Connection, version: PlanVersion) -> int:
    """Add a plan's new version and return its number."""
    connection.execute(query("add_plan"), {"plan": version.plan.name})
    values = {
        "plan": version.plan.name,
        "effective_at": version.effective_at,
        "at_once": version.at_once,
        "definition": Jsonb(plan_table(version.plan)),
    }
    return _number(connection, query("add_plan_version"), values)


def _write_customers(connection: Connection, customers: list[Customer]) -> None:
    """Add or change customers, their lists of users included."""
    users = [
        {"user_id": user, "customer": customer.id, "place": place}
        for customer in customers
        for place, user in enumerate(customer.user_ids)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            query("upsert_customer"),
            [
                {"id": customer.id, "stripe_customer": customer.stripe_customer, "time_zone": customer.time_zone}
                for customer in customers
            ],
        )
        cursor.execute(query("forget_users_of"), {"customers": [customer.id for customer in customers]})
        cursor.executemany(query("add_customer_user"), users)


def _write_revision(connection: Connection, changes: Changes) -> int:
    """Number the meters anew where they changed, and return the number in force."""
    if not changes.change_meters:
        return _number(connection, query("last_revision"), {})
    meters = [meter_table(meter) for _, meter in sorted(changes.after.meters.items())]
    return _number(connection, query("add_revision"), {"meters": Jsonb(meters)})


def _number(connection: Connection, statement: LiteralString, values: dict[str, object]) -> int:
    """Return the integer that a statement answers with."""
    row = connection.execute(statement, values).fetchone()
    return int(row[0]) if row is not None else 0


def _rows(connection: Connection, statement: LiteralString, values: dict[str, object]) -> list[DictRow]:
    """Return the rows of a query, each by column name."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()
