"""`taximeter price`: what a price makes of a quantity, line by line; every key of a catalog price is an option."""

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from flusher.catalog.price_reader import Model, read_price
from flusher.catalog.reader import QUANTITY_FORM, Report, Table, shown
from flusher.pricing.line import Line, line_json, total
from flusher.pricing.money import CURRENCIES, Rounding, currency, format_amount
from flusher.pricing.period import BillingPeriod, Period, Span
from flusher.pricing.plan import ChargeTime, Plan
from flusher.pricing.rate import Measure, Reading, needs, rate_advance, rate_arrears
from sidecar.contract.codes import TaximeterError

_WHOLE: Final = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 2, 1, tzinfo=UTC))
"""Any whole period will do: nothing is prorated, and the answer leaves periods out."""
_SPAN: Final = Span(_WHOLE.start, None, _WHOLE.start)
_OPTIONS: Final = {
    "name": ("TEXT", "the price's name in descriptions (default: the meter's)"),
    "meter": ("TEXT", "the meter's name (default: usage)"),
    "unit_price": ("AMOUNT", "per_unit: for each unit"),
    "tiers": ("JSON", 'graduated, volume: [{"up_to": 1000, "unit_price": "0.01", "flat_fee": "5"}, ...]'),
    "package_size": ("QUANTITY", "package: units in a package"),
    "package_price": ("AMOUNT", "package: for each package that is begun"),
    "amount": ("AMOUNT", "fixed: the fee of a period"),
    "charge": ("WHEN", f"fixed: {' or '.join(ChargeTime)}"),
    "free_units": ("QUANTITY", "units that are not priced (default: 0)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare an option for every key of a price, the quantity, and how the result is rounded and shown."""
    parser.add_argument("--model", required=True, metavar="MODEL", help=", ".join(Model))
    parser.add_argument("--quantity", metavar="UNITS", help="what was used; not for fixed")
    parser.add_argument("--currency", default="usd", metavar="CODE", help="three letters (default: %(default)s)")
    parser.add_argument("--rounding", default="half_up", metavar="HOW", help=f"{' or '.join(Rounding)}")
    for key, (metavar, text) in _OPTIONS.items():
        parser.add_argument(_flag(key), metavar=metavar, help=text)
    parser.add_argument("--per-group", action="store_true", default=None, help="price each group of the meter apart")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """Print the lines and the total. Raises TaximeterError `usage_invalid` with every flag that can't be used."""
    faults: list[str] = []
    lines, plan = _rate(args, faults)
    if plan is None:
        raise TaximeterError("usage_invalid", "\n".join(faults))
    money = currency(plan.currency)
    if args.json:
        report = {
            "total": format_amount(total(lines), money),
            "lines": [{**line_json(line, money), "period": None} for line in lines],
        }
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        for line in lines:
            sys.stdout.write(f"{format_amount(line.amount, money):>16}  {line.description}\n")
        sys.stdout.write(f"{format_amount(total(lines), money):>16}  total, {plan.currency.upper()}\n")
    return 0


def _rate(args: argparse.Namespace, faults: list[str]) -> tuple[tuple[Line, ...], Plan | None]:
    """Return the lines and the plan that they come from; no plan where `faults` got an entry."""
    table = _table(args, faults)
    report = Report()
    price = read_price(Table(report, "", table))
    faults += [f"{_flag_of(problem.path)}: {problem.message}" for problem in report.problems]
    quantity = _quantity(args, faults)
    if args.currency.lower() not in CURRENCIES:
        faults.append(f"--currency: expected a three-letter currency that Stripe supports, got {shown(args.currency)}")
    if args.rounding not in list(Rounding):
        faults.append(f"--rounding: expected {' or '.join(Rounding)}, got {shown(args.rounding)}")
    if faults or price is None:
        return (), None
    plan = Plan("price", args.currency.lower(), (price,), rounding=Rounding(args.rounding))
    billing = BillingPeriod(_WHOLE, _WHOLE)
    usage = {need: Reading((Measure(quantity),)) for need in needs(plan, _SPAN, billing)}
    charges = rate_advance(plan, _SPAN, billing) + rate_arrears(plan, _SPAN, billing, usage)
    return tuple(line for charge in charges for line in charge.lines), plan


def _table(args: argparse.Namespace, faults: list[str]) -> dict[str, object]:
    """Return the price as a table of a catalog."""
    given = {key: getattr(args, key) for key in ("model", "per_group", *_OPTIONS)}
    table: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if args.model == Model.FIXED:
        table.setdefault("name", "fee")
    else:
        table.setdefault("meter", "usage")
    if args.tiers is not None:
        table["tiers"] = _tiers(args.tiers, faults)
    return table


def _tiers(text: str, faults: list[str]) -> object:
    """Return the tiers in JSON; numbers keep their text and never become floats."""
    try:
        return json.loads(text, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        faults.append(f"--tiers: expected JSON, an array of objects, got {shown(text)}")
        return [{"unit_price": "0"}]


def _quantity(args: argparse.Namespace, faults: list[str]) -> Decimal:
    """Return the quantity: a decimal, below 0 too (it is priced as 0)."""
    text = args.quantity
    if text is None:
        if args.model != Model.FIXED:
            faults.append("--quantity: expected what was used, it is missing")
    elif args.model == Model.FIXED:
        faults.append(f"--quantity: expected none for a fixed fee, got {shown(text)}")
    elif QUANTITY_FORM.fullmatch(text.removeprefix("-")):
        return Decimal(text)
    else:
        form = "a decimal below 10^18 with at most 9 fractional digits"
        faults.append(f"--quantity: expected {form}, got {shown(text)}")
    return Decimal(0)


def _flag(key: str) -> str:
    """Return the flag of a price's key."""
    return f"--{key.replace('_', '-')}"


def _flag_of(path: str) -> str:
    """Return the flag that a problem's path is about, and the path where it goes deeper."""
    key = re.split(r"[.\[]", path, maxsplit=1)[0]
    return _flag(key) if key == path else f"{_flag(key)}: {path}"
