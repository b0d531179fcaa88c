"""Reads the values of a TOML (or JSON) table, and reports what is wrong with each under its path.

A reading method always returns a value of its type, a harmless one after a problem, so that one pass finds every
problem. Whoever builds a value from what was read asks `Report.clean_since` first.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, TypeVar

from flusher.catalog.problem import Problem
from flusher.pricing.money import plain
from sidecar.contract.event import STRING_BYTES_MAX

AMOUNT_FORM: Final = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?", re.ASCII)
"""Money, and prices per unit: below 10^12 with at most 12 fractional digits (what Stripe takes for a unit)."""
QUANTITY_FORM: Final = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?", re.ASCII)
"""Units: below 10^18 with at most 9 fractional digits, the precision of an event."""
RATE_FORM: Final = re.compile(r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,10})?", re.ASCII)
"""Percent: below 10^6 with at most 10 fractional digits, so that a rate times a quantity needs no more than 60."""
_NEGATIVE: Final = re.compile(r"-[0-9]+(\.[0-9]+)?", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
SHOWN_CHARS_MAX: Final = 60

_EnumT = TypeVar("_EnumT", bound=StrEnum)


class FloatText(str):
    """The text of a number with a point or an exponent, kept as written: it never becomes a float."""

    __slots__ = ()


class Report:
    """The problems found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, message: str) -> None:
        """Note a problem at `path`."""
        self.problems.append(Problem(path, message))

    def mark(self) -> int:
        """Return a mark for `clean_since`."""
        return len(self.problems)

    def clean_since(self, mark: int) -> bool:
        """Whether nothing was noted since `mark`."""
        return len(self.problems) == mark


