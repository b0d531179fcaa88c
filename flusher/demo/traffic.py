"""The traffic of the demo: 50 customers over July 2025, with retries and duplicates, and what it has to come to. Pure.

Half of the events have ids; the others come under an Idempotency-Key, a batch each. Every tenth batch is sent twice,
as an app does that lost the answer, and batches with ids repeat some events of the batch before.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from flusher.pricing.line import Dimensions, rfc3339
from flusher.sending.records import Batch

CUSTOMER: Final = "cus_123456"
CUSTOMER_EVENTS: Final = 12_345
OTHERS: Final = tuple(f"cus_{number}" for number in range(200_001, 200_050))
OTHERS_EVENTS: Final = 1_800
START: Final = datetime(2025, 7, 1, tzinfo=UTC)
END: Final = datetime(2025, 8, 1, tzinfo=UTC)

_BATCH_EVENTS: Final = 1_000
_REPEATED_EVENTS: Final = 20
_RETRIED_EVERY: Final = 10
_DAYS: Final = (END - START).days
_APART: Final = timedelta(seconds=13)
_STRIDE: Final = 40_009  # prime: a walk by it through the events mixes customers and days
_REGIONS: Final = ("eu", "us")
_encode: Final = msgspec.json.Encoder().encode

Counted = dict[tuple[str, str, Dimensions], tuple[Decimal, int]]
"""Units and events by customer, meter and dimensions."""


class Traffic(NamedTuple):
    """The batches to send, how many events they have together and how many different ones, and what these come to."""

    batches: list[Batch]
    sent: int
    different: int
    expected: Counted


def make_traffic() -> Traffic:
    """Return the traffic; it is the same every time."""
    expected: Counted = {}
    events = list(_events(expected))
    order = [events[place * _STRIDE % len(events)] for place in range(len(events))]
    half = len(order) // 2
    batches = [*_with_ids(order[:half]), *_with_keys(order[half:])]
    sent = sum(len(batch.events) for batch in batches)
    return Traffic(batches, sent, len(events), expected)


def _events(expected: Counted) -> Iterator[dict[str, object]]:
    """Yield every event once, and add it to what is expected."""
    counts = [(CUSTOMER, CUSTOMER_EVENTS), *((other, OTHERS_EVENTS) for other in OTHERS)]
    for place, (customer, count) in enumerate(counts):
        opens = START + timedelta(hours=place % 20)  # everybody works for a while each day, at an hour of its own
        for number in range(count):
            day, turn = number % _DAYS, number // _DAYS
            event: dict[str, object] = {"user_id": customer, "event_type": "api_call", "units": 1}
            event["timestamp"] = rfc3339(opens + timedelta(days=day) + turn * _APART)
            group: Dimensions = ()
            if customer != CUSTOMER and number % 3 == 0:  # decimals are sent as text, and counted to the last digit
                group = (("region", _REGIONS[number % len(_REGIONS)]),)
                event |= {"event_type": "storage_gb", "units": f"0.{number:09d}", "properties": dict(group)}
            counter = (customer, str(event["event_type"]), group)
            units, events = expected.get(counter, (Decimal(0), 0))
            expected[counter] = (units + Decimal(str(event["units"])), events + 1)
            yield event


def _with_ids(events: list[dict[str, object]]) -> Iterator[Batch]:
    lines = [_encode({"id": f"event-{number}", **event}) for number, event in enumerate(events)]
    for number, first in enumerate(range(0, len(lines), _BATCH_EVENTS)):
        repeated = lines[max(0, first - _REPEATED_EVENTS) : first]
        yield from _retried(number, Batch(lines[first : first + _BATCH_EVENTS] + repeated, ()))


def _with_keys(events: list[dict[str, object]]) -> Iterator[Batch]:
    for number, first in enumerate(range(0, len(events), _BATCH_EVENTS)):
        lines = [_encode(event) for event in events[first : first + _BATCH_EVENTS]]
        yield from _retried(number, Batch(lines, (), f"demo-{number}"))


def _retried(number: int, batch: Batch) -> Iterator[Batch]:
    yield batch
    if number % _RETRIED_EVERY == 0:
        yield batch
