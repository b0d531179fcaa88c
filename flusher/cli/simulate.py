"""`taximeter simulate`: what a plan that does not exist yet would make of real usage, old beside new."""

import argparse
import heapq
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.catalog.fitting import meter_problems, wants_values
from flusher.catalog.model import Catalog
from flusher.catalog.parse import parse
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog.reader import shown
from flusher.catalog_store import load_meters
from flusher.cli.actions import ledger_of
from flusher.cli.apply import read_catalog_file
from flusher.cli.instant import instant
from flusher.cli.output import console, progress
from flusher.cli.target import add_target_arguments, find_target
from flusher.invoicing.invoice import period_json
from flusher.pricing.money import currency, format_amount
from flusher.pricing.period import Period
from flusher.pricing.plan import Plan, Price, UsagePrice
from flusher.simulate import Compared, Connection, count_customers, simulate
from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import Meter

SHOWN_MAX: Final = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the plan, the time whose usage is rated, and the customer."""
    parser.description = (
        "Rate past usage by a plan that does not exist yet, for each customer, beside what it was worth by the plans "
        "of that time. The plan takes the place of subscriptions that price one of its meters. Both sides are cut at "
        "the two times, as if everything began and ended there, and are before credits. Nothing is written."
    )
    parser.add_argument(
        "--plan", metavar="FILE[:NAME]", required=True, help="a catalog file with the plan, by its name"
    )
    parser.add_argument("--from", dest="start", metavar="T", type=instant, required=True, help="from this time on")
    parser.add_argument("--to", dest="end", metavar="T", type=instant, required=True, help="until this time")
    parser.add_argument("--customer", metavar="C", help="only this customer, with or without a subscription")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Compare, and report. Raises CatalogError for a plan that can't rate what was recorded."""
    if args.end <= args.start:
        raise TaximeterError("usage_invalid", "--to: expected a time after --from")
    within = Period(args.start, args.end)
    target = find_target(args)
    target.need_database()
    target.announce("database")
    with ledger_of(target) as connection, progress() as display:
        plan = _read_plan(connection, args.plan)
        count = 1 if args.customer is not None else count_customers(connection, within)
        task = display.add_task("simulating", total=count, note="")
        found = simulate(
            connection, plan, within, args.customer, lambda done: display.update(task, completed=min(done, count))
        )
        sums = _Sums()
        if args.json:
            _print_json(plan, within, sums.of(found), sums)
            return 0
        rows = heapq.nlargest(SHOWN_MAX, sums.of(found), key=_weight)
    _print_table(plan, rows, sums)
    return 0


def _read_plan(connection: Connection, asked: str) -> Plan:
    """Return the plan of a file. Its meters have to be there, with their usage as they count it."""
    path, name = (asked, "") if Path(asked).exists() else asked.rpartition(":")[::2]
    meters = {meter.name: meter for meter in load_meters(connection)}
    plans = parse(read_catalog_file(Path(path or asked)), Catalog(meters=meters)).catalog.plans
    if not name and len(plans) == 1:
        (name,) = plans
    if name not in plans:
        known = ", ".join(map(shown, plans)) or "none"
        raise TaximeterError("usage_invalid", f"--plan: expected FILE:NAME with one of the file's plans: {known}")
    problems = [
        Problem(f"plan {name}: price {price.name}: {key}", message)
        for price in plans[name].prices
        for key, message in _price_problems(price, meters)
    ]
    if problems:
        raise CatalogError(problems)
    return plans[name]


def _price_problems(price: Price, meters: Mapping[str, Meter]) -> Iterator[tuple[str, str]]:
    """Yield why a price can't be asked of what was recorded, by its keys."""
    if not isinstance(price, UsagePrice):
        return
    meter = meters.get(price.meter)
    if meter is None:
        yield "meter", f"expected a meter in force, got {shown(price.meter)}; only what was recorded can be rated"
        return
    if wants_values(price) and not meter.keeps_values:
        yield "meter", f"{shown(meter.name)} keeps sums alone, and the price looks at single events"
    yield from meter_problems(price, meter)


@dataclass(slots=True)
class _Sums:
    """What all customers come to together, added up as they pass."""

    customers: int = 0
    more: int = 0
    less: int = 0
    same: int = 0
    not_compared: int = 0
    old: Decimal = Decimal(0)
    new: Decimal = Decimal(0)

    def of(self, compared: Iterable[Compared]) -> Iterator[Compared]:
        """Pass customers on and add them up."""
        for one in compared:
            self.customers += 1
            if one.old is None or one.new is None:
                self.not_compared += 1
            else:
                self.old += one.old
                self.new += one.new
                self.more += one.new > one.old
                self.less += one.new < one.old
                self.same += one.new == one.old
            yield one


def _weight(one: Compared) -> tuple[bool, Decimal]:
    """Return what decides which customers a table shows: those with a problem, then by how much they differ."""
    return (True, Decimal(0)) if one.old is None or one.new is None else (False, abs(one.new - one.old))


def _print_json(plan: Plan, within: Period, compared: Iterable[Compared], sums: _Sums) -> None:
    """Print everything, a customer a line, as they come: there may be more than fit in memory."""
    code = plan.currency
    head = {"plan": plan.name, "currency": code, "period": period_json(within)}
    sys.stdout.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "customers": [')
    separator = "\n  "
    for one in compared:
        row = {
            "customer": one.customer,
            "subscriptions": one.subscriptions,
            **_amounts(code, one.old, one.new),
            "problem": one.problem or None,
        }
        sys.stdout.write(separator + json.dumps(row, ensure_ascii=False))
        separator = ",\n  "
    counts = {name: getattr(sums, name) for name in ("customers", "more", "less", "same", "not_compared")}
    totals = json.dumps({**counts, **_amounts(code, sums.old, sums.new)})
    sys.stdout.write(f'\n], "totals": {totals}}}\n')


def _amounts(code: str, old: Decimal | None, new: Decimal | None) -> dict[str, str | None]:
    if old is None or new is None:
        return {"old": None, "new": None, "difference": None}
    of = currency(code)
    return {name: format_amount(amount, of) for name, amount in (("old", old), ("new", new), ("difference", new - old))}


def _print_table(plan: Plan, rows: list[Compared], sums: _Sums) -> None:
    """Print the customers that differ most, and the totals."""
    code = plan.currency
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("customer", "instead of", "old", "new", "difference"):
        table.add_column(name, justify="left" if name in {"customer", "instead of"} else "right", overflow="fold")
    for one in rows:
        amounts = [amount or "" for amount in _amounts(code, one.old, one.new).values()]
        cells = (one.customer, one.problem or ", ".join(one.subscriptions), *amounts)
        table.add_row(*map(Text, cells))
    console().print(table if rows else "no customer has a subscription that the plan would replace")
    if sums.customers > len(rows):
        sys.stdout.write(f"... and {sums.customers - len(rows):,} that differ less; see --json\n")
    total = _amounts(code, sums.old, sums.new)
    sys.stdout.write(
        f"{sums.customers:,} customers: {sums.more:,} would pay more, {sums.less:,} less, {sums.same:,} the same"
        f"{f', {sums.not_compared:,} not compared' if sums.not_compared else ''}\n"
        f"plan {plan.name}: {total['new']} {code.upper()} instead of {total['old']}, {total['difference']}\n"
    )
