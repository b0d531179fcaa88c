"""Catalog texts that the tests of the catalog share."""

from datetime import UTC, datetime

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.changing import Moment
from flusher.catalog.diff import compare, settle_draft
from flusher.catalog.model import EMPTY, Catalog, PlanVersion
from flusher.catalog.parse import Draft, parse
from flusher.catalog.problem import CatalogError

METER = '[[meters]]\nname = "api_call"\nevent_type = "api_call"\n'
PRICE = '[[plans.prices]]\nmeter = "api_call"\nmodel = "per_unit"\nunit_price = "0.01"\n'
PLAN = f'[[plans]]\nname = "pro"\ncurrency = "usd"\n{PRICE}'
SUBSCRIPTION = '[[subscriptions]]\ncustomer = "cus_1"\nplan = "pro"\nstart = 2025-07-01T00:00:00Z\n'

FULL = """
[[meters]]
name = "api_call"
event_type = "api_call"
aggregation = "sum"
field = "units"
group_by = ["region"]
filter = {region = ["eu", "us"]}

[[plans]]
name = "pro"
currency = "usd"
interval = "month"
anchor = "calendar"
[[plans.prices]]
name = "calls"
meter = "api_call"
model = "graduated"
tiers = [{up_to = 1000, unit_price = "0"}, {up_to = 10000, unit_price = "0.01"}, {unit_price = "0.005"}]

[[customers]]
id = "cus_123456"
user_ids = ["cus_123456"]
stripe_customer = "cus_123456"
time_zone = "UTC"

[[subscriptions]]
id = "cus_123456/pro"
customer = "cus_123456"
plan = "pro"
start = 2025-07-01T00:00:00Z
"""


def catalog(text: str, current: Catalog = EMPTY) -> Catalog:
    return parse(text, current).catalog


def draft(text: str, current: Catalog = EMPTY) -> Draft:
    return parse(text, current)


def moment_of(current: Catalog, now: str = "2025-07-20", effective: str | None = None) -> Moment:
    """A moment at which each plan of a catalog has had one version for years."""
    versions = {name: (PlanVersion(plan, 1, instant("2020-01-01")),) for name, plan in current.plans.items()}
    return Moment(instant(now), versions, effective=None if effective is None else instant(effective))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def problems(text: str, current: Catalog = EMPTY) -> dict[str, str]:
    """What is wrong with a file: message by path."""
    try:
        compare(settle_draft(parse(text, current), current, moment_of(current)), current, ())
    except CatalogError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


def leave_invoice(connection: psycopg.Connection[TupleRow], subscription: str, end: str) -> None:
    """Leave an invoice of a closed period, as far as the catalog looks at it."""
    terms = "0" * 32
    connection.execute("INSERT INTO terms VALUES (%s, '{}') ON CONFLICT DO NOTHING", (terms,))
    connection.execute(
        "INSERT INTO invoices (id, subscription, kind, customer, plan, plan_version, currency, period_start,"
        " period_end, total, status, delivery, terms, anchor) SELECT 'invoice_' || id, id, 'period', customer, plan, 1,"
        " 'usd', start_at, %s, 0, 'open', 'none', %s, start_at FROM subscriptions WHERE id = %s",
        (end, terms, subscription),
    )
