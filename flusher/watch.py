"""What an outage of Postgres fills up: Redis's memory, and what waits there to be drained."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

from flusher.clock import Clock
from flusher.source import ShardState, Source
from sidecar.contract import keys

INTERVAL_S: Final = 2.0


class Seen(NamedTuple):
    """Redis at one moment; of a cluster, the fullest server and all batches.

    `memory_bytes_max` is 0 where it has no limit; `batches` wait over all shards.
    """

    memory_bytes: int
    memory_bytes_max: int
    batches: int


class Watch:
    """Looks at Redis every few seconds, from a flusher's cycle, before Postgres is asked for anything."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._due_s = clock.monotonic_s()

    def look(self, shards: Iterable[int]) -> Seen | None:
        """Return what there is if it is time. Raises TryAgainError `redis_unavailable`."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return None
        self._due_s = now_s + INTERVAL_S
        used, limit = max((_memory(info) for info in self._source.infos("memory").values()), key=_fullness)
        batches = sum(waiting_batches(self._source, shard, self._source.state(shard)) for shard in shards)
        return Seen(used, limit, batches)


def _memory(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return what a server has used, and its limit."""
    return int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))


def _fullness(memory: tuple[int, int]) -> tuple[Fraction, int]:
    used, limit = memory
    return (Fraction(used, limit) if limit else Fraction(0)), used


def waiting_batches(source: Source, shard: int, state: ShardState) -> int:
    """Return how many batches of a shard wait in Redis to be drained. Raises TryAgainError `redis_unavailable`."""
    waiting = state.sealed.entries if state.sealed else 0
    if state.generation is not None:
        waiting += int(source.command("XLEN", keys.open_epoch(shard, state.generation).stream))
    return waiting
