"""`taximeter price`: what a price makes of a quantity, line by line; every key of a catalog price is an option."""

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from flusher.catalog.price_reader import Model, read_price
from flusher.catalog.reader import QUANTITY_FORM, Report, Table, shown
from flusher.pricing.line import Line, dimensions_of, line_json, total
from flusher.pricing.money import CURRENCIES, EXACT, Rounding, currency, format_amount
from flusher.pricing.period import BillingPeriod, Cycle, Interval, Period, Span
from flusher.pricing.plan import ChargeTime, Plan, Price
from flusher.pricing.rate import Measure, Reading, Run, needs, rate_advance, rate_arrears
from sidecar.contract.codes import TaximeterError

_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Any start will do: the answer leaves periods out."""
_DAYS_FORM: Final = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII)
_OPTIONS: Final = {
    "name": ("TEXT", "the price's name in descriptions (default: the meter's)"),
    "meter": ("TEXT", "the meter's name (default: usage)"),
    "unit_price": ("AMOUNT", "per_unit: for each unit"),
    "tiers": (
        "JSON",
        'models with tiers: [{"up_to": 1000, "unit_price": "0.01", "flat_fee": "5"}, ...]; see --model for their keys',
    ),
    "package_size": ("QUANTITY", "package: units in a package"),
    "package_price": ("AMOUNT", "package: for each package that is begun"),
    "rate": ("PERCENT", "percentage: 1.2 is 1.2 percent of the units, which are money"),
    "fee_per_event": ("AMOUNT", "percentage: for each event that isn't free (default: 0)"),
    "free_events": ("NUMBER", "percentage: how many events pay nothing, the first ones (default: 0)"),
    "minimum_per_event": ("AMOUNT", "percentage: what an event pays at least"),
    "maximum_per_event": ("AMOUNT", "percentage: what an event pays at most"),
    "prices": ("JSON", 'matrix: [{"match": {"region": "eu"}, "unit_price": "0.01"}, ..., {"match": {}, ...}]'),
    "unmatched": ("HOW", "matrix: free, where no price matches"),
    "amount": ("AMOUNT", "fixed: the fee of a period"),
    "charge": ("WHEN", f"fixed: {' or '.join(ChargeTime)}"),
    "free_units": ("QUANTITY", "units that are not priced (default: 0)"),
    "minimum": ("AMOUNT", "what the price comes to at least"),
    "maximum": ("AMOUNT", "what the price comes to at most"),
    "interval": ("INTERVAL", f"how long its period is: {', '.join(Interval)} (default: month)"),
}
_FLAGS: Final = {
    "per_group": "price each group of the meter apart",
    "prorate": "a partial period has its share of minimum, maximum, free units and tiers",
}
_JSON: Final = ("tiers", "prices")
_QUANTITIES: Final = 'an array such as [{"group": {"region": "eu"}, "quantity": "120"}]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare an option for every key of a price, what was used, and how the result is rounded and shown."""
    models = f"{', '.join(Model)}; tiers have unit_price and flat_fee, of stairstep flat_fee, of ..._percentage rate"
    parser.add_argument("--model", required=True, metavar="MODEL", help=models)
    parser.add_argument(
        "--quantity", metavar="UNITS", help="what was used (for percentage in one event); not for fixed"
    )
    parser.add_argument("--events", metavar="JSON", help='the units of each event, oldest first: ["200", "50"]')
    parser.add_argument("--quantities", metavar="JSON", help=f"what was used by each group: {_QUANTITIES}")
    parser.add_argument("--days", metavar="N/M", help="how many days of how many the period covers (default: all)")
    parser.add_argument("--currency", default="usd", metavar="CODE", help="three letters (default: %(default)s)")
    parser.add_argument("--rounding", default="half_up", metavar="HOW", help=f"{' or '.join(Rounding)}")
    for key, (metavar, text) in _OPTIONS.items():
        parser.add_argument(_flag(key), metavar=metavar, help=text.replace("%", "%%"))
    for key, text in _FLAGS.items():
        parser.add_argument(_flag(key), action="store_true", default=None, help=text)
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """Print the lines and the total. Raises TaximeterError `usage_invalid` with every flag that can't be used."""
    request = _Request(args)
    price, reading, billing = request.price(), request.reading(), request.billing()
    request.check_money()
    if request.faults or price is None:
        raise TaximeterError("usage_invalid", "\n".join(request.faults))
    money = currency(args.currency)
    lines = _rate(price, reading, billing, args)
    if args.json:
        report = {
            "total": format_amount(total(lines), money),
            "lines": [{**line_json(line, money), "period": None} for line in lines],
        }
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        for line in lines:
            sys.stdout.write(f"{format_amount(line.amount, money):>16}  {line.description}\n")
        sys.stdout.write(f"{format_amount(total(lines), money):>16}  total, {args.currency.upper()}\n")
    return 0


def _rate(price: Price, reading: Reading, billing: BillingPeriod, args: argparse.Namespace) -> list[Line]:
    """Return the lines of a plan with this price alone, over one period of its own."""
    cycle = Cycle(price.interval or Interval.MONTH)
    plan = Plan("price", args.currency.lower(), (price,), cycle, Rounding(args.rounding))
    span = Span(_START, None, _START)
    usage = dict.fromkeys(needs(plan, span, billing), reading)
    charges = rate_advance(plan, span, billing) + rate_arrears(plan, span, billing, usage)
    return [line for charge in charges for line in charge.lines]


