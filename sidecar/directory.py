"""What a sidecar learns and tells through Redis beside events: its ledger, the meters, its registration, the proof.

Polled on a connection of its own. Without Redis the sidecar goes on with what it knew last.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec
from redis.exceptions import ResponseError

from sidecar.chain import ShardJournal
from sidecar.contract import keys
from sidecar.contract.asking import Asking
from sidecar.contract.codec import decode_batch, decode_position, numbers
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Identity
from sidecar.contract.meters import Revision, decode_revision
from sidecar.contract.proof import ANSWER_TTL_S, Answer, Question, ShardAnswer
from sidecar.journal import Journal
from sidecar.link import LINK_ERRORS, Clients
from sidecar.manifest import Manifest
from sidecar.memory import MemoryWatch, Reading, memory_ratio

POLL_S: Final = 0.5
LEAVE_POLL_S: Final = 0.05
SKEW_MAX_S: Final = 1.0
_METERS_FILE: Final = "meters.json"

_log = logging.getLogger(__name__)


class _Meters(msgspec.Struct, forbid_unknown_fields=True):
    revision: int
    meters: str


class Directory:
    """Keeps `revision`, the meters in force, and the journal's ties to its ledger. `bound` is called after binding.

    `memory` is told of Redis's memory and of what Redis has of ours that Postgres lacks.

    Whoever holds `still` knows that it does not read the journal.
    """

    def __init__(
        self,
        redis: Clients,
        journal: Journal,
        *,
        hold_s: float,
        wall_us: Callable[[], int],
        bound: Callable[[], None],
        memory: MemoryWatch,
    ) -> None:
        self.still = asyncio.Lock()
        self.event_floor_us = -(1 << 62)
        self.problem: TaximeterError | None = None
        self.clock_skew_s = 0.0
        self._redis = redis
        self._journal = journal
        self._hold_s = hold_s
        self._wall_us = wall_us
        self._began_us = wall_us()  # no event was given an earlier time since, but those in the journal (rule 10)
        self._bound = bound
        self._memory = memory
        self._memory_denied = False
        self._path: Path = journal.directory / _METERS_FILE
        self._revisions: dict[int, Revision] = {0: Revision(0, ())}
        self._answered = ""
        self._undrained: set[int] = set()  # shards of which Redis has what Postgres lacks
        self.revision = self._load()

    def _load(self) -> Revision:
        try:
            stored = msgspec.json.decode(self._journal.disk.read(self._path), type=_Meters)
        except FileNotFoundError:
            return self._revisions[0]
        revision = decode_revision(stored.revision, stored.meters)
        self._revisions[revision.number] = revision
        return revision

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self._poll()
            except LINK_ERRORS as error:
                _log.debug("Redis does not answer: %s", error)
            except TaximeterError as error:
                self.problem = error
            await asyncio.sleep(POLL_S)

    async def _poll(self) -> None:
        ledger, shards, revision, floor = await self.fields(
            keys.LEDGER, "ledger", "shards", "revision", "event_floor_us"
        )
        if ledger is None or shards is None:
            return
        if self._journal.manifest is None:
            await asyncio.to_thread(self._journal.bind, ledger.decode(), int(shards))
            self._bound()
        self._journal.bind(ledger.decode(), int(shards))
        self.problem = None
        self.event_floor_us = max(self.event_floor_us, int(floor or self.event_floor_us))  # never back with Redis
        if revision is not None and int(revision) != self.revision.number:
            await self._adopt(int(revision))
        await self._compare_clocks()
        async with self.still:
            await self._register_and_confirm()
            await self._answer_proof()

    async def _compare_clocks(self) -> None:
        """Alarm a clock that is wrong: it decides in which period an event without a time is billed (rule 10)."""
        redis = await self._redis.at(keys.LEDGER)
        before_us = self._wall_us()
        seconds, microseconds = await redis.time()
        skew_s = ((before_us + self._wall_us()) / 2 - microseconds) / 1_000_000 - seconds
        if abs(skew_s) > SKEW_MAX_S >= abs(self.clock_skew_s):
            _log.error("this machine's clock is %.1f s ahead of Redis's; set both right, times are wrong", skew_s)
        self.clock_skew_s = skew_s

    async def fields(self, key: str, *fields: str) -> list[bytes | None]:
        """Return fields of a hash. Raises one of LINK_ERRORS."""
        redis = await self._redis.at(key)
        return cast("list[bytes | None]", await redis.hmget(key, list(fields)))

    async def _adopt(self, number: int) -> None:
        """Count new batches under the meters with this number, also after a restart without Redis."""
        revision = await self.revision_numbered(number)
        stored = _Meters(number, msgspec.json.encode(list(revision.meters)).decode())
        await asyncio.to_thread(self._journal.disk.replace, self._path, msgspec.json.encode(stored))
        self.revision = revision

    async def revision_numbered(self, number: int) -> Revision:
        """Return the meters that an older batch was counted under.

        Raises TaximeterError `ledger_mismatch` while Redis does not have them: the flusher writes them.
        """
        if number not in self._revisions:
            (meters,) = await self.fields(keys.METERS, str(number))
            if meters is None:
                raise TaximeterError("ledger_mismatch", f"Redis does not have revision {number} of the meters yet")
            self._revisions[number] = decode_revision(number, meters)
        return self._revisions[number]

    async def _register_and_confirm(self) -> None:
        manifest = self._journal.manifest
        if manifest is None:
            return
        # In this order: a flusher that retires us takes the positions away first, and answers after that (rule 14).
        (asked,) = await self.fields(keys.ASKING, manifest.producer)
        known = await self._confirm(manifest.producer)
        await self._watch_memory()
        if known and (manifest.registered or asked is None):
            await asyncio.to_thread(self._journal.note_registered)
        else:
            await self._ask(manifest, asked)

    async def leave(self, deadline_s: float) -> None:
        """Ask to be retired, if Postgres has all that was journaled by `deadline_s`, in the loop's time (rule 14)."""
        clock = asyncio.get_running_loop().time
        try:
            while (manifest := self._journal.manifest) is not None and manifest.registered:
                if not await self._confirm(manifest.producer):
                    return
                if all(shard.committed == shard.head.position for shard in self._journal.shards):
                    await asyncio.to_thread(self._journal.note_leaving)
                    await self._ask(manifest, None, leaving=True)
                    return
                if clock() > deadline_s:
                    return
                await asyncio.sleep(LEAVE_POLL_S)
        except (*LINK_ERRORS, ValueError) as error:
            _log.info("not retired: %s", error)  # it stays registered, and goes on where it is when it starts again

    async def _confirm(self, producer: str) -> bool:
        """Hear how far Postgres is; return whether all shards know the producer."""
        fields = (keys.position_field(producer), keys.committed_field(producer))
        clock = asyncio.get_running_loop().time
        known = True
        self._undrained.clear()
        for shard in self._journal.shards:
            position, committed = await self.fields(keys.state(shard.shard), *fields)
            known = known and position is not None
            if position is not None and position != committed:
                self._undrained.add(shard.shard)
            if committed is not None:
                # The time is that of the answer: it was on its way when Postgres may not have had it yet (rule 12).
                await asyncio.to_thread(shard.confirm, decode_position(committed), clock(), self._hold_s)
        return known

    async def _watch_memory(self) -> None:
        """Read how full Redis is, each server of a cluster apart.

        Who may not ask does without: then it is full some day, and refuses batches.
        """
        shards = {keys.state(shard.shard): shard.shard for shard in self._journal.shards}
        readings: list[Reading] = []
        for redis, mine in await self._redis.homes(list(shards)):
            there = frozenset(shards[key] for key in mine)
            try:
                ratio = memory_ratio(await redis.info("memory"))
            except ResponseError as error:
                if not self._memory_denied:
                    _log.warning("Redis does not say how much memory it has (+info of its ACL): %s", error)
                self._memory_denied, ratio = True, 0.0
            readings.append(Reading(ratio, there, undrained=not there.isdisjoint(self._undrained)))
        self._memory.heard(readings)

    async def _ask(self, manifest: Manifest, asked: bytes | None, *, leaving: bool = False) -> None:
        since_us = await asyncio.to_thread(_assigned_since_us, self._journal.shards)
        if manifest.registered or manifest.predecessors:  # events may come meanwhile, or wait for their journal
            since_us = min(self._began_us, self._wall_us(), since_us or self._began_us)
        host = socket.gethostname()[:256]
        said = Asking(host, manifest.ledger, manifest.predecessors, manifest.missing, since_us, leaving)
        text = msgspec.json.encode(said)
        if text != asked:
            redis = await self._redis.at(keys.ASKING)
            await cast("asyncio.Future[int]", redis.hset(keys.ASKING, manifest.producer, text))

    async def _answer_proof(self) -> None:
        """Tell `taximeter verify` what this journal holds, read again from disk (rule 11)."""
        asked = await (await self._redis.at(keys.PROOF_QUESTION)).get(keys.PROOF_QUESTION)
        manifest = self._journal.manifest
        if asked is None or manifest is None:
            return
        try:
            question = msgspec.json.decode(asked, type=Question)
        except msgspec.DecodeError as error:
            _log.warning("the question of a proof can't be read: %s", error)
            return
        if question.id == self._answered:
            return
        shards = [
            await asyncio.to_thread(_shard_answer, shard, question.positions.get(f"{manifest.producer}/{shard.shard}"))
            for shard in self._journal.shards
        ]
        key = keys.proof_answers(question.id)
        answer = msgspec.json.encode(Answer(manifest.producer, shards))
        redis = await self._redis.at(key)
        await cast("asyncio.Future[int]", redis.hset(key, manifest.producer, answer))
        await redis.expire(key, ANSWER_TTL_S)
        self._answered = question.id


def _shard_answer(shard: ShardJournal, asked: str | None) -> ShardAnswer:
    try:
        head = shard.verify()
        at = shard.start_at(decode_position(asked).sequence) if asked else shard.first
    except TaximeterError as error:
        return ShardAnswer(shard.shard, error=error.message)
    if at is None:
        return ShardAnswer(shard.shard, error=f"the journal does not reach position {asked}")
    places = (at.position.encode(), at.running.encode(), head.position.encode(), head.running.encode())
    return ShardAnswer(shard.shard, *places)


def _assigned_since_us(shards: Iterable[ShardJournal]) -> int | None:
    """Return the earliest time that an event in the journals may have been given, None where there is none (rule 10).

    The first record of a chain is the oldest; every later time is at or after its watermark.
    """
    found: list[int] = []
    for shard in shards:
        for step in shard.steps_after(shard.first.position.sequence):
            with suppress(msgspec.DecodeError, TaximeterError):
                batch = decode_batch(step.record)
                found += [batch.watermark_us, batch.accepted_at_us]
                times_us = zip(batch.identities, numbers("q", batch.times_us), strict=True)
                found += [time_us for identity, time_us in times_us if identity != Identity.TIMED]
            break
    return min(found, default=None)
