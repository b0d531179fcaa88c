"""Rules over several entries: names that refer to others, users, and subscriptions that price one meter twice."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo

from flusher.catalog.fitting import meter_problems, override_problems
from flusher.catalog.model import NO_OVERRIDES, Catalog, Subscription
from flusher.catalog.overlap import Twice, priced_twice
from flusher.catalog.plan_reader import OWN_KEYS, PRICES_MAX
from flusher.catalog.price_reader import read_price
from flusher.catalog.reader import Report, Table, shown
from flusher.catalog.timeline import Versions
from flusher.pricing.line import rfc3339
from flusher.pricing.plan import Plan, UsagePrice
from sidecar.contract.meters import Meter

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
    _check_terms(report, paths, merged)
    _check_meters_changed(report, paths, read, merged)


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


def terms_problems(found: Subscription, plan: Plan, meters: Mapping[str, Meter]) -> Iterator[tuple[str, str]]:
    """Yield what a subscription can't have beside its plan and of its meters, as (key of its entry, what is wrong)."""
    for key, message in override_problems(plan, found.overrides):
        own = key.partition(".")[0].partition("[")[0] in OWN_KEYS
        yield key if own else f"overrides.{key}", message
    for number, price in enumerate(found.overrides.prices):
        if not isinstance(price, UsagePrice):
            continue
        path = f"overrides.prices[{number}]"
        if price.meter not in meters:
            message = f"expected the name of a meter, got {shown(price.meter)}; add [[meters]] with this name"
            yield f"{path}.meter", message
            continue
        for key, message in meter_problems(price, meters[price.meter]):
            yield f"{path}.{key}", message


def _check_terms(report: Report, paths: Paths, merged: Catalog) -> None:
    """Note what subscriptions have otherwise than their plans and can't, where the file has the one or the other."""
    for found in merged.subscriptions.values():
        plan = merged.plans.get(found.last.plan)
        own, plans = paths.get(("subscriptions", found.id)), paths.get(("plans", found.last.plan))
        if plan is None or found.last.overrides == NO_OVERRIDES or (own is None and plans is None):
            continue
        last = replace(found, overrides=found.last.overrides)
        for key, message in terms_problems(last, plan, merged.meters):
            if own is not None:
                report.add(f"{own}.{key}", message)
            else:
                report.add(f"{plans}", f"subscription {shown(found.id)} has {key} of its own: {message}")


def _check_meters_changed(report: Report, paths: Paths, read: Catalog, merged: Catalog) -> None:
    """Note a meter of the file that no longer gives what a plan outside the file asks for."""
    for name, plan in merged.plans.items():
        for price in plan.prices:
            if name in read.plans or not isinstance(price, UsagePrice) or price.meter not in read.meters:
                continue
            for _, message in meter_problems(price, read.meters[price.meter]):
                text = f"price {shown(price.name)} of plan {shown(name)}: {message}"
                report.add(paths["meters", price.meter], text)


def check_priced_once(
    report: Report, paths: Paths, merged: Catalog, versions: Versions, zone_of: Callable[[str], tzinfo]
) -> None:
    """Note two subscriptions of a customer that price one meter at one time."""
    places = {place: number for number, place in enumerate(paths)}
    for twice in priced_twice(merged.subscriptions.values(), versions, zone_of):
        one, other = sorted((twice.one, twice.other), key=lambda found: places.get(("subscriptions", found.id), -1))
        plans = [("plans", step.plan) for found in (other, one) for step, _ in found.stretches]
        path = next(
            (paths[place] for place in [("subscriptions", other.id), *plans] if place in paths), "subscriptions"
        )
        report.add(path, twice_text(twice))


def twice_text(twice: Twice) -> str:
    """Return what is wrong with two subscriptions that price one meter."""
    return (
        f"subscriptions {shown(twice.one.id)} and {shown(twice.other.id)} of customer {shown(twice.one.customer)} "
        f"would both price meter {shown(twice.meter)} at one time, from {rfc3339(twice.since)} on; "
        "end one before the other starts"
    )
