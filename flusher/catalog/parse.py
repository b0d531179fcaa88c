"""Reads a catalog file: TOML text in, checked values out, or every problem at once.

A file is checked by itself (types, keys, ranges) and together with the catalog in force (names that refer to
others, subscriptions that would price a meter twice), because `apply` keeps what the file leaves out.
"""

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flusher.catalog.check import check_together
from flusher.catalog.model import EMPTY, Catalog, Customer, Subscription
from flusher.catalog.plan_reader import read_plan
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog.reader import FloatText, Report, Table, shown, text_fault
from sidecar.contract.event import STRING_BYTES_MAX
from sidecar.contract.meters import PROPERTY_PREFIX, Meter, property_text

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
METERS_MAX: Final = 1_000
PLANS_MAX: Final = 10_000
CUSTOMERS_MAX: Final = 100_000
SUBSCRIPTIONS_MAX: Final = 100_000
USERS_PER_CUSTOMER_MAX: Final = 10_000
METER_NAME_BYTES_MAX: Final = 128
GROUP_BY_MAX: Final = 5
GROUP_BY_NAME_BYTES_MAX: Final = 64
"""With these and 256 bytes a value, the key of a usage row fits into a page of Postgres's index (2,700 bytes)."""
FILTER_KEYS_MAX: Final = 8
FILTER_VALUES_MAX: Final = 100

METER_KEYS: Final = ("name", "event_type", "aggregation", "field", "group_by", "filter")
CUSTOMER_KEYS: Final = ("id", "user_ids", "stripe_customer", "time_zone")
SUBSCRIPTION_KEYS: Final = ("id", "customer", "plan", "start", "end")
SUBSCRIPTION_KEYS_LATER: Final = ("rounding", "discounts", "credits", "commitment", "trial", "overrides")
AGGREGATIONS_LATER: Final = ("max", "min", "avg", "latest", "unique", "weighted_sum")
TIME_ZONE_FORM: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", re.ASCII)


class Aggregation(StrEnum):
    """The aggregations that meters have."""

    SUM = "sum"
    COUNT = "count"


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
        {meter.name: meter for meter in map(_read_meter, tables["meters"]) if meter},
        {plan.name: plan for plan in map(read_plan, tables["plans"]) if plan},
        {customer.id: customer for customer in map(_read_customer, tables["customers"]) if customer},
        {found.id: found for found in map(_read_subscription, tables["subscriptions"]) if found},
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


def _read_meter(table: Table) -> Meter | None:
    mark = table.report.mark()
    name = table.text("name", bytes_max=METER_NAME_BYTES_MAX)
    aggregation = table.choice("aggregation", Aggregation, Aggregation.SUM, AGGREGATIONS_LATER)
    event_type = table.text("event_type")
    field = _read_field(table, aggregation)
    group_by = table.texts("group_by", (), GROUP_BY_MAX, GROUP_BY_NAME_BYTES_MAX)
    allowed = _read_filter(table)
    table.only(METER_KEYS)
    if not table.report.clean_since(mark):
        return None
    return Meter(name, event_type, aggregation.value, field, tuple(sorted(group_by)), dict(sorted(allowed.items())))


def _read_field(table: Table, aggregation: Aggregation) -> str:
    """Return what the meter sums: `units`, or `properties.<name>`."""
    mark = table.report.mark()
    field = table.text("field", "units", bytes_max=STRING_BYTES_MAX + len(PROPERTY_PREFIX))
    if not table.report.clean_since(mark) or field == "units":
        return "units"
    name = field.removeprefix(PROPERTY_PREFIX)
    if name == field or text_fault(name):
        table.problem("field", '"units" or "properties.<name>"')
    elif aggregation is Aggregation.COUNT:
        table.problem("field", "none for a count", "a count counts events and reads no field; leave it out")
    return field


def _read_filter(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the allowed values of each property; integers and booleans as the text that events compare by."""
    inner = table.table("filter")
    if len(inner.values) > FILTER_KEYS_MAX:
        table.report.add(inner.path, f"expected at most {FILTER_KEYS_MAX} keys, got {len(inner.values)}")
        return {}
    allowed: dict[str, tuple[str, ...]] = {}
    for key in inner.values:
        if fault := text_fault(key):
            table.report.add(inner.path, f"key {shown(key)}: {fault}")
            continue
        values = inner.scalars(key, FILTER_VALUES_MAX)
        allowed[key] = tuple(sorted(map(property_text, values)))
    return allowed


def _read_customer(table: Table) -> Customer | None:
    mark = table.report.mark()
    name = table.text("id")
    user_ids = table.texts("user_ids", (name,), USERS_PER_CUSTOMER_MAX, STRING_BYTES_MAX)
    stripe_customer = table.text("stripe_customer", name)
    _check_time_zone(table)
    table.only(CUSTOMER_KEYS)
    return Customer(name, user_ids, stripe_customer) if table.report.clean_since(mark) else None


def _check_time_zone(table: Table) -> None:
    """Note a time zone other than UTC."""
    mark = table.report.mark()
    zone = table.text("time_zone", "UTC")
    if table.report.clean_since(mark) and zone != "UTC":
        remedy = "other zones are not supported yet" if TIME_ZONE_FORM.fullmatch(zone) else ""
        table.problem("time_zone", '"UTC"', remedy)


def _read_subscription(table: Table) -> Subscription | None:
    mark = table.report.mark()
    customer, plan = table.text("customer"), table.text("plan")
    name = table.text("id", f"{customer}/{plan}", bytes_max=2 * STRING_BYTES_MAX + 1)
    start = table.instant("start")
    end = table.instant("end", required=False)
    if start is not None and end is not None and end <= start:
        table.problem("end", f"a time after the start, {start.isoformat()}")
    table.only(SUBSCRIPTION_KEYS, SUBSCRIPTION_KEYS_LATER)
    if start is None or not table.report.clean_since(mark):
        return None
    return Subscription(name, customer, plan, start, end)
