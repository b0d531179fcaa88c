"""Rules over several entries: names that refer to others, users, and subscriptions that price one meter twice."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from flusher.catalog.fitting import meter_problems
from flusher.catalog.model import Catalog, Subscription
from flusher.catalog.plan_reader import PRICES_MAX
from flusher.catalog.price_reader import read_price
from flusher.catalog.reader import Report, Table, shown

Paths = Mapping[tuple[str, str], str]


def check_together(
    report: Report, tables: Mapping[str, Sequence[Table]], paths: Paths, read: Catalog, current: Catalog
) -> None:
    """Note every problem between the entries of a file, and between them and the catalog in force.

    `tables` are the file's sections, `paths` where each name stands, `read` what could be read of the file. A
    name counts as known when the file has an entry for it, even one with problems: they are noted already.
    """
    merged = current.with_entries(read)
    _check_meters_named(report, tables["plans"], paths, merged)
    _check_plans_named(report, tables["subscriptions"], paths, merged)
    _check_users(report, tables["customers"], paths, read, merged)
    _check_customers_implied(report, paths, merged)
    _check_priced_once(report, paths, merged)


def _check_meters_named(report: Report, plans: Iterable[Table], paths: Paths, merged: Catalog) -> None:
    """Note a price whose meter doesn't exist, or can't give what it asks for."""
    quiet = Report()
    for plan in plans:
        for price in Table(quiet, plan.path, plan.values).tables("prices", PRICES_MAX):
            name = price.peek("meter")
            if name is None or (("meters", name) in paths and name not in merged.meters):
                continue
            if name not in merged.meters:
                report.add(
                    price.at("meter"),
                    f"expected the name of a meter, got {shown(name)}; add [[meters]] with this name",
                )
            elif (found := read_price(Table(Report(), "", price.values))) is not None:
                for key, message in meter_problems(found, merged.meters[name]):
                    report.add(price.at(key), message)


def _check_plans_named(report: Report, subscriptions: Iterable[Table], paths: Paths, merged: Catalog) -> None:
    """Note a subscription to a plan that doesn't exist."""
    for entry in subscriptions:
        name = entry.peek("plan")
        if name is not None and name not in merged.plans and ("plans", name) not in paths:
            report.add(
                entry.at("plan"), f"expected the name of a plan, got {shown(name)}; add [[plans]] with this name"
            )


def _check_users(report: Report, customers: Iterable[Table], paths: Paths, read: Catalog, merged: Catalog) -> None:
    """Note a user that two customers have: of two in the file at the later, else at the file's."""
    tables = {table.path: table for table in customers}
    owner = {
        user: name
        for name, customer in merged.customers.items()
        if name not in read.customers
        for user in customer.user_ids
    }
    for name, customer in read.customers.items():
        entry = tables[paths["customers", name]]
        for number, user in enumerate(customer.user_ids):
            other = owner.setdefault(user, name)
            if other != name:
                place = entry.at(f"user_ids[{number}]" if entry.has("user_ids") else "id")
                report.add(place, f"user {shown(user)} is customer {shown(other)}'s; a user has one customer")


def _check_customers_implied(report: Report, paths: Paths, merged: Catalog) -> None:
    """Note a subscription of a customer without an entry whose user belongs to another customer."""
    owner = {user: name for name, customer in merged.customers.items() for user in customer.user_ids}
    for found in merged.subscriptions.values():
        name = found.customer
        if name in merged.customers or name not in owner or ("customers", name) in paths:
            continue
        entry, customer = paths.get(("subscriptions", found.id)), paths.get(("customers", owner[name]))
        report.add(
            f"{entry}.customer" if entry else f"{customer}.user_ids",
            f"subscription {shown(found.id)} is of customer {shown(name)}, who has no entry, while user "
            f"{shown(name)} is customer {shown(owner[name])}'s; add [[customers]] with id = {shown(name)}",
        )


class _Run(NamedTuple):
    """A subscription pays by one plan, from `start` until `end` (None: open)."""

    subscription: Subscription
    plan: str
    start: datetime
    end: datetime | None


def _check_priced_once(report: Report, paths: Paths, merged: Catalog) -> None:
    """Note two subscriptions of a customer that run at one time and price one meter."""
    priced: dict[tuple[str, str], list[_Run]] = {}
    for found in merged.subscriptions.values():
        for step, end in found.stretches:
            plan = merged.plans.get(step.plan)
            for meter in plan.under(step.overrides).meters if plan else ():
                priced.setdefault((found.customer, meter), []).append(_Run(found, step.plan, step.at, end))
    noted: set[tuple[str, str]] = set()
    places = {place: number for number, place in enumerate(paths)}
    for (_, meter), runs in sorted(priced.items()):
        runs.sort(key=lambda run: (run.start, places.get(("subscriptions", run.subscription.id), -1)))
        longest = runs[0]
        for run in runs[1:]:
            pair = (longest.subscription.id, run.subscription.id)
            if (longest.end is None or run.start < longest.end) and pair not in noted:
                noted.add(pair)
                earlier, later = sorted(
                    (longest, run), key=lambda one: places.get(("subscriptions", one.subscription.id), -1)
                )
                _note_priced_twice(report, paths, earlier, later, meter)
            if longest.end is not None and (run.end is None or run.end > longest.end):
                longest = run


def _note_priced_twice(report: Report, paths: Paths, earlier: _Run, later: _Run, meter: str) -> None:
    """Note the pair at `later` where the file has it, or else at the plan that the file changed."""
    one, other = earlier.subscription, later.subscription
    places = [("subscriptions", other.id), ("plans", later.plan), ("plans", earlier.plan)]
    path = next((paths[place] for place in places if place in paths), "subscriptions")
    report.add(
        path,
        f"subscriptions {shown(one.id)} and {shown(other.id)} of customer {shown(one.customer)} would both price "
        f"meter {shown(meter)} at one time; end one before the other starts",
    )
