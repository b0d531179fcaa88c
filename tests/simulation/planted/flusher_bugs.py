"""Bugs planted in what the flusher does, and in its scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

from flusher import drain, generation, registrar, source, voids
from flusher.entry import Entry, Verdict
from flusher.insert import Inserter
from flusher.law import Outcome, Tally
from flusher.ledger import Advance, Ledger, Mark
from sidecar.contract import identity, scripts
from sidecar.contract.codec import Position
from sidecar.contract.meters import Amount, Counter
from tests.simulation.database import Transaction
from tests.simulation.ledger import MemoryLedger
from tests.simulation.planted.table import bug, changed_script

# -- rule 2: contiguity


@bug("2", "redis", "redis_evicted", "redis_down")
def an_entry_that_does_not_follow_is_taken() -> Iterator[None]:
    """The position jumps over what is missing."""

    def judge(entry: Entry, committed: Position | None) -> Verdict:
        if committed is None:
            return Verdict.LEAVE_OUT
        return Verdict.SKIP if entry.after.sequence <= committed.sequence else Verdict.TAKE

    with patch.object(drain, "judge", judge):
        yield


@bug("2", "redis", "redis_evicted", "redis_down")
def what_is_left_out_forces_no_new_generation() -> Iterator[None]:
    """The entry is passed over, and nobody sends it again."""
    hear = drain.Drain._hear

    def forgetful(self: Any, shard: int, epoch: Any, entry: Any, taken: Any) -> None:
        hear(self, shard, epoch, entry, taken)
        epoch.broken = False

    with patch.object(drain.Drain, "_hear", forgetful):
        yield


@bug("2", "redis", "postgres_flaky", "postgres_terminated")
def positions_advance_outside_the_transaction() -> Iterator[None]:
    """They stay when the transaction is undone."""
    advance = MemoryLedger.advance

    def at_once(self: MemoryLedger, shard: int, advances: Sequence[Advance]) -> None:
        advance(self, shard, advances)
        inside = self._session.transaction
        if inside is not None:
            apart = Transaction()
            for place in [place for place in inside.writes if place[0] == "positions"]:
                apart.writes[place] = inside.writes.pop(place)
            tables = self._database.tables
            for (table, key), row in apart.writes.items():
                tables[table][key] = row

    with patch.object(MemoryLedger, "advance", at_once):
        yield


# -- rule 3: one sealed epoch, named by a random token


@bug("3", "redis", "redis_back", "redis_flaky", "flusher_stopped_at_call")
def epochs_are_numbered() -> Iterator[None]:
    """A Redis that is back in time gives an old name to new events."""

    def numbered(self: source.Source, shard: int, name: str) -> source.Sealed | None:
        token = int(self.state(shard).token or "0", 16) + 1
        reply = self.run(scripts.seal(shard, name, f"{token:016x}"))
        if reply[0] == b"generation":
            raise source.EpochChanged
        return None if reply[0] == b"empty" else source.Sealed(reply[1].decode(), reply[2].decode(), int(reply[3]))

    with patch.object(source.Source, "seal", numbered):
        yield


@bug("2, 3", "redis", "redis_back")
def an_epoch_is_drained_whatever_it_follows() -> Iterator[None]:
    """Also one that was committed, and whose token was followed by another one."""
    commit = drain.Drain.drain

    def anything(self: Any, shard: int, name: str, sealed: Any, *, remains: bool = False, wait: bool = False) -> Any:
        return commit(self, shard, name, sealed, remains=True, wait=wait)

    def again(entry: Entry, committed: Position | None) -> Verdict:
        return Verdict.TAKE  # the other rule that would save it is bent too

    with patch.object(drain.Drain, "drain", anything), patch.object(drain, "judge", again):
        yield


@bug("3", "redis", "flusher_added", "redis_slow", "flusher_stopped_at_call")
def the_shard_is_not_locked() -> Iterator[None]:
    """Two flushers commit the same epoch."""

    def glance(self: MemoryLedger, shard: int, *, wait: bool) -> str | None:
        return self.token(shard)

    with patch.object(MemoryLedger, "lock", glance):
        yield


# -- rule 4: publishing


@bug("4", "machine", "flusher_stopped_at_call", "flusher_added")
def publishing_asks_for_no_token() -> Iterator[None]:
    """A flusher that was stopped for a while publishes over the next epoch."""
    with changed_script("publish", (b"if state[2] ~= ARGV[2] then return {'stale'} end", b"")):
        yield


@bug("4", "machine", "postgres_commits_lost", "postgres_flaky", "flusher_killed_at_call")
def an_epoch_is_published_before_it_is_committed() -> Iterator[None]:
    """A commit that fails leaves Redis without what Postgres lacks."""
    finish = drain.Drain._finish

    def early(self: Any, shard: int, sealed: Any, epoch: Any, counters: Any) -> Any:
        done = finish(self, shard, sealed, epoch, counters)
        state = self._source.state(shard)
        committed = [(producer, mark.position) for producer, mark in self._ledger.marks(shard).items()]
        self._source.publish(shard, state.generation or "", sealed.token, committed, [])
        return done

    with patch.object(drain.Drain, "_finish", early):
        yield


@bug("4", "redis", "sidecar_killed")
def totals_are_what_the_epoch_added() -> Iterator[None]:
    """Increments in the place of absolute figures."""
    commit = drain.Drain._commit

    def noted(self: Any, shard: int, name: str, sealed: Any, counters: Any) -> Any:
        self.added = counters
        return commit(self, shard, name, sealed, counters)

    def added(self: Any, counters: Sequence[Counter]) -> dict[Counter, Amount]:
        return {counter: amount for counter, amount in getattr(self, "added", {}).items() if counter in set(counters)}

    with patch.object(drain.Drain, "_commit", noted), patch.object(drain.Drain, "_totals", added):
        yield


@bug("4, 12", "redis", "postgres_down", "postgres_flaky")
def positions_are_copied_when_the_epoch_is_sealed() -> Iterator[None]:
    """What Redis has applied is called committed."""
    begin = b"redis.call('HSET', KEYS[1], 'sealed'"
    copy = b"""for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'p:' then
    redis.call('HSET', KEYS[1], 'c:' .. string.sub(field, 3), redis.call('HGET', KEYS[1], field))
  end
