"""Holds batches back from a Redis that fills up, so that it is never full: what is journaled can wait, on disk.

The directory reads INFO, the senders are told.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

LOW: Final = 0.1  # so much below the mark batches go on, so that they don't stop and go at it

_log = logging.getLogger(__name__)


def memory_ratio(info: Mapping[str, Any]) -> float:
    """Return how much of its maxmemory a server has used, by `INFO memory`; 0 without a maxmemory."""
    limit = int(info.get("maxmemory", 0))
    return int(info.get("used_memory", 0)) / limit if limit else 0.0


class MemoryWatch:
    """Decides when senders hold back. `high` is the mark, a ratio of maxmemory; `tell` is called when they change.

    `ratio` is the last one read, 0 when it is not known; `paused` says that senders hold back.
    """

    def __init__(self, high: float, tell: Callable[[], None]) -> None:
        self.ratio = 0.0
        self.paused = False
        self._high = high
        self._tell = tell

    def heard(self, ratio: float, *, undrained: bool) -> None:
        """Take a reading in; `undrained`: Redis has batches of this sidecar that Postgres lacks.

        Without any, waiting for the flusher would free nothing: what fills Redis then goes only by its expiry.
        """
        paused = undrained and ratio > (self._high - LOW if self.paused else self._high)
        if paused and not self.paused:
            _log.warning(
                "Redis has used %.0f %% of its maxmemory: batches wait in the journal until the flusher has made room",
                ratio * 100,
            )
        elif self.paused and not paused:
            _log.warning("Redis has used %.0f %% of its maxmemory: batches are sent again", ratio * 100)
        self.ratio = ratio
        if paused != self.paused:
            self.paused = paused
            self._tell()
