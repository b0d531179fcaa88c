"""The app of a run: it notes each batch before it sends it, and believes in nothing but answers."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from flusher.chaos.dice import Dice
from flusher.chaos.notes import Note, Notes
from flusher.chaos.traffic import BATCH_EVENTS, Batch

IN_FLIGHT_MAX: Final = 64
ANSWER_TIMEOUT_S: Final = 15.0
RETRY_S: Final = (0.1, 1.0)
GIVE_UP: Final = 10  # after a failure one time in so many nothing is sent again: the answer stays unknown
REPEAT: Final = 20  # one acknowledged batch in so many is sent once more
PROBLEMS_MAX: Final = 20
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(slots=True)
class Progress:
    """What the app knows, in events: another thread may look at it at any time."""

    sent: int = 0
    acknowledged: int = 0
    journaled: int = 0
    unanswered: int = 0
    repeated: int = 0
    attempts_failed: int = 0
    waiting: int = 0
    problems: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """Sends `rate` events a second to the sidecar at `url` until `finish` is called."""

    def __init__(self, url: str, notes: Notes, batches: Iterator[Batch], rate: int, seed: int) -> None:
        super().__init__(name="chaos client", daemon=True)
        self._url = f"{url}/v1/events"
        self._notes = notes
        self._batches = batches
        self._every_s = BATCH_EVENTS / rate
        self._dice = Dice(seed, "client")
        self._ending = threading.Event()
        self._give_up_at = float("inf")
        self.progress = Progress()

    def finish(self, patience_s: float) -> None:
        """Send nothing new, wait for what is on its way, and give up on what is not answered within `patience_s`."""
        self._give_up_at = time.monotonic() + patience_s
        self._ending.set()

    def run(self) -> None:
        """Do it."""
        asyncio.run(self._send_all())

    async def _send_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT_MAX)
        tasks: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            due_at = time.monotonic()
            while not self._ending.is_set():
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))
                due_at = max(due_at + self._every_s, time.monotonic() - 1)  # what was missed is not made up for later
                if len(tasks) < IN_FLIGHT_MAX:
                    task = asyncio.create_task(self._deliver(session, next(self._batches)))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _deliver(self, session: aiohttp.ClientSession, batch: Batch) -> None:
        """Send a batch until it is acknowledged or given up."""
        events = len(batch.events)
        self._notes.add(Note(sending=batch))
        self.progress.sent += events
        self.progress.waiting += events
        status = await self._attempt(session, batch)
        while status is None:
            self.progress.attempts_failed += 1
            if self._dice.chance(GIVE_UP) or time.monotonic() > self._give_up_at:
                self.progress.unanswered += events
                break
            await asyncio.sleep(self._dice.between(*RETRY_S))
            status = await self._attempt(session, batch)
        else:
            self._notes.add(Note(acknowledged=batch.number))
            self.progress.acknowledged += events
            self.progress.journaled += events if status == HTTPStatus.ACCEPTED else 0
            if self._dice.chance(REPEAT):
                self.progress.repeated += events
                await self._attempt(session, batch)
        self.progress.waiting -= events

    async def _attempt(self, session: aiohttp.ClientSession, batch: Batch) -> int | None:
        """Return the status of a success, None where nobody knows what became of it."""
        headers = {} if batch.key is None else {"Idempotency-Key": batch.key}
        try:
            async with session.post(self._url, json=_body(batch), headers=headers) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        if status in _AGAIN:
            return None
        if status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED} or answer["rejected"] or answer["conflicts"]:
            self._problem(f"batch {batch.number} was answered {status}: {answer}")
            return None
        return status

    def _problem(self, text: str) -> None:
        if len(self.progress.problems) < PROBLEMS_MAX:
            self.progress.problems.append(text[:500])


def _body(batch: Batch) -> list[dict[str, Any]]:
    names = ("user_id", "event_type", "units", "properties", "id", "timestamp")
    return [{name: value for name in names if (value := getattr(event, name)) is not None} for event in batch.events]
