"""Holds batches back from a Redis that fills up, so that it is never full: what is journaled can wait, on disk.

The directory reads INFO, the senders are told.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

LOW: Final = 0.1  # so much below the mark batches go on, so that they don't stop and go at it

_log = logging.getLogger(__name__)


def memory_ratio(info: Mapping[str, Any]) -> float:
    """Return how much of its maxmemory a server has used, by `INFO memory`; 0 without a maxmemory."""
    limit = int(info.get("maxmemory", 0))
    return int(info.get("used_memory", 0)) / limit if limit else 0.0


class Reading(NamedTuple):
    """How full a server is that has these shards; `undrained`: it has batches of this sidecar that Postgres lacks."""

    ratio: float
    shards: frozenset[int]
    undrained: bool


class MemoryWatch:
    """Decides which senders hold back. `high` is the mark, a ratio of maxmemory; `tell` is called when they change.

    `ratio` is the highest one read last, 0 when none is known; `paused` are the shards whose senders hold back.
    """

    def __init__(self, high: float, tell: Callable[[], None]) -> None:
        self.ratio = 0.0
        self.paused: frozenset[int] = frozenset()
        self._high = high
        self._tell = tell

    def heard(self, readings: Iterable[Reading]) -> None:
        """Take a reading of every server in.

        Without anything undrained, waiting for the flusher would free nothing: what fills Redis then goes only by its
        expiry.
        """
        readings = list(readings)
        paused = frozenset[int]().union(*(reading.shards for reading in readings if self._is_tight(reading)))
        self.ratio = max((reading.ratio for reading in readings), default=0.0)
        if paused and not self.paused:
            _log.warning(
                "Redis has used %.0f %% of its maxmemory: batches wait in the journal until the flusher has made room",
                self.ratio * 100,
            )
        elif self.paused and not paused:
            _log.warning("Redis has used %.0f %% of its maxmemory: batches are sent again", self.ratio * 100)
        if paused != self.paused:
            self.paused = paused
            self._tell()

    def _is_tight(self, reading: Reading) -> bool:
        mark = self._high - LOW if reading.shards & self.paused else self._high
        return reading.undrained and reading.ratio > mark
