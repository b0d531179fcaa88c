"""Removes the keys of generations that were replaced, once nobody can still be reading them (rule 5)."""

from itertools import groupby
from typing import Final

from flusher.clock import Clock
from flusher.nodes import Place
from flusher.source import Source
from sidecar.contract import keys

GRACE_S: Final = 600.0
INTERVAL_S: Final = 30.0
REMOVING_INTERVAL_S: Final = 1.0  # while there are keys to remove
BUDGET_S: Final = 0.1  # of a cleaning: the drain waits for it
SCAN_COUNT: Final = 1_000
SCANS_PER_CLEANING: Final = 1_000


class Janitor:
    """Looks through all keys a little at a time and unlinks what belongs to no open generation for `grace_s`.

    Most keys recognise repeats, millions of them, and are of the open generation: they are passed over by how they
    begin.
    """

    def __init__(self, source: Source, clock: Clock, grace_s: float = GRACE_S, interval_s: float = INTERVAL_S) -> None:
        self._source = source
        self._clock = clock
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._place = Place()
        self._cleaned_at = clock.monotonic_s()
        self._strange_since: dict[tuple[int, str], float] = {}
        self._met: set[tuple[int, str]] = set()  # of these, in the scan that is under way

    def clean(self) -> int:
        """Go on with the scan if it is time; return how many keys were unlinked."""
        now_s = self._clock.monotonic_s()
        if now_s - self._cleaned_at < self._pause_s(now_s):
            return 0
        self._cleaned_at = now_s
        removed = 0
        judged: dict[bytes, bool] = {}  # asked once a generation: it may have a million keys
        for _ in range(SCANS_PER_CLEANING):
            self._place, names = self._source.scan(self._place, "{t*", SCAN_COUNT)
            old = sorted(name for name in names if self._is_old(name, judged, now_s))
            for _, together in groupby(old, keys.generation_of):  # what a cluster has in one slot
                removed += int(self._source.command("UNLINK", *together))
            if self._place == Place():
                self._strange_since = {one: self._strange_since[one] for one in self._met}
                self._met.clear()
                break
            if self._clock.monotonic_s() - now_s >= BUDGET_S:
                break
        return removed

    def _pause_s(self, now_s: float) -> float:
        """Return how long to pause between cleanings: shortly, while a generation is known to be old enough."""
        removing = any(now_s - since_s >= self._grace_s for since_s in self._strange_since.values())
        return min(REMOVING_INTERVAL_S, self._interval_s) if removing else self._interval_s

    def _is_old(self, name: bytes, judged: dict[bytes, bool], now_s: float) -> bool:
        stem = name[: name.find(b"}") + keys.GENERATION_CHARS + 2]  # with the sign behind the generation
        if stem not in judged:
            judged[stem] = self._judge(name, now_s)
        return judged[stem]

    def _judge(self, name: bytes, now_s: float) -> bool:
        found = keys.generation_of(name)
        if found is None:
            return False
        if self._is_kept(*found):
            self._strange_since.pop(found, None)
            self._met.discard(found)
            return False
        self._met.add(found)
        return now_s - self._strange_since.setdefault(found, now_s) >= self._grace_s

    def _is_kept(self, shard: int, generation: str) -> bool:
        """Return whether a generation is open, or written to be; or all of them, while none is open."""
        return self._source.state(shard).generation in {None, generation} or self._source.is_staged(shard, generation)
