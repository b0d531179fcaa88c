"""The way of one shard's events: gathered into a batch, journaled, sent (design 2.1).

While one batch is being synced, arrivals gather into the next (group commit), so the cost of a sync is shared.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from sidecar.chain import ShardJournal
from sidecar.contract.codec import Batch, Claim, decode_batch, encode_batch
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import EVENTS_PER_REQUEST_MAX
from sidecar.contract.scripts import Step
from sidecar.errors import Unavailable

BATCH_EVENTS_MAX: Final = 4_000  # a batch blocks Redis for a few milliseconds; one request may be larger
WAITING_EVENTS_MAX: Final = 200_000
GATHER_EVENTS_MAX: Final = 1_500  # what comes behind them is the next batch's

Places = tuple[tuple[int, ...], tuple[int, ...]]


class Part:
    """What one request brings to one shard. Its futures tell what became of it.

    `journaled` is done when it is on disk, or has the error. `applied` gives the places, in `events`, of duplicates and
    conflicts; or None when Redis has not said: the events are on disk and will be applied.
    """

    def __init__(self, events: Columns, digest: bytes | None, accepted_at_us: int) -> None:
        loop = asyncio.get_running_loop()
        self.events = events
        self.digest = digest
        self.accepted_at_us = accepted_at_us
        self.journaled: asyncio.Future[None] = loop.create_future()
        self.applied: asyncio.Future[Places | None] = loop.create_future()

    def settle(self, places: Places | None) -> None:
        """Say what Redis made of it; later words change nothing."""
        if not self.applied.done():
            self.applied.set_result(places)

    def fail(self, error: Exception) -> None:
        """Say that it could not be journaled."""
        if not self.journaled.done():
            self.journaled.set_exception(error)


class Entry(NamedTuple):
    """A batch on disk, ready to be sent, and the parts that wait for it with their first place in it.

    `batch` is None for a record that this program can't decode: it goes on opaque (rule 13).
    """

    step: Step
    batch: Batch | None
    parts: Sequence[tuple[int, Part]] = ()

    @property
    def events(self) -> int:
        """How many events it has, as far as is known."""
        return self.batch.count if self.batch is not None else 0


class Lane:
    """One shard's queue and its writer. `watermark_us` is the last watermark that is in the journal.

    Whoever holds `still` knows that nothing is being journaled.
    """

    def __init__(self, journal: ShardJournal, executor: Executor) -> None:
        self.journal = journal
        self.shard = journal.shard
        self.waiting_events = 0
        self.watermark_us = _last_watermark_us(journal)
        self.still = asyncio.Lock()
        self._executor = executor
        self._waiting: deque[Part] = deque()
        self._arrived = asyncio.Event()
        self._watermark_due = False
        self._busy = False
        self._written_at = 0.0

    def takes(self, events: int) -> bool:
        """Return whether so many events may still be queued."""
        return self.waiting_events + events <= WAITING_EVENTS_MAX

    def put(self, part: Part) -> None:
        """Queue a part."""
        self._waiting.append(part)
        self.waiting_events += len(part.events)
        self._arrived.set()

    def want_watermark(self, idle_s: float) -> None:
        """Journal an empty batch that carries a watermark, unless a batch went out within `idle_s` (rule 10)."""
        if asyncio.get_running_loop().time() - self._written_at >= idle_s:
            self._watermark_due = True
            self._arrived.set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be journaled."""
        return not self._waiting and not self._busy

    async def write(
        self, revision: Callable[[], int], deliver: Callable[[int, Entry], None], clock_us: Callable[[], int]
    ) -> None:
        """Journal what arrives, batch by batch, until cancelled.

        `revision` gives the number of the meters that a batch is counted under, `clock_us` the time now; `deliver`
        gets every batch, with the shard, as soon as it is on disk.
        """
        parts: list[Part] = []
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting or self._watermark_due:
                    await self._gather()
                    async with self.still:
                        parts = self._take()
                        await self._journal(parts, self._batch(parts, revision(), clock_us()), deliver)
                    parts = []
        finally:  # nobody journals what is left: whoever waits for it is told so
            for part in (*parts, *self._waiting):
                part.fail(Unavailable("stopping", "the sidecar stopped before these events were journaled"))

    async def _gather(self) -> None:
        """Wait while every turn of the event loop brings more: small requests that are being read share a sync."""
        gathered = -1
        while gathered < self.waiting_events < GATHER_EVENTS_MAX:
            gathered = self.waiting_events
            await asyncio.sleep(0)

    async def _journal(self, parts: Sequence[Part], batch: Batch, deliver: Callable[[int, Entry], None]) -> None:
        record = encode_batch(batch)
        loop = asyncio.get_running_loop()
        self._busy = True
        try:
            step = await loop.run_in_executor(self._executor, self.journal.append, record, batch.count, batch.nanos)
        except Unavailable as error:
            for part in parts:
                part.fail(error)
        else:
            self._written_at = loop.time()
            deliver(self.shard, Entry(step, batch, _placed(parts)))
            for part in parts:
                if not part.journaled.done():
                    part.journaled.set_result(None)
        finally:
            self._busy = False

    def _take(self) -> list[Part]:
        """Take parts, whole ones, for the next batch."""
        self._watermark_due = False
        parts: list[Part] = []
        events = 0
        while self._waiting and (not parts or events + len(self._waiting[0].events) <= BATCH_EVENTS_MAX):
            part = self._waiting.popleft()
            events += len(part.events)
            parts.append(part)
        self.waiting_events -= events
        return parts

    def _batch(self, parts: Sequence[Part], revision: int, now_us: int) -> Batch:
        # Rule 10: parts that still wait were given times before now; the watermark stays at the oldest of those.
        oldest_us = min((part.accepted_at_us for part in self._waiting), default=now_us)
        self.watermark_us = max(self.watermark_us, min(now_us, oldest_us))
        placed = _placed(parts)
        claims = [
            Claim(part.events.claim_key, part.digest, first, len(part.events))
            for first, part in placed
            if part.events.claim_key is not None and part.digest is not None
        ]
        events = parts[0].events if len(parts) == 1 else Columns()
        if len(parts) > 1:
            for part in parts:
                events.extend(part.events)
        return events.batch(self.shard, revision, now_us, self.watermark_us, claims)


def _last_watermark_us(journal: ShardJournal) -> int:
    """Return the watermark of the last record, so that a clock that was set back meanwhile does not go behind it."""
    for step in journal.steps_after(journal.head.position.sequence - 1):
        with suppress(msgspec.DecodeError, TaximeterError):
            return decode_batch(step.record).watermark_us
    return 0


def _placed(parts: Sequence[Part]) -> list[tuple[int, Part]]:
    placed: list[tuple[int, Part]] = []
    first = 0
    for part in parts:
        placed.append((first, part))
        first += len(part.events)
    return placed


if EVENTS_PER_REQUEST_MAX + BATCH_EVENTS_MAX >= 1 << 16:
    raise ValueError("places in a batch are 2 bytes wide in the ingest script")
