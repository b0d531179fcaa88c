"""`taximeter rebuild`: Redis restored from Postgres by hand, in the way that a flusher does it by itself (rule 5)."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flusher.drain import Drained
from flusher.generation import Generations
from flusher.registrar import Registrar
from flusher.source import EpochChanged, Source
from sidecar.contract.codes import TryAgainError

WAIT_S: Final = 900.0  # for another flusher that holds a shard
POLL_S: Final = 0.2


class RebuiltShard(NamedTuple):
    """A shard and how many totals were written, None where another flusher opened a generation meanwhile."""

    shard: int
    totals: int | None
    took_s: float


@dataclass(slots=True)
class Rebuilt:
    """What was done: shard by shard, and what was drained of the generations that were replaced."""

    shards: list[RebuiltShard] = field(default_factory=list)
    drained: Drained = field(default_factory=Drained)

    @property
    def totals(self) -> int:
        """How many totals were written."""
        return sum(one.totals or 0 for one in self.shards)

    @property
    def took_s(self) -> float:
        """How long it took."""
        return sum(one.took_s for one in self.shards)


class Rebuild:
    """Replaces the generations of shards, sound or not. `staged` hears a shard and its totals that are written."""

    def __init__(
        self, source: Source, registrar: Registrar, generations: Generations, staged: Callable[[int, int], object]
    ) -> None:
        self._source = source
        self._registrar = registrar
        self._generations = generations
        self._staged = staged

    def run(self, shards: Iterable[int]) -> Rebuilt:
        """Tell the sidecars anew what they have to know, and open a new generation of each shard.

        Any step may be repeated by anyone. Raises TryAgainError when a server does not answer, or when another flusher
        holds a shard for a quarter of an hour.
        """
        self._registrar.tell(anew=True)
        rebuilt = Rebuilt()
        for shard in shards:
            began_at = time.monotonic()
            totals = self._replace(shard, rebuilt.drained, began_at + WAIT_S)
            rebuilt.shards.append(RebuiltShard(shard, totals, time.monotonic() - began_at))
        return rebuilt

    def _replace(self, shard: int, drained: Drained, deadline: float) -> int | None:
        first = self._source.state(shard).generation
        while True:
            state = self._source.state(shard)
            if state.generation not in {None, first} and not state.fenced:
                return None
            try:
                replaced = self._generations.replace(
                    shard, state, wait=False, staged=lambda totals: self._staged(shard, totals)
                )
            except EpochChanged:
                pass  # another flusher was faster: what it left is seen above
            else:
                drained.add(replaced.drained)
                if replaced.totals is not None:
                    return replaced.totals
            if time.monotonic() > deadline:
                raise TryAgainError("epoch_changed", f"shard {shard}: another flusher has held it for {WAIT_S:g} s")
            time.sleep(POLL_S)
