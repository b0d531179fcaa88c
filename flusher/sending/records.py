"""Records of a file, one event each, made complete: an id and a time where they have none. Pure.

Both are the same whenever the same file is sent again, so a repeat is recognised: the id is made from the file's
digest and the line, the time is given by the caller, who has to remember it.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import PROPERTIES_MAX

LINE_BYTES_MAX: Final = 1 << 20
FIELDS: Final = ("user_id", "event_type", "units", "timestamp", "id", "source")
_REQUIRED: Final = ("user_id", "event_type")
_PROPERTY: Final = "properties."
_BOM: Final = b"\xef\xbb\xbf"
# What reads back as the same text when it is a JSON number; "007" and "1e5" stay strings.
_NUMBER: Final = re.compile(r"(?!-0$)-?(0|[1-9][0-9]{0,14})(\.[0-9]{0,8}[1-9])?", re.ASCII)

_fields_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Batch(NamedTuple):
    """Events as JSON, and the line of the file that each is from. `key`: the Idempotency-Key, where it has one."""

    events: Sequence[bytes]
    lines: Sequence[int]
    key: str | None = None


class Record(NamedTuple):
    """An event to send, as JSON on one line, and the line of the file that it begins on, from 1."""

    line: int
    event: bytes


class Refused(NamedTuple):
    """A record that is no event: its line, a code of the vocabulary, and why."""

    line: int
    code: str
    message: str


class Filling(NamedTuple):
    """What goes into events that lack it: ids made from `digest`, and the time that `timestamp()` returns.

    Without `timestamp` an event that lacks one is refused. `source` is that of events whose id is made.
    """

    digest: str
    timestamp: Callable[[], str] | None
    source: str = ""

    def id_of(self, line: int) -> str:
        """Return the id of the event on a line."""
        return f"file-{self.digest}-{line}"


def ndjson_records(lines: Iterable[bytes], filling: Filling) -> Iterator[Record | Refused]:
    """Yield the events of a file with one JSON object a line; empty lines are passed over."""
    for number, line in enumerate(lines, start=1):
        text = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if not text:
            continue
        if len(line) > LINE_BYTES_MAX:
            yield Refused(number, "event_too_large", f"expected a line of at most {LINE_BYTES_MAX} bytes")
            continue
        try:
            fields = _fields_of(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            advice = "; of a JSON array make lines first, as `jq -c '.[]'` does" if text[:1] == b"[" else ""
            yield Refused(number, "event_invalid", f"expected a JSON object on the line: {error}{advice}")
            continue
        missing = _missing(fields.keys(), number, filling)
        if isinstance(missing, Refused):
            yield missing
        else:
            yield Record(number, _encode({**fields, **missing}) if missing else text)


def csv_records(lines: Iterable[bytes], filling: Filling) -> Iterator[Record | Refused]:
    """Yield the events of a CSV file. Its first row names the columns: fields of an event, and `properties.<name>`.

    An empty cell is an absent field. A property that reads as a plain decimal is sent as a number, so that meters can
    sum it; as a dimension it is the same either way. Raises TaximeterError `file_invalid` for columns that can't be.
    """
    reader = csv.reader(_texts(lines), strict=True)
    try:
        columns = _columns(next(reader, []))
    except csv.Error as error:
        raise TaximeterError("file_invalid", f"line 1: expected the names of columns: {error}") from error
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refused(number, "event_invalid", f"expected a row of CSV: {error}")
            continue
        if row:
            yield _csv_record(number, columns, row, filling)


def _csv_record(number: int, columns: list[str], row: list[str], filling: Filling) -> Record | Refused:
    if len(row) != len(columns):
        return Refused(number, "event_invalid", f"expected {len(columns)} columns as in the first row, got {len(row)}")
    event: dict[str, object] = {}
    properties: dict[str, object] = {}
    for name, cell in zip(columns, row, strict=True):
        if not cell:
            continue
        if name.startswith(_PROPERTY):
            properties[name.removeprefix(_PROPERTY)] = msgspec.Raw(cell.encode()) if _NUMBER.fullmatch(cell) else cell
        else:
            event[name] = cell
    if properties:
        event["properties"] = properties
    missing = _missing(event.keys(), number, filling)
    if isinstance(missing, Refused):
        return missing
    try:
        return Record(number, _encode(event | missing))
    except UnicodeEncodeError:  # bytes that were no UTF-8 became surrogates
        return Refused(number, "event_invalid", "expected UTF-8, got other bytes; save the file as UTF-8")


def _columns(row: list[str]) -> list[str]:
    """Return the names of the columns. Raises TaximeterError `file_invalid` with everything that is wrong."""
    names = [name.strip() for name in row]
    problems = [f"column {name} is missing" for name in _REQUIRED if name not in names]
    for place, name in enumerate(names, start=1):
        if name not in FIELDS and (not name.startswith(_PROPERTY) or name == _PROPERTY):
            expected = f"{', '.join(FIELDS)} or {_PROPERTY}<name>"
            problems.append(f"column {place}: expected {expected}, got {name[:80]!r}")
        elif name in names[: place - 1]:
            problems.append(f"column {place}: {name[:80]!r} is there twice")
    if sum(name.startswith(_PROPERTY) for name in names) > PROPERTIES_MAX:
        problems.append(f"expected at most {PROPERTIES_MAX} columns of properties")
    if problems:
        raise TaximeterError("file_invalid", "; ".join(f"line 1: {problem}" for problem in problems[:10]))
    return names


def _missing(present: Collection[str], line: int, filling: Filling) -> dict[str, str] | Refused:
    missing: dict[str, str] = {}
    if "id" not in present:
        missing["id"] = filling.id_of(line)
        if filling.source and "source" not in present:
            missing["source"] = filling.source
    if "timestamp" not in present:
        if filling.timestamp is None:
            return Refused(line, "timestamp_invalid", "timestamp: expected one, as each event of the past has its own")
        missing["timestamp"] = filling.timestamp()
    return missing


def _texts(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield (line.removeprefix(_BOM) if number == 0 else line).decode(errors="surrogateescape")