end
"""
    with changed_script("seal", (begin, copy + begin)):
        yield


# -- rule 5: generations


@bug("5", "redis", "redis_back", "redis_slow")
def a_generation_is_swapped_unfenced() -> Iterator[None]:
    """Batches are applied between its drain and the swap."""
    with (
        patch.object(source.Source, "fence", lambda self, shard, name: None),
        changed_script("swap", (b" or (state[1] and not state[2])", b"")),
    ):
        yield


@bug("5", "machine", "flusher_killed_at_call", "redis_evicted", "redis_back")
def a_generation_is_opened_without_draining_what_remains() -> Iterator[None]:
    """What only Redis has is gone with the old one."""
    with patch.object(generation.Generations, "_drain_remains", lambda self, *_, **__: True):
        yield


@bug("5", "redis", "redis_back", "redis_evicted")
def a_generation_begins_where_redis_was() -> Iterator[None]:
    """Not where Postgres is."""
    stage = source.Source.stage_state

    def stage_redis(self: Any, shard: int, name: str, ledger: str, shards: int, positions: Any, **more: Any) -> None:
        there = self.state(shard).positions
        positions = [(producer, there.get(producer, position)) for producer, position in positions]
        stage(self, shard, name, ledger, shards, positions, **more)

    with patch.object(source.Source, "stage_state", stage_redis):
        yield


@bug("5", "redis", "sidecar_killed")
def the_token_of_a_new_generation_is_not_committed() -> Iterator[None]:
    """It never matches Postgres, so it is replaced for ever."""

    class Forgetful:
        def __init__(self, ledger: MemoryLedger) -> None:
            self._ledger = ledger

        def __getattr__(self, name: str) -> Any:
            return getattr(self._ledger, name)

        def store_token(self, shard: int, token: str) -> None:
            """Later, perhaps."""

    made = generation.Generations.__init__

    def forgetful(self: Any, origin: Any, ledger: Any, *more: Any) -> None:
        made(self, origin, cast("Ledger", Forgetful(ledger)), *more)

    with patch.object(generation.Generations, "__init__", forgetful):
        yield


# -- rule 6: registration


@bug("6", "redis", "flusher_killed_at_call", "flusher_killed", "postgres_flaky")
def redis_knows_a_producer_before_postgres_does() -> Iterator[None]:
    """A flusher that dies between the two leaves a sidecar that nobody waits for."""
    register = registrar.Registrar._register

    def eager(self: Any, producer: str, asking: Any) -> None:
        for shard in range(self._row.shards):
            zero = Position(0, identity.chain_start(self._row.id, producer, shard))
            name = self._source.state(shard).generation
            if name is not None:
                self._source.register(shard, name, producer, zero)
        self._source.answered(producer)
        register(self, producer, asking)

    with patch.object(registrar.Registrar, "_register", eager):
        yield


# -- rule 9: two paths


@bug("9", "redis", "redis_evicted", "redis_junk")
def counters_are_not_compared_with_the_stream() -> Iterator[None]:
    """A counter that was lost is nobody's business."""
    with patch.object(drain, "_differences", lambda counted, streamed: []):
        yield


