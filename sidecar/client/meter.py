"""`Meter`: what an app calls. A call costs microseconds; a thread of its own sends what was tracked."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Literal

from sidecar.client.backlog import Backlog
from sidecar.client.courier import Courier, Pace
from sidecar.client.encoding import EVENT_BYTES_MAX, encode_event
from sidecar.client.link import Link
from sidecar.client.over_http import CONNECTIONS_MAX, http_link
from sidecar.client.over_stream import stream_link
from sidecar.client.tally import Rejected, Stats

WhenFull = Literal["drop", "block", "raise"]

_WHEN_FULL: Final = ("drop", "block", "raise")
_BATCH_BYTES_MAX: Final = 1 << 20


class QueueFullError(Exception):
    """The queue is full; the event was not tracked."""


class Meter:
    """Tracks usage events. One for a process is enough; every thread may use it, and so may forked children.

    `address`: `unix:///path` or `http://host:port` of the sidecar's HTTP, or `stream:///path` of its stream socket.
    `token`: where TCP asks for one. `when_full`: what `track` does when `queue_events_max` events or
    `queue_bytes_max` bytes wait: it counts the event as dropped, waits up to `block_max_s` and then raises
    QueueFullError, or raises it at once. A batch has up to `batch_events_max` events, gathered for `linger_s`; one
    without an answer for `answer_timeout_s` is sent again. `exit_flush_s`: how long the interpreter's exit may take.
    `on_rejected` is called, in the thread that sends, with every event that will not be counted.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        when_full: WhenFull = "drop",
        queue_events_max: int = 100_000,
        queue_bytes_max: int = 64 << 20,
        batch_events_max: int = 1_000,
        linger_s: float = 0.01,
        answer_timeout_s: float = 10.0,
        block_max_s: float = 30.0,
        exit_flush_s: float = 5.0,
        on_rejected: Callable[[Rejected], None] | None = None,
    ) -> None:
        """Raise ValueError for a setting that can't be used. Nothing is connected yet."""
        if when_full not in _WHEN_FULL:
            raise ValueError(f"when_full: expected one of {', '.join(_WHEN_FULL)}, got {when_full!r}")
        if min(queue_events_max, batch_events_max) < 1 or queue_bytes_max < EVENT_BYTES_MAX:
            raise ValueError(
                f"expected at least 1 for queue_events_max and batch_events_max, {EVENT_BYTES_MAX} for queue_bytes_max"
            )
        self._connect, links_max = _connector(address, token, answer_timeout_s)
        self._when_full = when_full
        self._queue_events_max = queue_events_max
        self._queue_bytes_max = queue_bytes_max
        self._pace = Pace(batch_events_max, _BATCH_BYTES_MAX, linger_s, links_max)
        self._block_max_s = block_max_s
        self._exit_flush_s = exit_flush_s
        self._on_rejected = on_rejected
        self._closed = False
        self._begin()
        _open_meters.add(self)

    def _begin(self) -> None:
        """Begin with nothing queued, nothing sent and no thread: at first, and in a forked child."""
        self._dropped = 0
        self._refused = 0
        self._lock = threading.RLock()
        self._backlog = Backlog(self._queue_events_max, self._queue_bytes_max)
        self._courier = Courier(self._backlog, self._connect, self._pace, self._on_rejected)

    def track(
        self,
        user_id: str,
        event_type: str,
        units: int | Decimal | str = 1,
        *,
        id: str | None = None,  # interface.md's name
        source: str | None = None,
        timestamp: datetime | str | None = None,
        properties: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Queue an event and return at once; `more` are further properties. It happened at `timestamp`, or now.

        With an `id` the app may track it again, in any process, and it counts once: for as long as events are kept
        when the `timestamp` is the same too, else in 35 days, and then it happened when the sidecar first took it.

        Raises TypeError for an argument of another type (a float is no exact number of units), RuntimeError after
        `close`, QueueFullError as `when_full` says. What the values may be is the sidecar's to judge: `on_rejected`.
        """
        if more:
            properties = {**properties, **more} if properties else more
        try:
            event = encode_event(user_id, event_type, units, id, source, timestamp, properties)
        except ValueError as error:
            self._refuse(user_id, event_type, str(error))
            return
        if self._closed:
            raise RuntimeError("the meter is closed")
        if not self._backlog.put(event):
            self._overflow(event)
        if self._courier.asleep:
            self._courier.rouse()

    def _refuse(self, user_id: str, event_type: str, message: str) -> None:
        """Reject an event that can't even be written down."""
        with self._lock:
            self._refused += 1
        if self._on_rejected is not None:
            self._on_rejected(Rejected({"user_id": user_id, "event_type": event_type}, "event_invalid", message))

    def _overflow(self, event: bytes) -> None:
        if self._when_full == "block":
            self._courier.rouse()
            if self._backlog.until_room(event, time.monotonic() + self._block_max_s):
                return
        with self._lock:
            self._dropped += 1
        if self._when_full != "drop":
            raise QueueFullError(f"{self._backlog.waiting} events wait for the sidecar; this one was not tracked")

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        return self._courier.stats(self._dropped, self._refused)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything tracked so far is answered; False when it is not within `timeout_s`.

        It blocks: in asyncio use `await asyncio.to_thread(meter.flush)`.
        """
        if len(self._backlog):
            self._courier.rouse()
        return self._backlog.until_settled(time.monotonic() + timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Send what waits, for at most `timeout_s`, and stop; False when some of it had to be dropped."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._courier.close(time.monotonic() + timeout_s)
            _open_meters.discard(self)
        return not self.stats.dropped and not self.stats.waiting

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent has queued and sent is the parent's."""
        abandoned = self._courier
        self._begin()
        abandoned.abandon()

    def at_exit(self) -> None:
        """Close within `exit_flush_s`."""
        self.close(self._exit_flush_s)


_open_meters: set[Meter] = set()  # kept alive until closed: what they have queued would be lost otherwise


def _connector(address: str, token: str | None, timeout_s: float) -> tuple[Callable[[], Link], int]:
    """Return what opens a connection, and how many there may be at once. Raises ValueError."""
    scheme, separator, rest = address.partition("://")
    if separator and rest and scheme in ("unix", "http"):
        return (lambda: http_link(address, token, timeout_s)), CONNECTIONS_MAX
    if separator and rest and scheme == "stream":
        return (lambda: stream_link(rest, timeout_s)), 1
    raise ValueError(f"address: expected unix:///PATH, stream:///PATH or http://HOST:PORT, got {address!r}")


def _after_fork() -> None:
    for meter in tuple(_open_meters):
        meter.after_fork()


def _at_exit() -> None:
    for meter in tuple(_open_meters):
        meter.at_exit()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
