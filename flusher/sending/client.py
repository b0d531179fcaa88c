"""Batches of events over HTTP to a sidecar: a few at once, each again until it is answered.

That is safe because every event has an identity: one whose answer was lost is a duplicate the next time.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
import msgspec

from flusher.sending.records import Batch
from sidecar.contract.codes import TaximeterError, TryAgainError

EVENTS: Final = "/v1/events"
VOIDS: Final = "/v1/events/void"
CONCURRENCY: Final = 4
PATIENCE_S: Final = 300.0
FIRST_PATIENCE_S: Final = 10.0
PROBLEMS_KEPT_MAX: Final = 1_000
_ANSWER_TIMEOUT_S: Final = 60.0
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_RETRY_AFTER_MAX_S: Final = 60.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MEDIA_TYPE: Final = "application/x-ndjson"


class Problem(msgspec.Struct, frozen=True):
    """An event that was not counted: where it stands, its id where that can be read, a code, and why."""

    line: int
    id: str | None
    code: str
    message: str


@dataclass(slots=True)
class Tally:
    """What became of the events so far. `journaled` of the accepted ones are safe, but repeats not yet known."""

    sent: int = 0
    accepted: int = 0
    journaled: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, problem: Problem) -> None:
        """Count an event that the sidecar was not even asked about."""
        self.sent += 1
        self.rejected += 1
        self.keep(problem)

    def keep(self, problem: Problem) -> None:
        """Keep a problem to tell; only so many are kept."""
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)


class _Result(msgspec.Struct):
    index: int
    code: str
    id: str | None = None
    message: str = ""


class _Answer(msgspec.Struct):
    """The fields of an answer or of a problem; a problem of the whole request has no counts."""

    accepted: int | None = None
    duplicates: int | None = None
    conflicts: int | None = None
    rejected: int = 0
    results: list[_Result] = []
    code: str = ""
    detail: str = ""


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


class Client:
    """Sends to one sidecar at `url`, through the Unix socket at `socket` where it is given. An async context manager.

    What is sent are events, or what else `path` takes a line of. `token` authorises. It gives up when nothing was taken
    for `patience_s`, and sooner when nobody ever answered.
    """

    def __init__(
        self,
        url: str,
        *,
        path: str = EVENTS,
        socket: Path | None = None,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._url = url.rstrip("/") + path
        self._socket = socket
        self._token = token
        self._patience_s = min(patience_s, FIRST_PATIENCE_S)
        self._patience_later_s = patience_s
        self._answered_at = time.monotonic()
        self.tally = Tally()

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(str(self._socket)) if self._socket else aiohttp.TCPConnector()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send_all(
        self, batches: Iterator[Batch], *, concurrency: int = CONCURRENCY, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Send every batch; `progress` is called after each. What became of the events is in `tally`.

        Raises TryAgainError `sidecar_unavailable` when patience ends, TaximeterError with the sidecar's code when it
        refuses a request as a whole. The events that were answered until then stay counted.
        """
        self._answered_at = time.monotonic()

        async def work() -> None:
            for batch in batches:
                await self._send(batch)
                progress()

        workers = [asyncio.create_task(work()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _send(self, batch: Batch) -> None:
        """Send a batch until it is answered; one that is too large for the sidecar in halves."""
        delay_s = _BACKOFF_FIRST_S
        while True:
            try:
                status, answer, retry_after_s = await self._post(batch)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why, retry_after_s = f"{type(error).__name__}: {error}", 0.0
            else:
                self._patience_s = self._patience_later_s
                if status not in _AGAIN:
                    self._answered_at = time.monotonic()
                    await self._settle(batch, status, answer)
                    return
                why = f"{status} {answer.code}: {answer.detail}"
            if time.monotonic() - self._answered_at > self._patience_s:
                raise TryAgainError("sidecar_unavailable", f"{self._url}: nothing was taken for a while: {why}")
            jitter = 0.5 + secrets.randbelow(1000) / 1000
            await asyncio.sleep(max(retry_after_s, delay_s * jitter))
            delay_s = min(delay_s * 2, _BACKOFF_MAX_S)

    async def _post(self, batch: Batch) -> tuple[int, _Answer, float]:
        headers = {"Content-Type": _MEDIA_TYPE}
        if batch.key is not None:
            headers["Idempotency-Key"] = batch.key
        async with self._session.post(self._url, data=b"\n".join(batch.events), headers=headers) as response:
            content = await response.read()
            try:
                answer = _decode_answer(content)
            except msgspec.DecodeError:
                answer = _Answer(code="internal", detail="the answer is not from a sidecar")
            return response.status, answer, _retry_after_s(response.headers.get("Retry-After", ""))

    async def _settle(self, batch: Batch, status: int, answer: _Answer) -> None:
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and batch.key is None and len(batch.events) > 1:
            half = len(batch.events) // 2
            await self._send(Batch(batch.events[:half], batch.lines[:half]))
            await self._send(Batch(batch.events[half:], batch.lines[half:]))
        elif answer.accepted is not None:
            self._count(batch, answer, journaled=status == HTTPStatus.ACCEPTED)
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(batch.events) == 1:
            self.tally.refuse(Problem(batch.lines[0], None, answer.code, answer.detail))
        else:
            raise TaximeterError(answer.code or "internal", f"{self._url} answered {status}: {answer.detail}")

    def _count(self, batch: Batch, answer: _Answer, *, journaled: bool) -> None:
        tally, accepted = self.tally, answer.accepted or 0
        tally.sent += len(batch.events)
        tally.accepted += accepted
        tally.journaled += accepted if journaled else 0
        tally.duplicates += answer.duplicates or 0
        tally.conflicts += answer.conflicts or 0
        tally.rejected += answer.rejected
        for result in answer.results:
            if result.code != "duplicate" and result.index < len(batch.lines):
                tally.keep(Problem(batch.lines[result.index], result.id, result.code, result.message))


def _retry_after_s(text: str) -> float:
    return min(float(text), _RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0
