"""The use case of the sidecar: take events, make them durable, say what became of them."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import Identity
from sidecar.contract.identity import claim_key, shard_of
from sidecar.contract.meters import Revision
from sidecar.deadline import Deadline
from sidecar.directory import Directory
from sidecar.errors import JournalError, Unavailable
from sidecar.journal import Journal
from sidecar.lane import Entry, Lane, Part
from sidecar.link import LINK_ERRORS, RedisServer
from sidecar.memory import MemoryWatch
from sidecar.sender import GRACE_S, Sender

STOP_S: Final = 10.0
STOP_POLL_S: Final = 0.01
LEAVE_S: Final = 2.0
CANCEL_S: Final = 0.5
MEND_POLL_S: Final = 0.5
MEMORY_HIGH: Final = 0.85

_log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """What became of a submission: the places in the request of duplicates and conflicts, known when `applied`.

    `reused`: its Idempotency-Key was used before with another body, and nothing was applied.
    """

    applied: bool
    duplicates: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()
    reused: bool = False


def wall_us() -> int:
    """Return this machine's time, microseconds since the epoch."""
    return time.time_ns() // 1000


class Ingest:
    """Journal, lanes and senders of a sidecar. `start` it in a running loop, `stop` it to leave nothing half done.

    `wall_us` is the clock that gives events their time.
    """

    def __init__(
        self,
        server: RedisServer,
        journal: Journal,
        *,
        ack_deadline_s: float,
        dedupe_ttl_s: int,
        hold_s: float,
        watermark_interval_s: float,
        redis_memory_high: float = MEMORY_HIGH,
        wall_us: Callable[[], int] = wall_us,
    ) -> None:
        self.journal = journal
        self.wall_us = wall_us
        self.redis = server.clients()
        self.memory = MemoryWatch(redis_memory_high, self._hold_back)
        self.directory = Directory(
            self.redis, journal, hold_s=hold_s, wall_us=wall_us, bound=self._open_lanes, memory=self.memory
        )
        self.lanes: tuple[Lane, ...] = ()
        self.senders: tuple[Sender, ...] = ()
        self._server = server
        self._deadline = Deadline(ack_deadline_s)
        self._dedupe_ttl_s = dedupe_ttl_s
        self._watermark_interval_s = watermark_interval_s
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="journal")
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: list[asyncio.Task[None]] = []
        self._stopping = False
        self._tokens = itertools.count()
        self.fault: TaximeterError | None = None  # why the process has to be started anew
        self.failed = asyncio.Event()  # set with it, to be waited for
        self._assigned: dict[int, int] = {}  # submissions under way -> the time that their events were given

    @property
    def revision(self) -> Revision:
        """The meters that new batches are counted under."""
        return self.directory.revision

    @property
    def event_floor_us(self) -> int:
        """Events at or before this time are refused as `too_old` (rule 15), microseconds since the epoch."""
        return self.directory.event_floor_us

    def now_us(self) -> int:
        """Return the time for events that have none, microseconds since the epoch.

        Never before a watermark that went out (rule 10), so no `await` may stand between this and `submit`.
        """
        now_us = self.wall_us()
        for lane in self.lanes:  # for every request: a generator costs more than it does
            now_us = max(now_us, lane.watermark_us)
        return now_us

    def _watermark_us(self) -> int:
        """Return the time before which no event will be given a time any more."""
        return min(self.now_us(), *self._assigned.values(), 1 << 62)

    def start(self) -> None:
        """Begin to work."""
        self._tasks += [self._spawn(self.directory.run()), self._spawn(self._tick()), self._spawn(self._mend())]
        if self.journal.shards:
            self._open_lanes()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A loop of ours never ends by itself: if one does, nothing more is accepted and the log says why."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("a loop of the sidecar failed", exc_info=error)
            self._fail(TaximeterError("internal", f"a loop of the sidecar failed: {error}"))

    def _fail(self, fault: TaximeterError) -> None:
        self.fault = fault
        self.failed.set()

    def _open_lanes(self) -> None:
        self.lanes = tuple(Lane(shard, self._executor) for shard in self.journal.shards)
        self._open_senders()
        for lane in self.lanes:
            writing = lane.write(lambda: self.revision.number, self._deliver, self._watermark_us)
            self._tasks.append(self._spawn(writing))

    def _open_senders(self) -> None:
        self.senders = tuple(
            Sender(self._server, self.journal, shard, self.directory.revision_numbered, self._dedupe_ttl_s)
            for shard in self.journal.shards
        )
        self._hold_back()
        self._sending = [self._spawn(sender.run()) for sender in self.senders]

    def _hold_back(self) -> None:
        for shard, sender in enumerate(self.senders):
            sender.hold_back(paused=shard in self.memory.paused)

    def _deliver(self, shard: int, entry: Entry) -> None:
        self.senders[shard].deliver(entry)

    async def _mend(self) -> None:
        """Give the journal new numbers when its own can't be gone on with (rule 7)."""
        while True:
            await asyncio.sleep(MEND_POLL_S)
            if any(sender.broken for sender in self.senders) or any(shard.failed for shard in self.journal.shards):
                await self._renumber()

    async def _renumber(self) -> None:
        async with AsyncExitStack() as stack:
            for still in (self.directory.still, *(lane.still for lane in self.lanes)):
                await stack.enter_async_context(still)
            await _end(self._sending)
            for sender in self.senders:
                sender.abandon()
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self.journal.renumber)
            except OSError as error:
                _log.error("the journal can't go on under another id now: %s; trying again", error.strerror or error)
            except JournalError as error:
                self._fail(error)
            self._open_senders()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._watermark_interval_s)
            if self.unready() is None:
                for lane in self.lanes:
                    lane.want_watermark(self._watermark_interval_s)

    def unready(self) -> TaximeterError | None:
        """Return why no event can be accepted now, or None."""
        if self._stopping:
            return Unavailable("stopping", "the sidecar is stopping")
        problem = self.fault or self.directory.problem
        for sender in self.senders:
            problem = problem or sender.problem
        if problem is not None:
            return problem
        if self.journal.manifest is None or not self.journal.manifest.registered:
            return Unavailable(
                "not_registered", "this sidecar waits for its registration: Redis and a flusher have to run"
            )
        for shard in self.journal.shards:
            if shard.failed:
                return Unavailable("journal_failed", "a sync of the journal failed and is being mended; try again")
        return self.journal.full

    async def submit(
        self,
        shares: Mapping[int, Columns],
        key: str | None = None,
        digest: bytes | None = None,
        assigned_us: int | None = None,
    ) -> Receipt:
        """Make the events of a request, by shard, durable and say what became of them.

        With an Idempotency-Key give `key` and the `digest` of the body. `assigned_us` is what `now_us` said when events
        without a time were given one. Raises Unavailable when they are not durable.
        """
        problem = self.unready()
        if problem is not None:
            raise Unavailable(problem.code, problem.message)
        assigned_us = self.now_us() if assigned_us is None else assigned_us
        token = next(self._tokens)
        self._assigned[token] = assigned_us
        try:
            # With one shard the claim in the batch says it. With several, the next body may go to others.
            if key is not None and digest is not None and len(self.lanes) > 1 and await self._reused(key, digest):
                return Receipt(applied=True, reused=True)
            parts = self._put(shares, digest, assigned_us)
        finally:
            del self._assigned[token]
        if len(parts) == 1:
            await parts[0].journaled
        else:
            await asyncio.gather(*(part.journaled for part in parts))
        return await self._receipt(parts, keyed=key is not None)

    def _put(self, shares: Mapping[int, Columns], digest: bytes | None, assigned_us: int) -> list[Part]:
        for shard, events in shares.items():
            if not self.lanes[shard].takes(len(events)):
                raise Unavailable("overloaded", "too many events wait for the journal; try again")
        parts: list[Part] = []
        for shard, events in shares.items():
            part = Part(events, digest, assigned_us)
            self.lanes[shard].put(part)
            parts.append(part)
        return parts

    async def _reused(self, key: str, digest: bytes) -> bool:
        """Ask the key's home shard whether it was used with another body; False while Redis can't say."""
        home = shard_of(key, len(self.lanes))
        generation = self.senders[home].generation
        if generation is None or self.senders[home].is_away:
            return False
        name = keys.identity_prefix(home, generation) + claim_key(key, -1)
        try:
            async with asyncio.timeout(GRACE_S):
                redis = await self.redis.at(name)
                old = await redis.set(name, digest, nx=True, get=True, ex=self._dedupe_ttl_s)
        except LINK_ERRORS:
            return False
        return old is not None and old != digest

    async def _receipt(self, parts: Sequence[Part], *, keyed: bool) -> Receipt:
        for part in parts:
            if not part.applied.done():
                self._deadline.put(part.applied)
        duplicates: list[int] = []
        conflicts: list[int] = []
        reused = False
        for part in parts:
            found = await part.applied
            if found is None:
                return Receipt(applied=False)
            indices, identities = part.events.indices, part.events.identities
            duplicates += [indices[place] for place in found[0]]
            conflicts += [indices[place] for place in found[1]]
            reused = reused or (keyed and any(identities[place] == Identity.INDEXED for place in found[1]))
        reused = reused or (keyed and len(conflicts) == sum(len(part.events) for part in parts))
        return Receipt(
            applied=True, duplicates=tuple(sorted(duplicates)), conflicts=tuple(sorted(conflicts)), reused=reused
        )

    async def stop(self, *, leave: bool = False) -> None:
        """Accept nothing more, journal what waits, give Redis what it takes in time, and close.

        `leave`: ask to be retired if Postgres has everything (rule 14), so that no period waits for us.
        """
        self._stopping = True
        for _ in range(int(STOP_S / STOP_POLL_S)):
            if all(lane.idle for lane in self.lanes) and all(s.drained or not s.flowing for s in self.senders):
                break
            await asyncio.sleep(STOP_POLL_S)
        await _end(self._tasks)
        if leave:
            await self.directory.leave(asyncio.get_running_loop().time() + LEAVE_S)
        await _end(self._sending)
        self._executor.shutdown(wait=True)
        await self.redis.aclose()
        self.journal.close()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: the Redis client may take a cancellation for a timeout of its own."""
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=CANCEL_S)
