"""One deadline for many futures: a timer once in a while, where `asyncio.wait` would take one for each."""

import asyncio
from collections import deque
from typing import Any


class Deadline:
    """Gives futures that are not done `seconds` after they are put under it the result None.

    Nothing keeps a future that is done for long: those in front are dropped as others come.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = (
            deque()
        )  # all wait equally long: the first is due first
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many futures are kept."""
        return len(self._waiting)

    def put(self, future: "asyncio.Future[Any]") -> None:
        """Put a future of the running loop under the deadline."""
        loop = asyncio.get_running_loop()
        self._drop_done()
        self._waiting.append((loop.time() + self._seconds, future))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire, loop)

    def _drop_done(self) -> None:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._drop_done()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._waiting.popleft()[1].set_result(None)
            self._drop_done()
        self._timer = loop.call_at(self._waiting[0][0], self._expire, loop) if self._waiting else None
