"""`taximeter explain`: what each line of an invoice came from: terms, usage by hour, earlier invoices, credits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from flusher.catalog.plan_reader import read_plan
from flusher.catalog.price_table import TableOut, price_table
from flusher.catalog.reader import Report, Table
from flusher.catalog.timeline import terms_at
from flusher.catalog_store import load_customer, load_plan_versions, load_subscriptions_of
from flusher.invoicing.credit_store import Standing, list_standings
from flusher.invoicing.credits import CARRIED, LINE_KIND, credit_line_id, grant_id
from flusher.invoicing.invoice import Invoice, InvoiceLine
from flusher.invoicing.quantities import SummedWindow, read_usage
from flusher.invoicing.store import rows
from flusher.pricing.line import Dimensions
from flusher.pricing.measure import Need
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.plan import Plan, Price, UsagePrice
from flusher.pricing.priced import need_of
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

_SUMMED: Final = frozenset({"sum", "count", "avg"})
_VALUE_OF: Final = {"max": "greatest", "min": "least", "unique": "labels", "latest": "latest", "weighted_sum": "latest"}
"""Which value of an hour is shown, by aggregation."""
_ADJUSTMENT: Final = "adjustment"
_INSTANT: Final = timedelta(microseconds=1)


class Hour(NamedTuple):
    """What a meter counted in an hour: what its aggregation makes of the hour alone, and how many events."""

    start: datetime
    units: Decimal
    events: int


class Figure(NamedTuple):
    """A meter's quantity over a period, and how many events it came from."""

    quantity: Decimal
    events: int


class BilledBy(NamedTuple):
    """What an invoice billed of a price over a period, in major units."""

    invoice: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Source:
    """Usage that a line came from.

    `hours` are those of the line's group alone. `billed` is what was billed so far of the price over the period, all
    groups, None where nothing is known of it; `now` what usage shows by now, None where that can't be told.
    """

    aggregation: str
    hours: tuple[Hour, ...]
    billed: Figure | None
    now: Figure | None

    @property
    def events(self) -> int:
        """How many events the hours had."""
        return sum(hour.events for hour in self.hours)

    @property
    def is_changed(self) -> bool:
        """Whether usage is no longer what was billed."""
        return None not in (self.billed, self.now) and self.billed != self.now


@dataclass(frozen=True, slots=True)
class Explained:
    """A line with everything that answers "why this amount?".

    `price` is the price that it was rated by, as a catalog's table; `history` what every invoice billed of the price
    over the line's period, this one included; `grant` where credit is drawn or made.
    """

    line: InvoiceLine
    price: TableOut | None
    source: Source | None
    history: tuple[BilledBy, ...]
    grant: Standing | None


def explain(connection: Connection, invoice: Invoice) -> tuple[Explained, ...]:
    """Return where each line of an invoice comes from, in their order."""
    return _Explainer(connection, invoice).explain()


def pick(invoice: Invoice, line: str) -> Invoice:
    """Return the invoice with one line alone, by its id or its place, from 1. Raises TaximeterError `line_unknown`."""
    found = [one for place, one in enumerate(invoice.lines, 1) if line in {one.id, str(place)}]
    if not found:
        raise TaximeterError(
            "line_unknown", f"invoice {invoice.id} has {len(invoice.lines)} lines, and none is {line!r}"
        )
    return replace(invoice, lines=tuple(found))


