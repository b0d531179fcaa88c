"""A file of subscriptions: CSV or NDJSON, line by line, each as the table that a catalog file would hold. Pure."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from flusher.catalog.reader import FloatText, Report, shown

COLUMNS: Final = ("id", "customer", "plan", "start", "end")
"""The columns of a CSV file. NDJSON may have the other keys of [[subscriptions]] too."""
LINE_BYTES_MAX: Final = 1 << 20
_BOM: Final = "\ufeff"


class Row(NamedTuple):
    """The subscription of a line, numbered from 1, as it was written but for its times."""

    line: int
    values: Mapping[str, object]


def csv_rows(lines: Iterable[bytes], report: Report) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header; an empty cell is a key that is absent."""
    reader = csv.reader(_decoded(lines, report), strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            report.add(f"line {reader.line_num}", f"not CSV: {error}")
            return
        if header is None:
            header = [cell.strip() for cell in cells]
            if not _header_is_good(header, report):
                return
        elif cells and len(cells) != len(header):
            report.add(f"line {line}", f"expected {len(header)} cells, as in the header, got {len(cells)}")
        elif cells:
            values: dict[str, object] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            yield from _with_times(line, values, report)
        line = reader.line_num + 1


def ndjson_rows(lines: Iterable[bytes], report: Report) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object a line; empty lines are passed over."""
    for line, text in enumerate(_decoded(lines, report), start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text, parse_float=FloatText)
        except (ValueError, RecursionError) as error:
            report.add(f"line {line}", f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield from _with_times(line, values, report)
        else:
            report.add(f"line {line}", f"expected a JSON object, got {shown(values)}")


def _decoded(lines: Iterable[bytes], report: Report) -> Iterator[str]:
    """Yield each line as text, an empty one where it is none."""
    for number, line in enumerate(lines, start=1):
        if len(line) > LINE_BYTES_MAX:
            report.add(f"line {number}", f"expected a line of at most {LINE_BYTES_MAX:,} bytes")
            yield "\n"
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            report.add(f"line {number}", "expected UTF-8, got other bytes; save it as UTF-8")
            yield "\n"
            continue
        yield text.removeprefix(_BOM) if number == 1 else text


def _header_is_good(header: list[str], report: Report) -> bool:
    """Note what is wrong with the header of a CSV file, and say whether it can be read."""
    known = f"known columns: {', '.join(COLUMNS)}; overrides are for NDJSON"
    mark = report.mark()
    for name in header:
        if name not in COLUMNS:
            report.add("line 1", f"unknown column {shown(name)}; {known}")
        elif header.count(name) > 1:
            report.add("line 1", f"column {shown(name)} is there twice; leave one out")
    for name in ("customer", "plan", "start"):
        if name not in header:
            report.add("line 1", f"expected a column {shown(name)}; {known}")
    return report.clean_since(mark)


def _with_times(line: int, values: dict[str, object], report: Report) -> Iterator[Row]:
    """Yield the row with its times read: files of lines write them as texts."""
    mark = report.mark()
    for key in ("start", "end"):
        value = values.get(key)
        if value is None:
            values.pop(key, None)  # null in JSON
            continue
        moment = _instant(value)
        if moment is None:
            example = "2025-07-01T00:00:00Z"
            report.add(f"line {line}.{key}", f"expected a time with an offset, such as {example}, got {shown(value)}")
        else:
            values[key] = moment
    if report.clean_since(mark):
        yield Row(line, values)


def _instant(value: object) -> datetime | None:
    """Return the time with an offset that a text is, or None."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if moment is None or moment.tzinfo is None else moment
