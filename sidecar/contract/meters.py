"""Which meters an event feeds, under which dimensions, and with how much: the fold.

The sidecar folds a batch into counters with this code before Redis sees it, and the flusher folds the same batch
again from the stream (rule 9), so both must name the same revision of the meters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from sidecar.contract.codec import Batch, column, numbers
from sidecar.contract.event import VOID_TYPE, Event
from sidecar.contract.units import NANO, NANOS_BOUND, from_decimal

WINDOW_S: Final = 900  # 15 minutes: fine enough for the offset of every time zone
WINDOW_US: Final = WINDOW_S * 1_000_000

PROPERTY_PREFIX: Final = "properties."

Aggregation = Literal["sum", "count", "max", "min", "avg", "latest", "unique", "weighted_sum"]

_FROM_COUNTERS: Final = frozenset({"sum", "count", "avg"})


class Meter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One meter as a batch was counted under it: the wire form, a JSON object with these keys.

    `field` is `units` or `properties.<name>`. An event counts when every key of `filter` has one of its values;
    a missing property never matches. `group_by` names the properties that become dimensions. With `detailed` what
    each event adds is kept, not the sum alone: a price per event needs it.

    Counters hold the sum of the field and the number of events for every aggregation, so that both sides compare
    them in one way; of a field that is no number, which `unique` takes, the sum is 0.
    """

    name: str
    event_type: str
    aggregation: Aggregation = "sum"
    field: str = "units"
    group_by: tuple[str, ...] = ()
    filter: dict[str, tuple[str, ...]] = {}
    detailed: bool = False

    @property
    def reads_properties(self) -> bool:
        """Whether anything but the units decides what this meter counts."""
        return bool(self.group_by or self.filter or self.field != "units")

    @property
    def property_name(self) -> str | None:
        """The property that `field` names, None for units."""
        return None if self.field == "units" else self.field.removeprefix(PROPERTY_PREFIX)

    @property
    def follows_from_counters(self) -> bool:
        """Whether sums and counts tell what it shows."""
        return self.aggregation in _FROM_COUNTERS

    @property
    def keeps_values(self) -> bool:
        """Whether the value of each event is kept: sums and counts don't tell what it shows, or what it costs."""
        return self.detailed or not self.follows_from_counters


class Counter(NamedTuple):
    """What is counted apart: a user, a meter, the window, and dimensions as canonical JSON text (`{}` for none).

    `window` is the number of 15-minute windows since the epoch, UTC.
    """

    user_id: str
    meter: str
    window: int
    dimensions: str


@dataclass(slots=True)
class Amount:
    """A running sum in nanos and the count of events in it."""

    nanos: int = 0
    events: int = 0

    def add(self, nanos: int, events: int) -> None:
        """Add to both."""
        self.nanos += nanos
        self.events += events


class Share(NamedTuple):
    """What one event adds to one meter: `nanos` under `dimensions` (canonical JSON text)."""

    meter: str
    dimensions: str
    nanos: int


class Value(NamedTuple):
    """What one event is to a meter that keeps it: its share, and for a count of different values the one it has."""

    meter: str
    dimensions: str
    nanos: int
    label: str | None


_decode_properties = msgspec.json.Decoder(float_hook=Decimal).decode
_encode_dimensions = msgspec.json.Encoder(order="sorted").encode
NO_DIMENSIONS: Final = "{}"


def property_text(value: object) -> str:
    """Return the text under which a property's value is compared and becomes a dimension: `"eu"`, `"1.5"`, `"true"`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        if value.is_zero():
            return "0"
        whole, _, fraction = format(value, "f").partition(".")  # `normalize` would round to the context's digits
        fraction = fraction.rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole
    return str(value)


def property_nanos(value: object) -> int | None:
    """Return a property's number as nanos, or None when it is no decimal within the limits of units."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if isinstance(value, int):
        nanos = value * NANO
    else:
        if value.adjusted() > 15:  # a huge exponent would become a huge int
            return None
        try:
            nanos = from_decimal(value)
        except ValueError:
            return None
    return nanos if abs(nanos) < NANOS_BOUND else None


