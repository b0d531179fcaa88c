"""The HTTP interface: routes, and what each request becomes.

A request is a task of the sidecar's own: what was submitted is seen through even when the client has left.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Final, NamedTuple, Protocol

from aiohttp import web

from sidecar import answers, queries
from sidecar.answers import Answer, Outcome
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event
from sidecar.contract.identity import body_digest
from sidecar.contract.meters import Revision
from sidecar.errors import Unavailable
from sidecar.guard import Guard
from sidecar.ingest import Receipt
from sidecar.intake import Intake
from sidecar.live import LiveReading
from sidecar.metrics import CONTENT_TYPE, Metrics
from sidecar.openapi import document
from sidecar.reading import MEDIA_TYPES, Reading, Terms, read

_log = logging.getLogger(__name__)

_NOTHING: Final = Receipt(applied=True)


class Core(Protocol):
    """What the API asks of the ingest core; see `sidecar.ingest.Ingest`."""

    @property
    def revision(self) -> Revision:
        """The meters in force."""

    @property
    def event_floor_us(self) -> int:
        """Events at or before this time are too old."""

    @property
    def lanes(self) -> Sized:
        """One for each shard."""

    def now_us(self) -> int:
        """Return the time for events that have none."""

    def unready(self) -> TaximeterError | None:
        """Return why no event can be accepted now, or None."""

    async def submit(
        self, events: Sequence[Event], key: str | None, digest: bytes | None, assigned_us: int | None
    ) -> Receipt:
        """Make events durable and say what became of them. Raises Unavailable."""


class Usage(Protocol):
    """What the API asks of live usage; see `sidecar.live.LiveUsage`."""

    async def read(self, user_id: str, meter: str | None, start_us: int, end_us: int) -> LiveReading:
        """Return what the user has used. Raises TaximeterError, Unavailable among them."""


class Submission(NamedTuple):
    """A request that brings events, as far as its head says."""

    media_type: str
    key: str | None = None
    atomic: bool = False
    with_ids: bool = False
    single: bool = False


class Api:
    """Answers requests, each once."""

    def __init__(self, ingest: Core, live: Usage, intake: Intake, metrics: Metrics, *, request_events_max: int) -> None:
        self.stopping = False
        self._ingest = ingest
        self._live = live
        self._intake = intake
        self._metrics = metrics
        self._request_events_max = request_events_max
        self._owned: set[asyncio.Task[Answer]] = set()
        self._openapi = answers.ok(document())
        self._routes: dict[str, dict[str, Callable[[web.BaseRequest], Awaitable[Answer]]]] = {
            "/v1/events": {"POST": self._events},
            "/track": {"POST": self._track},
            "/v1/usage": {"GET": self._usage},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._expose},
            "/openapi.json": {"GET": self._describe},
        }

    @property
    def requests_in_flight(self) -> int:
        """How many requests are being worked on."""
        return len(self._owned)

    async def finish(self, deadline_s: float) -> None:
        """Refuse new requests from now on, and wait for those under way, but not longer than this."""
        self.stopping = True
        if self._owned:
            await asyncio.wait(self._owned, timeout=deadline_s)

    async def handle(self, request: web.BaseRequest, guard: Guard | None) -> web.StreamResponse:
        """Answer one request of a listener; `guard` is None where everybody who can connect may."""
        task = asyncio.create_task(self._guarded(request, guard))
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)
        await asyncio.wait((task,))
        error = task.exception()
        if error is None:
            answer = task.result()
        elif isinstance(error, TaximeterError):
            answer = answers.problem_of(error)
        else:
            _log.error("a request failed", exc_info=error, extra={"path": request.path[:80], "method": request.method})
            answer = answers.problem("internal", "a fault of the sidecar; its log says more")
        if self.stopping or not request.content.at_eof():
            answer = answer._replace(close=True)
        self._metrics.request_answered(answer.status, answer.code)
        return answer.response()

    async def _guarded(self, request: web.BaseRequest, guard: Guard | None) -> Answer:
        if guard is not None:
            guard.check(request.path, request.headers)
        return await self._route(request)

    async def _route(self, request: web.BaseRequest) -> Answer:
        methods = self._routes.get(request.path)
        if methods is None:
            return answers.problem("not_found", f"expected one of {', '.join(self._routes)}")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allow = ", ".join(methods)
            detail = f"{request.path}: expected {allow}, got {request.method[:20]}"
            return answers.problem("method_not_allowed", detail)._replace(allow=allow)
        return await handler(request)

    async def _events(self, request: web.BaseRequest) -> Answer:
        options = queries.options(request.rel_url.query if request.query_string else {}, ("atomic", "return"))
        submission = Submission(
            queries.media_type(request.headers),
            queries.idempotency_key(request.headers),
            atomic=queries.choice(options, "atomic", ("false", "true")) == "true",
            with_ids=queries.choice(options, "return", ("", "ids")) == "ids",
        )
        return await self._submit(request, submission)

    async def _track(self, request: web.BaseRequest) -> Answer:
        key = queries.idempotency_key(request.headers)
        return await self._submit(request, Submission(queries.media_type(request.headers), key, single=True))

    async def _submit(self, request: web.BaseRequest, submission: Submission) -> Answer:
        if submission.media_type not in MEDIA_TYPES:
            raise TaximeterError(
                "content_type_unsupported",
                f"Content-Type: expected one of {', '.join(MEDIA_TYPES)}, got {submission.media_type[:80]!r}",
            )
        if self.stopping:
            raise Unavailable("stopping", "the sidecar is stopping; try again")
        began_at = time.perf_counter()
        try:
            return await self._take(submission, await self._intake.read(request))
        finally:
            self._metrics.request_seconds.observe(time.perf_counter() - began_at)

    async def _take(self, submission: Submission, body: bytes) -> Answer:
        try:
            reading, now_us = self._read(submission, body)
            if submission.atomic and reading.rejections:
                return self._refuse_whole(reading)
            receipt = _NOTHING
            if reading.events:
                digest = body_digest(submission.media_type, body) if submission.key is not None else None
                receipt = await self._ingest.submit(reading.events, submission.key, digest, now_us)
        finally:
            self._intake.release(len(body))
        return self._settle(submission, reading, receipt)

    def _read(self, submission: Submission, body: bytes) -> tuple[Reading, int]:
        """Return what the body holds and the time that its events without one were given.

        No `await` may stand between the two and `submit`: the time would be before a watermark by then (rule 10).
        """
        problem = self._ingest.unready()
        if problem is not None:
            raise problem if isinstance(problem, Unavailable) else Unavailable(problem.code, problem.message)
        now_us = self._ingest.now_us()
        terms = Terms(
            now_us=now_us,
            floor_us=self._ingest.event_floor_us,
            revision=self._ingest.revision,
            shards=len(self._ingest.lanes),
            random_bytes=os.urandom,
            idempotency_key=submission.key,
            events_max=self._request_events_max,
        )
        reading = read(submission.media_type, body, terms)
        if submission.single and reading.total != 1:
            raise TaximeterError("body_invalid", f"body: expected one event, got {reading.total}; use /v1/events")
        self._metrics.request_events.observe(reading.total)
        return reading, now_us

    def _refuse_whole(self, reading: Reading) -> Answer:
        outcome = answers.refused_whole(reading)
        self._count_outcome(outcome, _NOTHING)
        detail = (
            f"{len(outcome.results)} of {reading.total} events can't be accepted; with atomic=true nothing was applied"
        )
        return answers.problem("no_event_accepted", detail, outcome)

    def _settle(self, submission: Submission, reading: Reading, receipt: Receipt) -> Answer:
        if receipt.reused:
            self._metrics.events_taken("conflict", len(reading.events))
            return answers.problem(
                "idempotency_key_reused",
                "Idempotency-Key: used before with another body; nothing was applied, mended events need a new key",
            )
        outcome = answers.outcome_of(reading, receipt)
        self._count_outcome(outcome, receipt)
        if reading.total and outcome.rejected + (outcome.conflicts or 0) == reading.total:
            if submission.single:
                (result,) = outcome.results
                return answers.problem(
                    result.code, result.message or "the event was accepted before, with other content"
                )
            detail = f"all {reading.total} events were rejected or in conflict; results says why"
            return answers.problem("no_event_accepted", detail, outcome)
        if submission.single:
            return answers.ok({"success": True})
        return answers.applied(outcome, reading.events, receipt, with_ids=submission.with_ids)

    def _count_outcome(self, outcome: Outcome, receipt: Receipt) -> None:
        if outcome.accepted:
            self._metrics.events_taken("accepted" if receipt.applied else "journaled", outcome.accepted)
        for entry in outcome.results:
            self._metrics.events_taken(entry.code)

    async def _usage(self, request: web.BaseRequest) -> Answer:
        query = queries.usage_query(request.rel_url.query, self._ingest.now_us())
        live = await self._live.read(query.user_id, query.meter, query.start_us, query.end_us)
        return answers.ok(queries.usage_of(query, live, self._ingest.revision))

    async def _livez(self, _request: web.BaseRequest) -> Answer:
        return answers.ok({"status": "ok"})

    async def _readyz(self, _request: web.BaseRequest) -> Answer:
        problem = self._ingest.unready()
        if self.stopping:
            problem = Unavailable("stopping", "the sidecar is stopping")
        if problem is not None:
            return answers.problem(problem.code, problem.message, status=503)
        return answers.ok({"status": "ready"})

    async def _expose(self, _request: web.BaseRequest) -> Answer:
        return Answer(200, "ok", self._metrics.exposition(), CONTENT_TYPE)

    async def _describe(self, _request: web.BaseRequest) -> Answer:
        return self._openapi
