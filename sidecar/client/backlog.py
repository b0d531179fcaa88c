"""Events that wait to be sent: bounded in number and in bytes, shared by every thread of the app and one that sends."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from sidecar.client.encoding import ARRAY_HEAD_BYTES

_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are sent together, always with the same bytes under the same key.

    `first` is how many events were taken before them. `doubtful`: an attempt went unanswered, so it may have been
    accepted.
    """

    first: int
    count: int
    key: str
    body: bytes
    doubtful: bool = False


class Backlog:
    """A queue of encoded events, with what was taken from it and is not settled yet.

    The lock may be taken again by the thread that has it: a signal handler may call `track` in the middle of `track`.
    """

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self.lock = threading.RLock()
        self.settled = threading.Condition(self.lock)
        self.taken = 0
        self.waiting = 0
        self._waiting_bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._queue: deque[bytes] = deque()
        self._open: set[int] = set()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, event: bytes) -> bool:
        """Queue an event; say whether there was room for it."""
        with self.lock:
            waiting_bytes = self._waiting_bytes + len(event)
            if self.waiting >= self._events_max or waiting_bytes > self._bytes_max:
                return False
            self._queue.append(event)
            self.waiting += 1
            self._waiting_bytes = waiting_bytes
        return True

    def take(self, events_max: int, bytes_max: int) -> tuple[int, list[bytes]]:
        """Take the oldest events for a batch, at least one where there is one, and the number of those before."""
        with self.lock:
            first = self.taken
            taken = [self._queue.popleft() for _ in range(min(events_max, len(self._queue)))]
            size = ARRAY_HEAD_BYTES + sum(map(len, taken))
            while size > bytes_max and len(taken) > 1:
                self._queue.appendleft(taken.pop())
                size -= len(self._queue[0])
            self.taken += len(taken)
            if taken:
                self._open.add(first)
        return first, taken

    def split(self, second: int) -> None:
        """Note that the events from number `second` on are now a batch of their own."""
        with self.lock:
            self._open.add(second)

    def settle(self, batch: Batch) -> None:
        """Forget a batch, whatever became of it: there is room again."""
        with self.lock:
            self._open.discard(batch.first)
            self.waiting -= batch.count
            self._waiting_bytes -= len(batch.body) - ARRAY_HEAD_BYTES
            self.settled.notify_all()

    def until_room(self, event: bytes, deadline_s: float) -> bool:
        """Wait until the event could be queued, and queue it; False when there was no room until the deadline."""
        with self.lock:
            while not self.put(event):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self.settled.wait(min(left_s, _WAIT_S))
        return True

    def until_settled(self, deadline_s: float) -> bool:
        """Wait until everything that is queued now is settled; False when it is not by the deadline."""
        with self.lock:
            target = self.taken + len(self._queue)
            while self.taken < target or any(first < target for first in self._open):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self.settled.wait(min(left_s, _WAIT_S))
        return True

    def give_up(self) -> int:
        """Forget everything, and return how many events that were."""
        with self.lock:
            lost, self.waiting = self.waiting, 0
            self.taken += len(self._queue)
            self._waiting_bytes = 0
            self._queue.clear()
            self._open.clear()
            self.settled.notify_all()
        return lost