class Table:
    """One table of a catalog, at `path` (empty for the file itself)."""

    def __init__(self, report: Report, path: str, values: Mapping[str, object]) -> None:
        self.report = report
        self.path = path
        self.values = values

    def at(self, key: str) -> str:
        """Return the path of a key of this table."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the key is there, right or wrong."""
        return key in self.values

    def peek(self, key: str) -> str | None:
        """Return the text under `key` without judging it; None where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) and not isinstance(value, FloatText) else None

    def problem(self, key: str, expected: str, remedy: str = "") -> None:
        """Note that the value of `key` is not what was `expected`; say what came, and what to do."""
        came = f"got {shown(self.values[key])}" if key in self.values else "it is missing"
        self.report.add(self.at(key), f"expected {expected}, {came}{'; ' + remedy if remedy else ''}")

    def only(self, known: Collection[str], later: Collection[str] = ()) -> None:
        """Note every key that is neither `known` nor to be read; those of `later` are named as not there yet."""
        for key in self.values:
            if key in later:
                self.report.add(self.at(key), "not supported yet; leave it out")
            elif key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys here: {', '.join(sorted(known))}"
                self.report.add(self.at(key), f"unknown key; {hint}")

    def text(self, key: str, default: str | None = None, bytes_max: int = STRING_BYTES_MAX) -> str:
        """Return a name: 1 to `bytes_max` bytes of UTF-8, no control characters, no space at either end."""
        if default is not None and not self.has(key):
            return default
        value = self.values.get(key)
        if not isinstance(value, str) or isinstance(value, FloatText):
            self.problem(key, "a text")
        elif fault := text_fault(value, bytes_max):
            self.report.add(self.at(key), f"{fault}, got {shown(value)}")
        else:
            return value
        return ""

    def texts(self, key: str, default: tuple[str, ...], count_max: int, bytes_max: int) -> tuple[str, ...]:
        """Return an array of distinct names."""
        if not self.has(key):
            return default
        items = self._array(key, "an array of texts", count_max)
        found = Table(self.report, "", {f"{self.at(key)}[{n}]": item for n, item in enumerate(items)})
        read: dict[str, None] = {}
        for path in found.values:
            value = found.text(path, bytes_max=bytes_max)
            if value and value in read:
                self.report.add(path, f"{shown(value)} is there twice; leave one out")
            read[value] = None
        return tuple(read)

    def scalars(self, key: str, count_max: int) -> tuple[str | int, ...]:
        """Return an array of at least one text, integer or boolean, all distinct."""
        items = self._array(key, "an array of texts, integers or booleans", count_max)
        if self.values[key] == []:
            self.problem(key, "at least one value", "an empty one never matches")
        read: list[str | int] = []
        for number, item in enumerate(items):
            path = f"{self.at(key)}[{number}]"
            if not isinstance(item, str | int) or isinstance(item, FloatText):
                self.report.add(path, f"expected a text, an integer or a boolean, got {shown(item)}")
            elif isinstance(item, str) and (fault := text_fault(item)):
                self.report.add(path, f"{fault}, got {shown(item)}")
            elif (type(item), item) in [(type(other), other) for other in read]:
                self.report.add(path, f"{shown(item)} is there twice; leave one out")
            else:
                read.append(item)
        return tuple(read)

    def choice(self, key: str, choices: type[_EnumT], default: _EnumT | None, later: Collection[str] = ()) -> _EnumT:
        """Return a member of `choices`; a value of `later` is named as not there yet."""
        if default is not None and not self.has(key):
            return default
        value = self.values.get(key)
        members = list(choices)
        if isinstance(value, str) and value in members:
            return choices(value)
        names = ", ".join(f'"{member}"' for member in members)
        if isinstance(value, str) and value in later:
            self.report.add(self.at(key), f'"{value}" is not supported yet; expected one of {names}')
        else:
            self.problem(key, f"one of {names}")
        return members[0]

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self.values.get(key, default)
        if isinstance(value, bool):
            return value
        self.problem(key, "true or false")
        return default

    def amount(self, key: str, default: str | None = None) -> Decimal:
        """Return money in major units, 0 or more, exactly as written."""
        what = "an amount below 10^12 in major units with at most 12 fractional digits"
        return self._decimal(key, AMOUNT_FORM, what, default)

    def quantity(self, key: str, default: str | None = None, *, above: Decimal | None = None) -> Decimal:
        """Return a quantity of units, 0 or more and greater than `above`, exactly as written."""
        mark = self.report.mark()
        what = "a quantity below 10^18 with at most 9 fractional digits"
        value = self._decimal(key, QUANTITY_FORM, what, default)
        if above is not None and value <= above and self.report.clean_since(mark):
            self.problem(key, f"a quantity above {plain(above)}")
        return value

    def rate(self, key: str, default: str | None = None) -> Decimal:
        """Return a rate in percent, 0 or more, exactly as written."""
        what = "percent below 10^6 with at most 10 fractional digits"
        return self._decimal(key, RATE_FORM, what, default)

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """Return an integer from `low` to `high`."""
        if default is not None and not self.has(key):
            return default
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(key, f"an integer from {low:,} to {high:,}")
        return low

    def _decimal(self, key: str, form: re.Pattern[str], what: str, default: str | None) -> Decimal:
        if default is not None and not self.has(key):
            return Decimal(default)
        value = self.values.get(key)
        if isinstance(value, FloatText):
            self.problem(key, what + " as a text or an integer", f'write it in quotes: "{value}"')
        elif isinstance(value, bool) or not isinstance(value, str | int):
            self.problem(key, what + " as a text or an integer")
        elif isinstance(value, int) and abs(value) >= 10**18:
            self.problem(key, what)
        elif form.fullmatch(str(value)):
            return Decimal(str(value))
        elif _NEGATIVE.fullmatch(str(value)):
            self.problem(key, "0 or more", "prices and quantities of a catalog are never negative")
        else:
            self.problem(key, what, "digits and at most one point, no exponent")
        return Decimal(0)

    def instant(self, key: str, *, required: bool = True) -> datetime | None:
        """Return a time in UTC, read from one with an offset."""
        if not required and not self.has(key):
            return None
        value = self.values.get(key)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return self._in_range(key, value)
        if isinstance(value, date | time):
            remedy = "add the offset, such as Z for UTC: 2025-07-01T00:00:00Z"
        elif isinstance(value, str):
            remedy = "write it without quotes"
        else:
            remedy = ""
        self.problem(key, "a time with an offset, such as 2025-07-01T00:00:00Z", remedy)
        return None

    def _in_range(self, key: str, value: datetime) -> datetime | None:
        """Return the time in UTC if it lies between 1970 and 2200."""
        naive, offset = value.replace(tzinfo=UTC), value.utcoffset() or timedelta()
        day = timedelta(days=1)
        if not (EARLIEST - day < naive < LATEST + day) or not EARLIEST <= naive - offset < LATEST:
            self.problem(key, "a time from 1970 to 2199")
            return None
        return naive - offset

    def table(self, key: str) -> "Table":
        """Return the table under `key`, an empty one where it is absent."""
        value = self.values.get(key, {})
        if isinstance(value, dict):
            return Table(self.report, self.at(key), value)
        self.problem(key, 'a table, such as {region = ["eu"]}')
        return Table(self.report, self.at(key), {})

    def tables(self, key: str, count_max: int, *, required: bool = False) -> Iterator["Table"]:
        """Yield the tables of an array, skipping and noting what is no table."""
        if required and not self.has(key):
            self.problem(key, "an array of tables")
            return
        items = self._array(key, "an array of tables", count_max)
        if required and self.values[key] == []:
            self.problem(key, "at least one table")
        for number, item in enumerate(items):
            path = f"{self.at(key)}[{number}]"
            if isinstance(item, dict):
                yield Table(self.report, path, item)
            else:
                self.report.add(path, f"expected a table, got {shown(item)}")

    def _array(self, key: str, what: str, count_max: int) -> list[object]:
        """Return the array under `key`, an empty one where it is absent, too long or no array."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            hint = f"write [[{self.at(key)}]]" if isinstance(value, dict) and not self.path else ""
            self.problem(key, what, hint)
            return []
        if len(value) > count_max:
            self.report.add(self.at(key), f"expected at most {count_max:,} entries, got {len(value):,}")
            return []
        return value


def text_fault(value: str, bytes_max: int = STRING_BYTES_MAX) -> str | None:
    """Return what is wrong with a name ("expected ..."), or None."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "expected valid Unicode, without lone surrogates"
    if not value:
        return "expected a text that is not empty"
    if size > bytes_max:
        return f"expected at most {bytes_max} bytes"
    if _CONTROL.search(value):
        return "expected no control characters"
    if value != value.strip():
        return "expected no space at the start or the end"
    return None


def shown(value: object) -> str:
    """Return a value as an error shows it: its type and its text, shortened."""
    if isinstance(value, FloatText):
        return f"the float {_short(value)}"
    if isinstance(value, str):
        return f'"{_short(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"the integer {_short(str(value))}" if abs(value) < 10**100 else "an integer of over 100 digits"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, datetime):
        return f"the time {value.isoformat()}{'' if value.tzinfo else ' without an offset'}"
    if isinstance(value, date):
        return f"the date {value.isoformat()}"
    if isinstance(value, time):
        return f"the time of day {value.isoformat()}"
    return "null" if value is None else type(value).__name__


def _short(text: str) -> str:
    """Return the text without control characters, cut to what fits in a message."""
    clean = _CONTROL.sub("?", text).encode(errors="replace").decode()
    return clean if len(clean) <= SHOWN_CHARS_MAX else clean[: SHOWN_CHARS_MAX - 3] + "..."