class Revision:
    """The meters under one number, ready to fold with. Immutable after construction."""

    def __init__(self, number: int, meters: Sequence[Meter]) -> None:
        self.number = number
        self.meters = tuple(meters)
        self._names = {meter.name for meter in meters}
        by_type: dict[str, tuple[Meter, ...]] = {}
        for meter in meters:
            by_type[meter.event_type] = (*by_type.get(meter.event_type, ()), meter)
        self._by_type: Mapping[str, tuple[Meter, ...]] = by_type
        keeping = {name: tuple(meter for meter in some if meter.keeps_values) for name, some in by_type.items()}
        self._keeping: Mapping[str, tuple[Meter, ...]] = {name: some for name, some in keeping.items() if some}

    def shares(self, event_type: str, properties: str, nanos: int, events: int = 1) -> list[Share]:
        """Return what `events` events of this type, with these properties (JSON text) and `nanos` in all, add up to.

        An event type that no meter names feeds a meter of its own name with its units. A void feeds none.
        """
        if event_type == VOID_TYPE:
            return []
        meters = self._by_type.get(event_type)
        if meters is None:
            return [] if event_type in self._names else [Share(event_type, NO_DIMENSIONS, nanos)]
        decoded: dict[str, object] | None = None
        shares: list[Share] = []
        for meter in meters:
            if not meter.reads_properties:
                shares.append(
                    Share(meter.name, NO_DIMENSIONS, NANO * events if meter.aggregation == "count" else nanos)
                )
                continue
            if decoded is None:
                decoded = _decode_properties(properties) if properties else {}
            share = _share_of(meter, decoded, nanos, events)
            if share is not None:
                shares.append(share)
        return shares

    def fed_by(self, event_type: str) -> set[str]:
        """Return the meters that events of a type feed: those that name it, else the one of its own name."""
        return {meter.name for meter in self._by_type.get(event_type, ())} or {event_type}

    def keeps_values(self, event_type: str) -> bool:
        """Whether `values` may return any for events of this type."""
        return event_type in self._keeping

    def values(self, event_type: str, properties: str, nanos: int) -> list[Value]:
        """Return what one event, with these properties (JSON text), is to the meters that keep it."""
        meters = self._keeping.get(event_type)
        if meters is None:
            return []
        decoded: dict[str, object] = _decode_properties(properties) if properties else {}
        values: list[Value] = []
        for meter in meters:
            share = _share_of(meter, decoded, nanos, 1)
            if share is not None:
                label = property_text(decoded[meter.property_name or ""]) if meter.aggregation == "unique" else None
                values.append(Value(*share, label))
        return values

    def problem(self, event_type: str, properties: Mapping[str, object]) -> str | None:
        """Return why an event would silently be left out by a meter that should count it, or None.

        The sidecar refuses such an event.
        """
        if event_type not in self._by_type and event_type in self._names:
            return (
                f"event_type: no meter counts {event_type!r}, and the meter of that name counts other events; "
                "name a meter that counts it in the catalog"
            )
        for meter in self._by_type.get(event_type, ()):
            name = meter.property_name
            if name is None or meter.aggregation in {"count", "unique"} or not _matches(meter, properties):
                continue
            if name in properties and property_nanos(properties[name]) is None:
                return (
                    f"properties.{name}: meter {meter.name} ({meter.aggregation}) reads it, expected a number below "
                    f"10^15 with at most 9 fractional digits, got {properties[name]!r}"
                )
        return None

    def fold(self, events: Iterable[Event], into: dict[Counter, Amount] | None = None) -> dict[Counter, Amount]:
        """Return the counters that the events add up to, added to `into` where it is given."""
        counters = {} if into is None else into
        for event in events:
            window = event.time_us // WINDOW_US
            for meter, dimensions, nanos in self.shares(event.event_type, event.properties, event.nanos):
                counter = Counter(event.user_id, meter, window, dimensions)
                amount = counters.get(counter)
                if amount is None:
                    counters[counter] = Amount(nanos, 1)
                else:
                    amount.nanos += nanos
                    amount.events += 1
        return counters


def groups_of(batch: Batch) -> tuple[dict[tuple[int, int], int], bytes]:
    """Return how many events each group has, and the number of every event's group as a column.

    A group is a content's place and a window: its events add the same to the same counters.
    """
    times_us = numbers("q", batch.times_us)
    first, last = (min(times_us) // WINDOW_US, max(times_us) // WINDOW_US) if times_us else (0, 0)
    if first == last:  # the usual case: a content is a group
        counts = batch.content_counts()
        return {(place, first): counts[place] for place in range(len(batch.contents))}, batch.content_of
    found: dict[tuple[int, int], list[int]] = {}  # -> [number, events]
    group_of: list[int] = []
    for place, time_us in zip(numbers("H", batch.content_of), times_us, strict=True):
        group = found.setdefault((place, time_us // WINDOW_US), [len(found), 0])
        group[1] += 1
        group_of.append(group[0])
    return {group: events for group, (_, events) in found.items()}, column("H", group_of)


def _matches(meter: Meter, properties: Mapping[str, object]) -> bool:
    return all(
        name in properties and property_text(properties[name]) in values for name, values in meter.filter.items()
    )


def _share_of(meter: Meter, properties: Mapping[str, object], nanos: int, events: int) -> Share | None:
    if not _matches(meter, properties):
        return None
    name = meter.property_name
    if meter.aggregation == "count":
        nanos = NANO * events
    elif name is not None:
        each = property_nanos(properties.get(name))
        if each is None:
            if meter.aggregation != "unique" or name not in properties:
                return None
            each = 0
        nanos = each * events
    dimensions = {name: property_text(properties[name]) for name in meter.group_by if name in properties}
    return Share(meter.name, _encode_dimensions(dimensions).decode() if dimensions else NO_DIMENSIONS, nanos)


_decode_meters = msgspec.json.Decoder(list[Meter]).decode


def decode_revision(number: int, meters: bytes | str) -> Revision:
    """Return the revision whose meters stand in JSON. Raises msgspec.DecodeError when it is not a list of meters."""
    return Revision(number, _decode_meters(meters))


def encode_meters(meters: Sequence[Meter]) -> bytes:
    """Return the wire form of the meters: a JSON list."""
    return msgspec.json.encode(list(meters))


def canonical_dimensions(text: str) -> str:
    """Return dimensions in the form that counters have, given any JSON text of them."""
    return _encode_dimensions(msgspec.json.decode(text, type=dict[str, str])).decode()
