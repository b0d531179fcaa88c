"""The thread that brings events to the sidecar: gathers them into batches, sends, and sends again until answered."""

import logging
import os
import random
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from sidecar.client.backlog import Backlog, Batch
from sidecar.client.encoding import body_of, events_of, shown
from sidecar.client.link import Link, LinkError
from sidecar.client.tally import Later, Refused, Rejected, Result, Settled, Stats, Verdict

BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0  # it is on this machine: asking again costs next to nothing
RETRY_AFTER_MAX_S: Final = 60.0
SLEEP_MAX_S: Final = 30.0
PROBLEM_CHARS_MAX: Final = 200

_TOO_LARGE: Final = ("body_too_large", "too_many_events")
_log = logging.getLogger(__name__)
_chance = random.SystemRandom()


class Pace(NamedTuple):
    """How batches are made: at most so many events and bytes, gathered for `linger_s`, over `links_max` connections."""

    batch_events_max: int
    batch_bytes_max: int
    linger_s: float
    links_max: int


class Courier:
    """Takes events from a backlog and settles each batch once, in a thread of its own.

    `connect` opens a connection, or raises LinkError. `on_rejected` is told of every event that will not be counted.
    """

    def __init__(
        self, backlog: Backlog, connect: Callable[[], Link], pace: Pace, on_rejected: Callable[[Rejected], None] | None
    ) -> None:
        self._backlog = backlog
        self._connect = connect
        self._pace = pace
        self._on_rejected = on_rejected
        self._batch_events_max = pace.batch_events_max
        self._counts: Counter[str] = Counter()
        self._problem = ""
        self._prefix = os.urandom(12).hex()  # keys are unique in a ledger, whoever else sends to it
        self._keys = 0
        self._again: deque[Batch] = deque()
        self._links: list[Link] = []
        self._not_before_s = 0.0
        self._gather_until_s = 0.0
        self._backoff_s = BACKOFF_MIN_S
        self._asleep = True
        self._thread: threading.Thread | None = None
        self._closing_s: float | None = None
        self._bell, self._ear = socket.socketpair()
        self._bell.settimeout(0)
        self._ear.settimeout(0)

    @property
    def asleep(self) -> bool:
        """Whether somebody has to `rouse` it when there is an event."""
        return self._asleep

    def rouse(self) -> None:
        """Wake the thread, or start it; costs a few microseconds and never waits."""
        with self._backlog.lock:
            self._asleep = False
            if self._thread is None and self._closing_s is None:
                thread = threading.Thread(target=self.run, name="taximeter", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter ends: `close` does the work itself
                    return
                self._thread = thread
        with suppress(OSError):  # it has been rung often enough, or is closed
            self._bell.send(b"!")

    def stats(self, dropped: int, rejected: int) -> Stats:
        """Return the counts, with those of the meter itself."""
        with self._backlog.lock:
            counts = self._counts
            return Stats(
                sent=counts["sent"],
                accepted=counts["accepted"],
                duplicates=counts["duplicates"],
                conflicts=counts["conflicts"],
                rejected=counts["rejected"] + rejected,
                retried=counts["retried"],
                dropped=counts["dropped"] + dropped,
                waiting=self._backlog.waiting,
                problem=self._problem,
            )

    def close(self, deadline_s: float) -> None:
        """Send what waits until the deadline (monotonic), count the rest as dropped, and end the thread."""
        with self._backlog.lock:
            self._closing_s = deadline_s
            thread = self._thread
        if thread is None:
            self.run()
            return
        self.rouse()
        thread.join(max(0.0, deadline_s - time.monotonic()) + 1.0)

    def abandon(self) -> None:
        """In a forked child: close our copies of the parent's descriptors, and send nothing."""
        for link in self._links:
            link.close()
        self._bell.close()
        self._ear.close()

    def run(self) -> None:
        """Work until closed."""
        while not self._is_done():
            try:
                self._send()
                self._wait()
            except Exception as error:  # a fault of ours must not end the app's only sender
                _log.exception("the sending of events failed")
                self._back_off(f"a fault of the client: {error}")
        self._end()

    def _is_done(self) -> bool:
        if self._closing_s is None:
            return False
        idle = not self._backlog.waiting
        return idle or time.monotonic() >= self._closing_s

    def _end(self) -> None:
        for link in self._links:
            link.close()
        self._links.clear()
        with self._backlog.lock:
            self._counts["dropped"] += self._backlog.give_up()
        self._bell.close()
        self._ear.close()

    def _send(self) -> None:
        while time.monotonic() >= self._not_before_s and self._has_batch():
            try:
                link = self._link()
            except LinkError as error:
                self._back_off(str(error))
                return
            if link is None:
                return
            batch = self._again.popleft() if self._again else self._fresh(link)
            try:
                link.send(batch)
            except LinkError as error:
                self._lost(link, str(error))

    def _has_batch(self) -> bool:
        if self._again:
            return True
        queued = len(self._backlog)
        if queued >= self._batch_events_max:
            return True
        return queued > 0 and time.monotonic() >= self._gather_until_s

    def _link(self) -> Link | None:
        """Return a connection that may carry another batch, or None. Raises LinkError."""
        for link in self._links:
            if link.has_room:
                return link
        if len(self._links) >= self._pace.links_max:
            return None
        self._links.append(self._connect())
        return self._links[-1]

    def _fresh(self, link: Link) -> Batch:
        events_max = min(self._batch_events_max, link.events_max)
        first, events = self._backlog.take(events_max, min(self._pace.batch_bytes_max, link.bytes_max))
        self._gather_until_s = time.monotonic() + self._pace.linger_s
        with self._backlog.lock:
            self._counts["sent"] += len(events)
        return Batch(first, len(events), self._key(), body_of(events))

    def _key(self) -> str:
        self._keys += 1
        return f"{self._prefix}-{self._keys}"

    def _wait(self) -> None:
        """Wait for answers, for the bell, or for the time to do something."""
        ready = select.poll()
        ready.register(self._ear, select.POLLIN)
        by_descriptor = {link.fileno(): link for link in self._links}
        for descriptor in by_descriptor:
            ready.register(descriptor, select.POLLIN)
        for descriptor, _ in ready.poll(self._sleep_s() * 1000):
            link = by_descriptor.get(descriptor)
            if link is None:
                self._ear.recv(4096)
            else:
                self._receive(link)
        self._asleep = False
        now_s = time.monotonic()
        for link in [link for link in self._links if (link.deadline_s or now_s) < now_s]:
            self._lost(link, "no answer in time")

    def _sleep_s(self) -> float:
        """Return how long there is nothing to do; meanwhile who brings the first event rings the bell."""
        now_s = time.monotonic()
        until_s = [now_s + SLEEP_MAX_S]
        until_s += [link.deadline_s for link in self._links if link.deadline_s is not None]
        if self._closing_s is not None:
            until_s.append(self._closing_s)
        self._asleep = True
        if self._backlog.waiting and (self._again or len(self._backlog)):
            self._asleep = False
            has_room = len(self._links) < self._pace.links_max or any(link.has_room for link in self._links)
            if has_room or now_s < self._not_before_s:
                until_s.append(max(self._not_before_s, 0.0 if self._again else self._gather_until_s))
        return max(0.0, min(until_s) - now_s)

    def _receive(self, link: Link) -> None:
        try:
            answered = link.receive()
        except LinkError as error:
            self._lost(link, str(error))
            return
        for batch, verdict in answered:
            self._judge(batch, verdict)
        if link.fileno() < 0:
            self._links.remove(link)

    def _judge(self, batch: Batch, verdict: Verdict) -> None:
        if isinstance(verdict, Later):
            self._again.append(batch)
            self._counts["retried"] += batch.count
            self._back_off(verdict.problem, verdict.after_s)
            return
        self._problem = ""
        self._backoff_s = BACKOFF_MIN_S
        if isinstance(verdict, Settled):
            self._settle(batch, verdict)
        elif verdict.code in _TOO_LARGE and batch.count > 1 and not batch.doubtful:
            self._split(batch)
        else:
            self._refuse(batch, verdict)

    def _settle(self, batch: Batch, verdict: Settled) -> None:
        with self._backlog.lock:
            for name in ("accepted", "duplicates", "conflicts", "rejected"):
                self._counts[name] += getattr(verdict, name)
        told = [result for result in verdict.results if result.code != "duplicate"]
        self._tell(batch, told)
        self._backlog.settle(batch)

    def _refuse(self, batch: Batch, verdict: Refused) -> None:
        reused = verdict.code == "idempotency_key_reused"
        with self._backlog.lock:
            self._counts["conflicts" if reused else "rejected"] += batch.count
        self._tell(batch, [Result(index, verdict.code, verdict.message) for index in range(batch.count)])
        self._backlog.settle(batch)

    def _split(self, batch: Batch) -> None:
        """Go on with two halves: the sidecar takes less at once than we thought, and has applied none of it."""
        events = events_of(batch.body)
        middle = len(events) // 2
        self._batch_events_max = min(self._batch_events_max, middle)
        self._backlog.split(batch.first + middle)
        for first, half in ((batch.first, events[:middle]), (batch.first + middle, events[middle:])):
            self._again.append(Batch(first, len(half), self._key(), body_of(half)))

    def _tell(self, batch: Batch, results: list[Result]) -> None:
        if not results:
            return
        _log.warning("%d events were not accepted, the first one for: %s", len(results), results[0].code)
        if self._on_rejected is None:
            return
        events = events_of(batch.body)
        for result in results:
            try:
                self._on_rejected(Rejected(shown(events[result.index]), result.code, result.message))
            except Exception:
                _log.exception("on_rejected failed")

    def _lost(self, link: Link, problem: str) -> None:
        """Send again on another connection what this one has not answered."""
        self._links.remove(link)
        unanswered = link.unanswered
        link.close()
        for batch in unanswered:
            self._again.append(replace(batch, doubtful=True))
            self._counts["retried"] += batch.count
        if unanswered:
            self._back_off(problem)

    def _back_off(self, problem: str, after_s: float | None = None) -> None:
        """Send nothing for a while: what the sidecar asked for, or longer each time, with some of it left to chance."""
        problem = problem[:PROBLEM_CHARS_MAX]  # it may repeat what came from who knows where
        if not self._problem:
            _log.warning("events can't be sent now, they wait: %s", problem)
        self._problem = problem
        pause_s = self._backoff_s * _chance.uniform(0.5, 1.0) if after_s is None else min(after_s, RETRY_AFTER_MAX_S)
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_MAX_S)
        self._not_before_s = max(self._not_before_s, time.monotonic() + pause_s)
