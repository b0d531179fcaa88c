"""Carries one shard's journal into its Redis: in order, several batches in flight, resumed from a position (rule 1).

Whatever goes wrong (a refusal, an error, a lost connection), the answer is the same: ask Redis for the position, check
that it is in this journal's own chain, and go on behind it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from sidecar.chain import ShardJournal
from sidecar.contract import keys, scripts
from sidecar.contract.codec import Batch, Position, decode_batch, decode_position
from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import Revision
from sidecar.contract.scripts import Shard, Step
from sidecar.journal import Journal
from sidecar.lane import Entry
from sidecar.link import LINK_ERRORS, Link, RedisServer

IN_FLIGHT_MAX: Final = 8
KEPT_EVENTS_MAX: Final = 50_000  # unconfirmed batches kept in memory; further ones are read from the journal again
DISK_BYTES: Final = 1024 * 1024  # of records that are read at once
FAILURES_MAX: Final = 3
# Errors without a class of their own in the client that say nothing of the batch: it is sent again until they pass.
NOT_OF_THE_BATCH: Final = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE"})
POLL_S: Final = 0.1
GRACE_S: Final = 1.0  # a shorter interruption leaves answers waiting; after it they say "journaled" at once
BACKOFF_MAX_S: Final = 1.0

_log = logging.getLogger(__name__)


class Sender:
    """One shard's way to Redis. `problem` says why nothing can be sent, where that needs somebody to act.

    `broken` says that Redis is at a position that is not on our chain: the journal has to be renumbered (rule 7).
    `paused` says that batches are held back; `behind`, that Redis has a backlog to take before what comes now.
    """

    def __init__(
        self,
        server: RedisServer,
        journal: Journal,
        shard_journal: ShardJournal,
        revision: Callable[[int], Awaitable[Revision]],
        dedupe_ttl_s: int,
    ) -> None:
        self.problem: TaximeterError | None = None
        self.broken = False
        self.streaming = False
        self.paused = False
        self.behind = False
        self.generation: str | None = None
        self.acked: Position | None = None
        self._refusing = False
        self._failures = (0, 0)  # a sequence, and how often the script failed on it
        self._time = asyncio.get_running_loop().time
        self._interrupted_at = self._heard_at = self._time()
        self._in_flight = 0
        self._server = server
        self._shard = shard_journal.shard
        self._journal = journal
        self._chain = shard_journal
        self._revision = revision
        self._dedupe_ttl_s = dedupe_ttl_s
        self._next = 0
        self._delivered = shard_journal.head.position.sequence  # what is behind it may still be on its way here
        self._kept: dict[int, Entry] = {}
        self._kept_events = 0
        self._disk: Iterator[Step] | None = None
        self._disk_next = 0
        self._unanswered: dict[int, Entry] = {}
        self._taken_events = 0
        self._paced: deque[tuple[int, Entry]] = deque()  # what `_taken_events` has to come to, and who waits for it
        self._news = asyncio.Event()

    def deliver(self, entry: Entry) -> None:
        """Take a batch that is on disk. Its parts wait for what Redis makes of it only if Redis is near.

        If it is away they are told at once. If it is behind they wait for their share of the way, so that whoever
        sends as fast as the answers come does not send faster than Redis catches up.
        """
        self._delivered = entry.step.after.sequence
        kept = self._kept_events + entry.events <= KEPT_EVENTS_MAX
        if kept:
            self._keep(entry)
        away = self.is_away
        self.behind = self.behind or away or not kept
        if away:
            self._settle_unanswered()
            _settle(entry)
        elif entry.parts and self.behind:
            # Redis takes three events for two that come, so what waits gets less at any load.
            due = max(self._taken_events, self._paced[-1][0] if self._paced else 0) + -(-entry.events * 3 // 2)
            self._paced.append((due, entry))
        elif entry.parts:
            self._unanswered[entry.step.after.sequence] = entry
        self._news.set()

    @property
    def flowing(self) -> bool:
        """Whether Redis takes what is sent, and gets it."""
        return self.streaming and not self._refusing and not self.paused

    @property
    def is_away(self) -> bool:
        """Whether Redis has taken nothing for a while, or is to get nothing: no answer waits for it."""
        if self.paused:
            return True
        now = self._time()
        if self.flowing:
            return self._in_flight > 0 and now - self._heard_at > GRACE_S
        return now - self._interrupted_at > GRACE_S

    def hold_back(self, *, paused: bool) -> None:
        """Send nothing from now on, or go on: Redis has no memory to spare."""
        self.paused = paused
        if paused:
            self._settle_unanswered()
        self._news.set()

    def abandon(self) -> None:
        """Tell everybody who waits that Redis has not said: another sender goes on, with the journal's new numbers."""
        self._settle_unanswered()

    @property
    def drained(self) -> bool:
        """Whether Redis has everything that the journal has."""
        return self.acked is not None and self.acked.sequence == self._chain.head.position.sequence

    async def run(self) -> None:
        """Send until cancelled."""
        backoff_s = POLL_S
        while True:
            try:
                link = await self._server.connect(keys.state(self._shard))
                try:
                    await self._stream(link)
                finally:
                    await link.close()
            except (*LINK_ERRORS, TaximeterError) as error:
                _log.warning("shard %d: the way to Redis broke: %s", self._shard, error or type(error).__name__)
            backoff_s = POLL_S if self.streaming else min(BACKOFF_MAX_S, backoff_s * 2)
            self._stop_streaming()
            await asyncio.sleep(backoff_s)

    def _interrupted(self, *, streaming: bool, refusing: bool) -> None:
        if self.streaming and not self._refusing:
            self._interrupted_at = self._heard_at if self._in_flight else self._time()
        self.streaming, self._refusing = streaming, refusing
        if self.is_away:
            self._settle_unanswered()

    def _stop_streaming(self) -> None:
        self._interrupted(streaming=False, refusing=self._refusing)
        self._in_flight = 0
        self.acked = None

    def _settle_unanswered(self) -> None:
        for entry in self._unanswered.values():
            _settle(entry)
        self._unanswered.clear()
        self._settle_paced(None)

    def _settle_paced(self, taken_events: int | None) -> None:
        """Tell those whose share of the way Redis has gone; all of them with None."""
        while self._paced and (taken_events is None or self._paced[0][0] <= taken_events):
            _settle(self._paced.popleft()[1])

    async def _stream(self, link: Link) -> None:
        while True:
            if await self._resume(link):
                await self._pump(link)
            else:
                self._stop_streaming()
                await asyncio.sleep(POLL_S)

    async def _resume(self, link: Link) -> bool:
        """Find where to go on. False where the shard is not open for this producer now."""
        manifest = self._journal.manifest
        if manifest is None or self.broken:
            return False
        fields = ("ledger", "shards", "generation", "fence", keys.position_field(manifest.producer))
        ledger, shards, generation, fence, position = await link.request("HMGET", keys.state(self._shard), *fields)
        if generation is None or fence is not None or position is None:
            return False
        if (ledger.decode(), int(shards)) != (manifest.ledger, manifest.shards):
            self.problem = TaximeterError("ledger_mismatch", f"Redis belongs to ledger {ledger.decode()} by now")
            return False
        try:
            found = decode_position(position)
        except ValueError:
            return False  # the flusher sees it too and opens a new generation
        if not await asyncio.to_thread(self._chain.holds, found):
            _log.warning("shard %d: Redis is at %s, which is not in this journal", self._shard, found.encode())
            self.broken = True
            return False
        for script in (scripts.script("ingest"), scripts.script("ingest_opaque")):
            await link.request("SCRIPT", "LOAD", script.text)
        self.problem = None
        self.generation = generation.decode()
        self._go_on_behind(found)
        return True

    def _go_on_behind(self, position: Position) -> None:
        self.acked = position
        self._next = position.sequence + 1
        self._in_flight = 0
        self.streaming = True
        # Known by its position alone: which of its events are duplicates is not known again.
        for sequence in [sequence for sequence in self._unanswered if sequence <= position.sequence]:
            _settle(self._unanswered.pop(sequence))
        for sequence in [sequence for sequence in self._kept if sequence <= position.sequence]:
            self._forget(sequence)
        if len(self._kept) < self._delivered - position.sequence:  # there is more on disk, before whoever waits
            self._settle_unanswered()
            self.behind = True
        self._catch_up(position.sequence)

    def _catch_up(self, sequence: int) -> None:
        if self.behind and self._delivered - sequence <= IN_FLIGHT_MAX:
            self.behind = False
            self._settle_paced(None)

    def _keep(self, entry: Entry) -> None:
        self._kept[entry.step.after.sequence] = entry
        self._kept_events += entry.events

    def _forget(self, sequence: int) -> None:
        entry = self._kept.pop(sequence, None)
        self._kept_events -= entry.events if entry is not None else 0

    async def _pump(self, link: Link) -> None:
        """Send batches until a reply says that the position has to be asked for again."""
        flight: asyncio.Queue[Entry | None] = asyncio.Queue()
        slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        refused = asyncio.Event()
        reader = asyncio.create_task(self._read(link, flight, slots, refused))
        try:
            while (entry := await self._take(refused)) is not None:
                await slots.acquire()
                if refused.is_set():
                    break
                await link.send(await self._command(entry))
                if not self._in_flight:
                    self._heard_at = self._time()
                self._in_flight += 1
                self._next += 1
                flight.put_nowait(entry)
            flight.put_nowait(None)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, link: Link, flight: asyncio.Queue[Entry | None], slots: asyncio.Semaphore, refused: asyncio.Event
    ) -> None:
        try:
            while (entry := await flight.get()) is not None:
                try:
                    reply = scripts.ingest_reply(await link.receive())
                except ResponseError as error:
                    reply = scripts.IngestReply("failed" if _is_of_the_batch(error) else "error", str(error))
                slots.release()
                self._heard_at = self._time()
                self._in_flight -= 1
                if reply.outcome == "applied":
                    self._applied(entry, reply)
                elif not refused.is_set():
                    await self._refused(entry, reply)
                    refused.set()
                    self._news.set()
        finally:
            refused.set()
            slots.release()
            self._news.set()

    def _applied(self, entry: Entry, reply: scripts.IngestReply) -> None:
        self.acked = entry.step.after
        self._refusing = False
        self._unanswered.pop(entry.step.after.sequence, None)
        self._forget(entry.step.after.sequence)
        self._taken_events += entry.events
        self._settle_paced(self._taken_events)
        self._catch_up(entry.step.after.sequence)
        if not entry.parts:
            return
        duplicates, conflicts = reply.taken()
        for first, part in entry.parts:
            end = first + len(part.events)
            part.settle(
                (
                    tuple(place - first for place in duplicates if first <= place < end),
                    tuple(place - first for place in conflicts if first <= place < end),
                )
            )

    async def _refused(self, entry: Entry, reply: scripts.IngestReply) -> None:
        if reply.outcome not in {"error", "failed", "full"}:
            return
        self._interrupted(streaming=self.streaming, refusing=True)
        if reply.outcome == "failed":
            sequence = entry.step.after.sequence
            self._failures = (sequence, self._failures[1] + 1 if self._failures[0] == sequence else 1)
            _log.error("shard %d: the script failed on batch %d: %s", self._shard, sequence, reply.detail)
        await asyncio.sleep(POLL_S)

    async def _command(self, entry: Entry) -> tuple[Any, ...]:
        manifest = self._journal.manifest
        if manifest is None or self.generation is None:
            raise TaximeterError("not_registered", "nothing can be sent before the journal is bound")
        shard = Shard(manifest.ledger, manifest.shards, self._shard, self.generation)
        if entry.batch is None or self._failures == (entry.step.after.sequence, FAILURES_MAX):
            # Rule 13: what the script can't digest goes on without it, and the flusher decides what it is.
            return scripts.ingest_opaque(shard, manifest.producer, entry.step, entry.events).evalsha()
        revision = await self._revision(entry.batch.revision)
        call = scripts.ingest(shard, manifest.producer, entry.step, entry.batch, revision, self._dedupe_ttl_s)
        return call.evalsha()

    async def _take(self, refused: asyncio.Event) -> Entry | None:
        """Return the next batch to send, from memory or from disk; None when the position has to be asked for."""
        while not refused.is_set():
            self._news.clear()
            if self.paused or self._next > self._delivered:
                await self._news.wait()
            elif self._next in self._kept:
                return self._kept[self._next]
            else:
                for entry in await asyncio.to_thread(self._read_disk, self._next):
                    if entry.step.after.sequence not in self._kept and entry.step.after.sequence <= self._delivered:
                        self._keep(entry)
        return None

    def _read_disk(self, sequence: int) -> list[Entry]:
        if self._disk is None or self._disk_next != sequence:
            self._disk = self._chain.steps_after(sequence - 1)
        entries: list[Entry] = []
        taken = 0
        for step in self._disk:
            entries.append(Entry(step, _decode(step)))
            taken += len(step.record)
            if taken >= DISK_BYTES:
                break
        else:
            self._disk = None
        self._disk_next = sequence + len(entries)
        return entries


def _decode(step: Step) -> Batch | None:
    """Return the batch of a record from disk, None when this program can't decode it."""
    try:
        return decode_batch(step.record)
    except (msgspec.DecodeError, TaximeterError) as error:
        _log.error("batch %d can't be decoded and goes on as it is: %s", step.after.sequence, error)
        return None


def _is_of_the_batch(error: ResponseError) -> bool:
    """Return whether the script failed on what the batch holds or meets, not on the state of the server."""
    return type(error) is ResponseError and str(error).partition(" ")[0] not in NOT_OF_THE_BATCH


def _settle(entry: Entry) -> None:
    for _, part in entry.parts:
        part.settle(None)