@dataclass(slots=True)
class _Request:
    """What the flags ask for; `faults` gets a line for each that can't be used."""

    args: argparse.Namespace
    faults: list[str] = field(default_factory=list)

    def price(self) -> Price | None:
        """Return the price, read as a catalog's; None where `faults` got an entry."""
        report = Report()
        table = self._table()
        price = read_price(Table(report, "", table))
        unread = {key for key, value in table.items() if value is None}
        self.faults += [f"{_flag_of(one.path)}: {one.message}" for one in report.problems if one.path not in unread]
        return price

    def reading(self) -> Reading:
        """Return what was used, from the one of the three flags that is given."""
        given = [name for name in ("quantity", "events", "quantities") if getattr(self.args, name) is not None]
        if self.args.model == Model.FIXED:
            self.faults += [f"--{name}: expected none for a fixed fee" for name in given]
            return Reading()
        if len(given) != 1:
            came = f"got {' and '.join(f'--{name}' for name in given)}" if given else "it is missing"
            self.faults.append(f"--quantity: expected what was used, {came}; or else --events or --quantities")
            return Reading()
        if self.args.quantities is not None:
            return self._groups()
        if self.args.events is not None:
            return self._events(self._json("events", self.args.events, "an array of decimals"))
        return self._events([self.args.quantity], "--quantity")

    def billing(self) -> BillingPeriod:
        """Return the period, a partial one where --days says so."""
        covered, whole = 1, 1
        if self.args.days is not None:
            match = _DAYS_FORM.fullmatch(self.args.days)
            if match is None or int(match[1]) > int(match[2]):
                self.faults.append(
                    f"--days: expected days of the whole period, as in 15/31, got {shown(self.args.days)}"
                )
            else:
                covered, whole = int(match[1]), int(match[2])
        full = Period(_START, _START + timedelta(days=whole))
        return BillingPeriod(Period(_START, _START + timedelta(days=covered)), full)

    def check_money(self) -> None:
        """Note a currency or a rounding that there isn't."""
        code, rounding = self.args.currency, self.args.rounding
        if code.lower() not in CURRENCIES:
            self.faults.append(f"--currency: expected a three-letter currency that Stripe supports, got {shown(code)}")
        if rounding not in list(Rounding):
            self.faults.append(f"--rounding: expected {' or '.join(Rounding)}, got {shown(rounding)}")

    def _table(self) -> dict[str, object]:
        """Return the price as a table of a catalog."""
        given = {key: getattr(self.args, key) for key in ("model", *_FLAGS, *_OPTIONS)}
        table: dict[str, object] = {key: value for key, value in given.items() if value is not None}
        if self.args.model == Model.FIXED:
            table.setdefault("name", "fee")
        else:
            table.setdefault("meter", "usage")
        for key in _JSON:
            if key in table:
                table[key] = self._json(key, given[key], "an array of objects")
        if re.fullmatch(r"[0-9]{1,18}", given["free_events"] or "", re.ASCII):
            table["free_events"] = int(given["free_events"])
        return table

    def _json(self, key: str, text: str, what: str) -> object:
        """Return what a flag says in JSON, None where it is none; numbers keep their text and never become floats."""
        try:
            return json.loads(text, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError):
            self.faults.append(f"{_flag(key)}: expected JSON, {what}, got {shown(text)}")
            return None

    def _events(self, units: object, flag: str = "--events") -> Reading:
        """Return what events of these units make, all of them one group."""
        if not isinstance(units, list):
            if units is not None:
                self.faults.append(f"{flag}: expected an array of decimals, got {shown(units)}")
            return Reading()
        runs = tuple(Run(self._decimal(flag, one), 1) for one in units)
        quantity = EXACT.create_decimal(0)
        for one in runs:
            quantity = EXACT.add(quantity, one.units)
        return Reading((Measure(quantity, (), len(runs), runs),), len(runs))

    def _groups(self) -> Reading:
        """Return a measure for each group of --quantities, each from one event."""
        groups = self._json("quantities", self.args.quantities, _QUANTITIES)
        measures = []
        if groups is None:
            return Reading()
        for entry in groups if isinstance(groups, list) else [groups]:
            group = entry.get("group") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or set(entry) != {"group", "quantity"} or not _is_group(group):
                self.faults.append(f"--quantities: expected {_QUANTITIES}, got {shown(self.args.quantities)}")
                return Reading()
            quantity = self._decimal("--quantities", entry["quantity"])
            measures.append(Measure(quantity, dimensions_of(entry["group"]), 1, (Run(quantity, 1),)))
        return Reading(tuple(measures), len(measures))

    def _decimal(self, flag: str, value: object) -> Decimal:
        """Return a quantity: a decimal, below 0 too (it is priced as 0)."""
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str) and QUANTITY_FORM.fullmatch(text.removeprefix("-")):
            return Decimal(text)
        form = "a decimal below 10^18 with at most 9 fractional digits"
        self.faults.append(f"{flag}: expected {form}, got {shown(value)}")
        return Decimal(0)


def _is_group(group: object) -> bool:
    """Whether it is a table of texts."""
    return isinstance(group, dict) and all(isinstance(value, str) for value in group.values())


def _flag(key: str) -> str:
    """Return the flag of a price's key."""
    return f"--{key.replace('_', '-')}"


def _flag_of(path: str) -> str:
    """Return the flag that a problem's path is about, and the path where it goes deeper."""
    key = re.split(r"[.\[]", path, maxsplit=1)[0]
    return _flag(key) if key == path else f"{_flag(key)}: {path}"
