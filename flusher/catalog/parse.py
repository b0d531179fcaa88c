"""Reads a catalog file: TOML text in, checked values out, or every problem at once.

A file is checked by itself (types, keys, ranges) and together with the catalog in force (names that refer to
others, subscriptions that would price a meter twice), because `apply` keeps what the file leaves out.
"""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from flusher.catalog.check import check_together
from flusher.catalog.meter_reader import read_meter
from flusher.catalog.model import EMPTY, NO_OVERRIDES, Catalog, Customer, Subscription
from flusher.catalog.plan_reader import OWN_KEYS, read_own, read_plan
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog.reader import FloatText, Report, Table, shown
from flusher.catalog.zones import zone_names
from sidecar.contract.event import STRING_BYTES_MAX

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
METERS_MAX: Final = 1_000
PLANS_MAX: Final = 10_000
CUSTOMERS_MAX: Final = 100_000
SUBSCRIPTIONS_MAX: Final = 100_000
USERS_PER_CUSTOMER_MAX: Final = 10_000

CUSTOMER_KEYS: Final = ("id", "user_ids", "stripe_customer", "time_zone")
_OVERRIDE_KEYS: Final = (*OWN_KEYS, "overrides")
SUBSCRIPTION_KEYS: Final = ("id", "customer", "plan", "start", "end", *_OVERRIDE_KEYS)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a file says. `paths` is where each entry stands, by (section, name): ("meters", "api_call")."""

    catalog: Catalog
    paths: dict[tuple[str, str], str]


def parse(text: str, current: Catalog = EMPTY) -> Draft:
    """Return what a catalog file says, checked together with the catalog in force.

    Raises CatalogError with every problem found, each under its key's path; a syntax error alone, by its line.
    """
    report = Report()
    root = Table(report, "", _load(text))
    root.only(("meters", "plans", "customers", "subscriptions"))
    paths: dict[tuple[str, str], str] = {}
    tables = {
        "meters": list(root.tables("meters", METERS_MAX)),
        "plans": list(root.tables("plans", PLANS_MAX)),
        "customers": list(root.tables("customers", CUSTOMERS_MAX)),
        "subscriptions": list(root.tables("subscriptions", SUBSCRIPTIONS_MAX)),
    }
    read = Catalog(
        {meter.name: meter for table in tables["meters"] if (meter := read_meter(table, current.meters))},
        {plan.name: plan for plan in map(read_plan, tables["plans"]) if plan},
        {customer.id: customer for customer in map(_read_customer, tables["customers"]) if customer},
        {found.id: found for found in map(read_subscription, tables["subscriptions"]) if found},
    )
    for section, entries in tables.items():
        _note_paths(section, entries, paths)
    check_together(report, tables, paths, read, current)
    if report.problems:
        raise CatalogError(report.problems)
    return Draft(read, paths)


def _load(text: str) -> dict[str, object]:
    """Return the file as a table; numbers with a point or an exponent as FloatText."""
    if len(text) > FILE_BYTES_MAX:
        raise CatalogError([Problem("line 1", f"expected a file of at most {FILE_BYTES_MAX:,} characters")])
    try:
        return tomllib.loads(text, parse_float=FloatText)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError([_syntax_problem(str(error), text)]) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "an integer has too many digits"
        raise CatalogError([Problem("line 1", f"the file can't be read as TOML: {reason}")]) from error


def _syntax_problem(message: str, text: str) -> Problem:
    """Return tomllib's message with its line in front; the end of the file is the last line."""
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if place is None:
        return Problem("line 1", f"the file can't be read as TOML: {message}")
    reason = message[: place.start()]
    if place[1] is None:
        return Problem(f"line {text.rstrip().count(chr(10)) + 1}", f"not TOML: {reason} at the end of the file")
    return Problem(f"line {place[1]}", f"not TOML: {reason} at column {place[2]}")


def _note_paths(section: str, entries: list[Table], paths: dict[tuple[str, str], str]) -> None:
    """Note where every entry stands, and every name that two entries have."""
    key = "name" if section in {"meters", "plans"} else "id"
    for entry in entries:
        name = entry.peek(key)
        customer, plan = entry.peek("customer"), entry.peek("plan")
        if section == "subscriptions" and not entry.has(key) and customer is not None and plan is not None:
            name = f"{customer}/{plan}"
        if name is None:
            continue
        earlier = paths.setdefault((section, name), entry.path)
        if earlier != entry.path:
            remedy = "give each its own" if key == "name" else f"merge them, or give each its own {key}"
            entry.report.add(entry.at(key), f"{shown(name)} is taken by {earlier}; {remedy}")


def _read_customer(table: Table) -> Customer | None:
    mark = table.report.mark()
    name = table.text("id")
    user_ids = table.texts("user_ids", (name,), USERS_PER_CUSTOMER_MAX, STRING_BYTES_MAX)
    stripe_customer = table.text("stripe_customer", name)
    time_zone = _time_zone(table)
    table.only(CUSTOMER_KEYS)
    return Customer(name, user_ids, stripe_customer, time_zone) if table.report.clean_since(mark) else None


def _time_zone(table: Table) -> str:
    """Return the name of a time zone."""
    mark = table.report.mark()
    zone = table.text("time_zone", "UTC")
    if table.report.clean_since(mark) and zone not in zone_names():
        near = get_close_matches(zone, zone_names(), 1)
        table.problem(
            "time_zone", 'an IANA time zone, such as "Europe/Berlin"', f"did you mean {near[0]}?" if near else ""
        )
    return zone


def read_subscription(table: Table) -> Subscription | None:
    """Return the subscription of a table, without changes, or None when the table's report has a problem with it."""
    mark = table.report.mark()
    customer, plan = table.text("customer"), table.text("plan")
    name = table.text("id", f"{customer}/{plan}", bytes_max=2 * STRING_BYTES_MAX + 1)
    start = table.instant("start")
    end = table.instant("end", required=False)
    if start is not None and end is not None and end <= start:
        table.problem("end", f"a time after the start, {start.isoformat()}")
    # Most of a hundred thousand have none.
    overrides = NO_OVERRIDES if table.values.keys().isdisjoint(_OVERRIDE_KEYS) else read_own(table)
    table.only(SUBSCRIPTION_KEYS)
    if start is None or overrides is None or not table.report.clean_since(mark):
        return None
    return Subscription(name, customer, plan, start, end, overrides)
