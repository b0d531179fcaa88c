"""Generations: a shard's keys in Redis are replaced, whole, whenever they don't match Postgres (rule 5).

Redis wiped, partly evicted, replaced by another or back in time is one case: what is there is fenced and drained, a
new generation is written from Postgres, and one script opens it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from flusher.clock import Clock
from flusher.drain import Drain, Drained
from flusher.ledger import Ledger, LedgerRow
from flusher.source import EpochChanged, ShardState, Source, random_generation, random_token
from sidecar.contract import keys

OBSERVATIONS_MAX: Final = 10
REMAINS_MAX: Final = 3  # the sealed epoch, the open one, and one more for a flusher that came between


class Replaced(NamedTuple):
    """What was drained of a generation, and how many totals the new one was opened with.

    `totals` is None where none was opened: another flusher holds the shard.
    """

    drained: Drained
    totals: int | None


def nobody(_totals: int) -> None:
    """Hear how many totals are written so far, and do nothing with it."""


class Generations:
    """Checks and replaces the generations of one ledger's shards."""

    def __init__(self, source: Source, ledger: Ledger, row: LedgerRow, drain: Drain, clock: Clock) -> None:
        self._source = source
        self._ledger = ledger
        self._row = row
        self._drain = drain
        self._clock = clock

    def observe(self, shard: int) -> tuple[ShardState, bool]:
        """Return the shard's state, and whether it is sound.

        It is when its generation exists, is unfenced, and is what Postgres committed to last. That it is not is only
        believed when Postgres said the same before: another flusher may commit, or register, between two readings.
        Raises EpochChanged when that goes on and on.
        """
        before = None
        for _ in range(OBSERVATIONS_MAX):
            state = self._source.state(shard)
            with self._ledger.transaction():
                token = self._ledger.token(shard)
                producers = {producer for producer, _ in self._ledger.open_positions(shard)}
            if self._is_sound(state, token) and (producers <= state.positions.keys() or self._knows_all(shard)):
                return state, True
            if token == before:
                return state, False
            before = token
        raise EpochChanged

    def _is_sound(self, state: ShardState, token: str) -> bool:
        return (
            state.generation is not None
            and (state.ledger, state.shards) == (self._row.id, self._row.shards)
            and not state.fenced
            and token in {state.token, state.sealed.token if state.sealed else None}
        )

    def _knows_all(self, shard: int) -> bool:
        """Look again while nobody is let go: a producer leaves Redis a moment before that is committed."""
        with self._ledger.transaction():
            if self._ledger.lock(shard, wait=False) is None:
                return True  # somebody works on the shard now; the next cycle looks again
            producers = {producer for producer, _ in self._ledger.open_positions(shard)}
            return producers <= self._source.state(shard).positions.keys()

    def replace(
        self, shard: int, state: ShardState, *, wait: bool, staged: Callable[[int], object] = nobody
    ) -> Replaced:
        """Open a new generation in place of what was observed. Any step may be repeated by anyone.

        `wait` for another flusher that holds the shard, instead of leaving it to that one. `staged` hears how many
        totals are written so far. Raises EpochChanged when somebody else replaced it meanwhile.
        """
        drained = Drained(again=True)
        if state.generation is not None:
            self._source.fence(shard, state.generation)
            if not self._drain_remains(shard, state.generation, drained, wait=wait):
                return Replaced(drained, None)
        return Replaced(drained, self._open(shard, state.generation, wait=wait, staged=staged))

    def _drain_remains(self, shard: int, generation: str, drained: Drained, *, wait: bool) -> bool:
        """Commit what the fenced generation still holds, whatever token it follows; say whether it is empty now."""
        for _ in range(REMAINS_MAX):
            sealed = self._source.seal(shard, generation)
            if sealed is None:
                return True
            drained.add(self._drain.drain(shard, generation, sealed, remains=True, wait=wait))
        return False

    def _open(self, shard: int, observed: str | None, *, wait: bool, staged: Callable[[int], object]) -> int | None:
        generation, token = random_generation(), random_token()
        since = keys.live_since(datetime.fromtimestamp(self._clock.wall_s(), UTC))
        with self._ledger.transaction():
            # Nobody commits between the positions read here and the swap.
            if self._ledger.lock(shard, wait=wait) is None:
                return None
            if self._source.state(shard).generation != observed:
                raise EpochChanged  # while we waited: what took long for that one need not be done again
            positions = self._ledger.open_positions(shard)
            self._source.stage_state(shard, generation, self._row.id, self._row.shards, positions)
            totals = 0
            for days in self._ledger.each_day(shard, since):
                self._source.stage_totals(shard, generation, days)
                self._source.keep_staged(shard, generation)
                totals += sum(len(day.fields) for day in days)
                staged(totals)
            self._source.swap(shard, observed, generation, token)
            self._ledger.store_token(shard, token)
        return totals
