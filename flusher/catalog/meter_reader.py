"""Reads one meter from its table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from flusher.catalog.reader import Table, shown, text_fault
from sidecar.contract.event import STRING_BYTES_MAX, VOID_TYPE
from sidecar.contract.meters import PROPERTY_PREFIX, Meter, property_text

METER_NAME_BYTES_MAX: Final = 128
GROUP_BY_MAX: Final = 5
GROUP_BY_NAME_BYTES_MAX: Final = 64
"""With these and 256 bytes a value, the key of a usage row fits into a page of Postgres's index (2,700 bytes)."""
FILTER_KEYS_MAX: Final = 8
FILTER_VALUES_MAX: Final = 100

METER_KEYS: Final = ("name", "event_type", "aggregation", "field", "group_by", "filter", "detailed")


class Aggregation(StrEnum):
    """The aggregations that meters have."""

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    MIN = "min"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE = "unique"
    WEIGHTED_SUM = "weighted_sum"


def read_meter(table: Table, current: Mapping[str, Meter]) -> Meter | None:
    """Return the meter of a table, or None when the table's report has a problem with it.

    `detailed` stays as the meter of that name in `current` has it where the table says nothing of it: a price per
    event may have switched it on.
    """
    mark = table.report.mark()
    name = table.text("name", bytes_max=METER_NAME_BYTES_MAX)
    aggregation = table.choice("aggregation", Aggregation, Aggregation.SUM)
    event_type = table.text("event_type")
    for key, value in (("name", name), ("event_type", event_type)):
        if value == VOID_TYPE:
            table.problem(key, "another one", f"{VOID_TYPE} is the type of voids, which no meter counts")
    field = _read_field(table, aggregation)
    group_by = table.texts("group_by", (), GROUP_BY_MAX, GROUP_BY_NAME_BYTES_MAX)
    allowed = _read_filter(table)
    detailed = table.flag("detailed", default=name in current and current[name].detailed)
    table.only(METER_KEYS)
    if not table.report.clean_since(mark):
        return None
    lists = tuple(sorted(group_by)), dict(sorted(allowed.items()))
    return Meter(name, event_type, aggregation.value, field, *lists, detailed)


def _read_field(table: Table, aggregation: Aggregation) -> str:
    """Return what the meter reads: `units`, or `properties.<name>`."""
    mark = table.report.mark()
    field = table.text("field", "units", bytes_max=STRING_BYTES_MAX + len(PROPERTY_PREFIX))
    if not table.report.clean_since(mark):
        return "units"
    if field == "units":
        if aggregation is Aggregation.UNIQUE:
            table.problem("field", '"properties.<name>"', "a unique counts the different values of a property")
        return field
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