# -- rule 11: the running count


@bug("11", "redis", "redis_flaky")
def repeats_are_not_accounted_for() -> Iterator[None]:
    """And the constraint that would say so is not there."""
    advance = MemoryLedger.advance

    def unchecked(self: MemoryLedger, shard: int, advances: Sequence[Advance]) -> None:
        for one in advances:
            session = self._session
            row = session.get("positions", (one.producer, shard))
            inserted = Outcome.INSERTED
            known = {
                outcome: row.events[outcome] + (one.tally.events[outcome] if outcome is inserted else 0)
                for outcome in Outcome
            }
            total, nanos = sum(known.values()), sum(row.nanos.values()) + one.tally.nanos[inserted]
            mark = Mark(one.mark.position, one.mark.running._replace(events=total, nanos=nanos))
            tally = Tally()
            tally.add(inserted, one.tally.events[inserted], one.tally.nanos[inserted])
            advance(self, shard, [one._replace(mark=mark, tally=tally)])
            moved = session.get("positions", (one.producer, shard))
            if moved is not None:
                session.put("positions", (one.producer, shard), _with_running(moved, one.mark))

    with patch.object(MemoryLedger, "advance", unchecked):
        yield


def _with_running(row: Any, mark: Mark) -> Any:
    return replace(row, running=mark.running)


# -- a classic


@bug("classic", "redis", "redis_junk")
def what_redis_takes_for_a_repeat_is_believed() -> Iterator[None]:
    """A script that failed halfway left the keys of its own events: the second time it calls them repeats."""
    decide = Inserter.insert

    def believing(self: Any, taken: Any) -> Any:
        return decide(
            self, [(entry._replace(conflicts=(*entry.conflicts, *entry.duplicates)), batch) for entry, batch in taken]
        )

    with patch.object(Inserter, "insert", believing):
        yield


# -- voids


@bug("voids", "machine", "flusher_added")
def what_voids_took_out_is_not_published() -> Iterator[None]:
    """Redis goes on showing it until something else changes the counter."""
    take_out = voids.Voiding.take_out

    def silent(self: voids.Voiding, ledger: Any, shard: int) -> tuple[int, dict[Counter, Amount]]:
        return take_out(self, ledger, shard)[0], {}

    with patch.object(voids.Voiding, "take_out", silent):
        yield
