"""Removes the keys of generations that were replaced, once nobody can still be reading them (rule 5)."""

from itertools import groupby
from typing import Final

from flusher.clock import Clock
from flusher.nodes import Place
from flusher.source import Source
from sidecar.contract import keys

GRACE_S: Final = 600.0
INTERVAL_S: Final = 30.0
SCAN_COUNT: Final = 1_000
SCANS_PER_CLEANING: Final = 100


class Janitor:
    """Looks through all keys a little at a time and unlinks what belongs to no open generation for `grace_s`."""

    def __init__(self, source: Source, clock: Clock, grace_s: float = GRACE_S, interval_s: float = INTERVAL_S) -> None:
        self._source = source
        self._clock = clock
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._place = Place()
        self._cleaned_at = clock.monotonic_s()
        self._strange_since: dict[tuple[int, str], float] = {}

    def clean(self) -> int:
        """Go on with the scan if it is time; return how many keys were unlinked."""
        now_s = self._clock.monotonic_s()
        if now_s - self._cleaned_at < self._interval_s:
            return 0
        self._cleaned_at = now_s
        removed = 0
        kept: dict[tuple[int, str], bool] = {}  # asked once a generation: it may have a million keys
        for _ in range(SCANS_PER_CLEANING):
            self._place, names = self._source.scan(self._place, "{t*", SCAN_COUNT)
            old = sorted(name for name in names if self._is_old(name, kept, now_s))
            for _, together in groupby(old, keys.generation_of):  # what a cluster has in one slot
                removed += int(self._source.command("UNLINK", *together))
            if self._place == Place():
                break
        return removed

    def _is_old(self, name: bytes, kept: dict[tuple[int, str], bool], now_s: float) -> bool:
        found = keys.generation_of(name)
        if found is None:
            return False
        if found not in kept:
            kept[found] = self._is_kept(*found)
        if kept[found]:
            self._strange_since.pop(found, None)
            return False
        return now_s - self._strange_since.setdefault(found, now_s) >= self._grace_s

    def _is_kept(self, shard: int, generation: str) -> bool:
        """Return whether a generation is open, or written to be; or all of them, while none is open."""
        return self._source.state(shard).generation in {None, generation} or self._source.is_staged(shard, generation)