class _Explainer:
    """What is read once for all lines."""

    def __init__(self, connection: Connection, invoice: Invoice) -> None:
        self._connection = connection
        self._invoice = invoice
        self._customer = load_customer(connection, invoice.customer)
        self._users = self._customer.user_ids
        self._own = self._own_plan()
        self._others = self._other_plans()
        prices = sorted({line.price for line in invoice.lines})
        known = {"subscription": invoice.subscription, "prices": prices}
        self._billed = {
            (row["price"], row["period_start"].astimezone(UTC)): Figure(row["quantity"], row["events"])
            for row in rows(connection, "explain_billed", known)
        }
        self._history: dict[tuple[str, datetime], list[BilledBy]] = {}
        for row in rows(connection, "explain_history", known):
            key = row["price"], row["period_start"].astimezone(UTC)
            self._history.setdefault(key, []).append(BilledBy(row["invoice"], row["amount"]))

    def explain(self) -> tuple[Explained, ...]:
        """Return the lines with what they came from."""
        lines = self._invoice.lines
        prices = [self._price(line) for line in lines]
        sources = self._sources(lines, prices)
        grants = self._grants()
        return tuple(
            Explained(
                line=line,
                price=None if price is None else price_table(price),
                source=source,
                history=() if line.kind == LINE_KIND else tuple(self._history.get(_key(line), ())),
                grant=grants.get(line.id),
            )
            for line, price, source in zip(lines, prices, sources, strict=True)
        )

    def _own_plan(self) -> Plan | None:
        (row,) = rows(self._connection, "explain_own_terms", {"invoice": self._invoice.id})
        return _plan(row["definition"])

    def _other_plans(self) -> dict[Period, Plan]:
        """Return the terms of periods that aren't the invoice's own: those that it adjusts, or that are to come."""
        lines = [line for line in self._invoice.lines if line.kind != LINE_KIND and not self._is_own(line)]
        wanted = list(dict.fromkeys(map(_asked, lines)))
        known = {
            "subscription": self._invoice.subscription,
            "starts": [period.start for period in wanted],
            "ends": [period.end for period in wanted],
        }
        found: dict[Period, Plan] = {}
        for row in rows(self._connection, "explain_terms", known) if wanted else ():
            plan = _plan(row["definition"])
            if plan is not None:
                found[Period(row["starts"].astimezone(UTC), row["ends"].astimezone(UTC))] = plan
        open_ones = [period for period in wanted if period not in found]
        if open_ones:  # not closed yet: as it is by now
            (subscription,) = load_subscriptions_of(self._connection, [self._invoice.subscription]).values()
            versions = load_plan_versions(self._connection)
            for period in open_ones:
                terms = terms_at(subscription, versions, period.start, self._customer.zone)
                if terms is not None:
                    found[period] = terms.plan
        return found

    def _is_own(self, line: InvoiceLine) -> bool:
        return line.kind != _ADJUSTMENT and line.period.start < self._invoice.period.end

    def _price(self, line: InvoiceLine) -> Price | None:
        """Return the price that a line was rated by; None for what is none, such as a discount."""
        if line.kind == LINE_KIND:
            return None
        plan = self._own if self._is_own(line) else self._others.get(_asked(line), self._own)
        return next((price for price in plan.prices if price.name == line.price), None) if plan is not None else None

    def _sources(self, lines: Sequence[InvoiceLine], prices: Sequence[Price | None]) -> list[Source | None]:
        needs = [_need(line, price) for line, price in zip(lines, prices, strict=True)]
        wanted = list(dict.fromkeys(need for need in needs if need is not None))
        readings = read_usage(self._connection, [(self._users, need) for need in wanted])
        now = {
            need: None if isinstance(reading, SummedWindow) else Figure(reading.quantity, reading.events)
            for need, reading in zip(wanted, readings, strict=True)
        }
        meters = sorted({need.meter for need in wanted})
        aggregations = {
            row["name"]: row["aggregation"] for row in rows(self._connection, "list_aggregations", {"meters": meters})
        }
        hours: dict[tuple[Need, Dimensions | None], tuple[Hour, ...]] = {}
        found: list[Source | None] = []
        for line, need in zip(lines, needs, strict=True):
            if need is None:
                found.append(None)
                continue
            aggregation = aggregations.get(need.meter, "sum")
            group = (need, line.dimensions)
            if group not in hours:
                hours[group] = self._hours(need, line.dimensions, aggregation)
            found.append(Source(aggregation, hours[group], self._billed.get(_key(line)), now[need]))
        return found

    def _hours(self, need: Need, dimensions: Dimensions | None, aggregation: str) -> tuple[Hour, ...]:
        known = {
            "users": list(self._users),
            "meter": need.meter,
            "dimensions": Jsonb(dict(dimensions or ())),
            "start": need.period.start,
            "end": need.period.end,
        }
        summed = aggregation in _SUMMED
        column = "units" if summed else _VALUE_OF[aggregation]
        return tuple(
            Hour(row["start"].astimezone(UTC), Decimal(row[column]), row["events"])
            for row in rows(self._connection, "explain_sums" if summed else "explain_values", known)
        )

    def _grants(self) -> dict[str, Standing]:
        """Return the grants that lines draw from, or that a negative total became, by the lines' ids."""
        if not any(line.kind == LINE_KIND for line in self._invoice.lines):
            return {}
        drawn = rows(self._connection, "draws_of_invoice", {"invoice": self._invoice.id})
        ids = [*(row["grant_id"] for row in drawn), grant_id(CARRIED, self._invoice.id)]
        standings = list_standings(self._connection, grant_ids=ids)
        return {credit_line_id(found.grant, self._invoice.period, scope=self._invoice.id): found for found in standings}


def _need(line: InvoiceLine, price: Price | None) -> Need | None:
    if line.meter is None:
        return None
    if isinstance(price, UsagePrice):
        return need_of(price, BillingPeriod(line.period, line.period))
    return Need(line.meter, line.period)


def _key(line: InvoiceLine) -> tuple[str, datetime]:
    return line.price, line.period.start


def _asked(line: InvoiceLine) -> Period:
    """Return the period whose terms a line has: its own, or for a fee in advance the instant at which that begins."""
    start = line.period.start
    return line.period if line.kind == _ADJUSTMENT else Period(start, start + _INSTANT)


def _plan(definition: Mapping[str, object]) -> Plan | None:
    return read_plan(Table(Report(), "terms", definition))
