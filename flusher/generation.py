"""Generations: a shard's keys in Redis are replaced, whole, whenever they don't match Postgres (rule 5).

Redis wiped, partly evicted, replaced by another or back in time is one case: what is there is fenced and drained, a
new generation is written from Postgres, and one script opens it.
"""

from datetime import UTC, datetime
from typing import Final

from flusher.clock import Clock
from flusher.drain import Drain, Drained
from flusher.ledger import Ledger, LedgerRow
from flusher.source import ShardState, Source, random_generation, random_token
from flusher.totals import day_totals
from sidecar.contract import keys
from sidecar.contract.meters import Amount, Counter

REMAINS_MAX: Final = 3  # the sealed epoch, the open one, and one more for a flusher that came between


class Generations:
    """Checks and replaces the generations of one ledger's shards."""

    def __init__(self, source: Source, ledger: Ledger, row: LedgerRow, drain: Drain, clock: Clock) -> None:
        self._source = source
        self._ledger = ledger
        self._row = row
        self._drain = drain
        self._clock = clock

    def is_sound(self, shard: int, state: ShardState) -> bool:
        """Return whether the shard's generation exists, is unfenced, and is what Postgres committed to last."""
        with self._ledger.transaction():
            token = self._ledger.token(shard)
            producers = {producer for producer, _ in self._ledger.open_positions(shard)}
        tokens = {state.token, state.sealed.token if state.sealed else None}
        return (
            state.generation is not None
            and (state.ledger, state.shards) == (self._row.id, self._row.shards)
            and not state.fenced
            and token in tokens
            and producers <= state.positions.keys()
        )

    def replace(self, shard: int, state: ShardState) -> Drained:
        """Open a new generation in place of what was observed. Any step may be repeated by anyone.

        Returns what was drained of the old one. Raises EpochChanged when somebody else replaced it meanwhile.
        """
        drained = Drained(again=True)
        if state.generation is not None:
            self._source.fence(shard, state.generation)
            drained.add(self._drain_remains(shard, state.generation))
        self._open(shard, state.generation)
        return drained

    def _drain_remains(self, shard: int, generation: str) -> Drained:
        """Commit what the fenced generation still holds, whatever token it follows."""
        drained = Drained()
        for _ in range(REMAINS_MAX):
            sealed = self._source.seal(shard, generation)
            if sealed is None:
                break
            drained.add(self._drain.drain(shard, generation, sealed, remains=True, wait=True))
        return drained

    def _open(self, shard: int, observed: str | None) -> None:
        generation, token = random_generation(), random_token()
        now_s = self._clock.wall_s()
        since = keys.live_since(datetime.fromtimestamp(now_s, UTC))

        def stage(totals: dict[Counter, Amount]) -> None:
            self._source.stage_totals(shard, generation, day_totals(totals))

        with self._ledger.transaction():
            self._ledger.lock(shard, wait=True)  # nobody commits between the positions read here and the swap
            positions = self._ledger.open_positions(shard)
            self._source.stage_state(shard, generation, self._row.id, self._row.shards, positions, now_s=now_s)
            self._ledger.each_total(shard, since, stage)
            self._source.swap(shard, observed, generation, token)
            self._ledger.store_token(shard, token)
