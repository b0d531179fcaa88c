"""Live usage: what a user has used by now, committed, sealed and open, read from Redis at one moment.

What sums and counts don't tell, maxima say, is asked of a flusher, as of the last drain.
"""

from collections.abc import Iterable, Set
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from sidecar.asked import Asked
from sidecar.contract import keys, scripts
from sidecar.contract.codes import TaximeterError
from sidecar.contract.identity import shard_of
from sidecar.contract.meters import WINDOW_US, Amount, Counter
from sidecar.contract.units import from_text, join
from sidecar.contract.usage import TIME_US_MAX
from sidecar.errors import Unavailable
from sidecar.ingest import Ingest
from sidecar.link import LINK_ERRORS, evaluate

ATTEMPTS_MAX: Final = 20
_BOUNDS: Final = (
    "from, to: expected full quarters of an hour from 1970 to 2200, from not behind to; see `taximeter usage`"
)


class LiveRow(NamedTuple):
    """What a customer's user has used of a meter under some dimensions, in nanos and in events."""

    customer: str
    meter: str
    dimensions: dict[str, str]
    nanos: int
    events: int


class LiveReading(NamedTuple):
    """The rows, as of a moment in microseconds since the epoch."""

    as_of_us: int
    rows: list[LiveRow]


class LiveUsage:
    """Reads live usage through the connections of `ingest`."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._asked = Asked(ingest.redis)

    async def read(
        self, user_id: str, meter: str | None, start_us: int, end_us: int, event_type: str | None = None
    ) -> LiveReading:
        """Return what the user has used from `start_us` up to `end_us`: of one meter, those of a type, or of all.

        What sums and counts don't tell is as of the last drain. Raises TaximeterError `query_invalid` for bounds
        inside a 15-minute window and `range_not_live` for a start before what Redis holds; Unavailable
        `usage_unavailable` when Redis can't be read now, or no flusher answers.
        """
        now_us = self._ingest.wall_us()
        if start_us % WINDOW_US or end_us % WINDOW_US or not 0 <= start_us <= end_us <= TIME_US_MAX:
            raise TaximeterError("query_invalid", _BOUNDS)
        revision = self._ingest.revision
        valued = {one.name for one in revision.meters if not one.follows_from_counters}
        wanted = {meter} if meter is not None else revision.fed_by(event_type) if event_type is not None else None
        rows: list[LiveRow] = []
        if wanted is None or wanted - valued:
            rows += await self._counted(user_id, meter, _windows(start_us, end_us, now_us), valued)
        if start_us < end_us and (valued if wanted is None else wanted & valued):
            found = await self._asked.usage(user_id, meter, start_us, end_us)
            rows += [
                LiveRow(one.customer, one.meter, one.dimensions, from_text(one.units), one.events) for one in found
            ]
        return LiveReading(now_us, sorted(rows, key=lambda row: (row.meter, sorted(row.dimensions.items()))))

    async def _counted(
        self, user_id: str, meter: str | None, windows: tuple[int, int], valued: Set[str]
    ) -> list[LiveRow]:
        """Return what counters tell of the user's meters, but those that are `valued`."""
        manifest = self._ingest.journal.manifest
        if manifest is None:
            raise Unavailable("usage_unavailable", "this sidecar has not met its Redis yet")
        shard = shard_of(user_id, manifest.shards)
        try:
            counters = await self._counters(shard, user_id, meter, windows)
            (customer,) = await self._ingest.directory.fields(keys.USERS, user_id)
        except LINK_ERRORS as error:
            raise Unavailable("usage_unavailable", f"Redis does not answer: {error}") from error
        name = customer.decode() if customer else user_id
        averaged = {one.name for one in self._ingest.revision.meters if one.aggregation == "avg"}
        totals: dict[tuple[str, str], Amount] = {}
        for counter, amount in counters:
            is_wanted = windows[0] <= counter.window < windows[1] and meter in {None, counter.meter}
            if is_wanted and counter.meter not in valued:
                total = totals.setdefault((counter.meter, counter.dimensions), Amount())
                total.add(amount.nanos, amount.events)
        return [
            LiveRow(
                name,
                which,
                msgspec.json.decode(dimensions, type=dict[str, str]),
                _average(total) if which in averaged else total.nanos,
                total.events,
            )
            for (which, dimensions), total in totals.items()
            if total.events
        ]

    async def _counters(
        self, shard: int, user_id: str, meter: str | None, windows: tuple[int, int]
    ) -> list[tuple[Counter, Amount]]:
        """Return the counters of the user; the epoch may be sealed and published meanwhile, then it is read again."""
        generation, sealed = "", ""
        for _ in range(ATTEMPTS_MAX):
            call = scripts.live(shard, generation or "none", sealed, user_id, meter, windows)
            reply = await evaluate(await self._ingest.redis.at(keys.state(shard)), call)
            if reply[0] == b"ok":
                return [*_epoch(reply[1]), *_epoch(reply[2]), *_totals(user_id, reply[3])]
            generation, sealed = reply[1].decode(), reply[2].decode()
            if not generation:
                break
        raise Unavailable("usage_unavailable", "the counters are being rebuilt; try again")


def _average(total: Amount) -> int:
    """Return nanos an event, rounded half away from zero."""
    rounded = (2 * abs(total.nanos) + total.events) // (2 * total.events)
    return -rounded if total.nanos < 0 else rounded


def _windows(start_us: int, end_us: int, now_us: int) -> tuple[int, int]:
    now = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    first = start_us // WINDOW_US
    if keys.day_of(first) < keys.live_from_day(now):
        raise TaximeterError(
            "range_not_live", f"from: Redis holds the last {keys.LIVE_DAYS} days; ask `taximeter usage`"
        )
    end = min(end_us // WINDOW_US, first + keys.LIVE_DAYS * 2 * keys.WINDOWS_PER_DAY)
    return first, end


def _epoch(flat: list[bytes]) -> Iterable[tuple[Counter, Amount]]:
    for at in range(0, len(flat), 5):
        events, *limbs = (int(value) for value in flat[at + 1 : at + 5])
        yield keys.decode_counter_field(flat[at].decode()), Amount(join(*limbs), events)


def _totals(user_id: str, days: list[list[bytes]]) -> Iterable[tuple[Counter, Amount]]:
    for flat in days:
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            events, units = value.decode().split(" ")
            yield keys.decode_total_field(user_id, field.decode()), Amount(from_text(units), int(events))
