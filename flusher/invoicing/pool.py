"""Threads that work through a list of ids, each with what it opens for itself."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import Final

UNANSWERED_MAX: Final = 3
"""After so many in a row that Stripe did not answer for, the rest is left for another run."""

Work = Callable[[str], bool]
"""Does what is to be done about an id, and returns whether Stripe answered."""


def spread(
    ids: Sequence[str],
    open_worker: Callable[[], AbstractContextManager[Work]],
    threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """Work through ids with so many threads at most; `progress` hears how many of how many are done.

    When one fails, the others finish what they have and its error is raised; so it is when the process is interrupted.
    """
    feed = _Feed(ids, progress)
    with ThreadPoolExecutor(max(1, min(threads, len(ids)))) as pool:
        try:
            for ended in as_completed([pool.submit(_work, feed, open_worker) for _ in range(min(threads, len(ids)))]):
                ended.result()
        finally:
            feed.stop()


class _Feed:
    """Gives out ids, each once, until it is stopped."""

    def __init__(self, ids: Sequence[str], progress: Callable[[int, int], None]) -> None:
        self._ids = ids
        self._progress = progress
        self._lock = threading.Lock()
        self._given = self._done = self._unanswered = 0
        self._stopped = False

    def __iter__(self) -> Iterator[str]:
        while True:
            with self._lock:
                if self._stopped or self._given == len(self._ids):
                    return
                self._given += 1
                given = self._ids[self._given - 1]
            yield given

    def end(self, *, answered: bool) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            self._unanswered = 0 if answered else self._unanswered + 1
            self._stopped = self._stopped or self._unanswered >= UNANSWERED_MAX
            self._progress(self._done, len(self._ids))

    def stop(self) -> None:
        """Give out no more."""
        with self._lock:
            self._stopped = True


def _work(feed: _Feed, open_worker: Callable[[], AbstractContextManager[Work]]) -> None:
    with open_worker() as work:
        for given in feed:
            feed.end(answered=work(given))
