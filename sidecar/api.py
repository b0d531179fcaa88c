"""The HTTP interface: routes, and what each request becomes.

A request is a task of the sidecar's own: what was submitted is seen through even when the client has left.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from sidecar import answers, queries
from sidecar.answers import Answer
from sidecar.contract.codes import TaximeterError
from sidecar.errors import Unavailable
from sidecar.guard import Guard
from sidecar.intake import Intake
from sidecar.live import LiveReading
from sidecar.metrics import CONTENT_TYPE, Metrics
from sidecar.openapi import document
from sidecar.reading import MEDIA_TYPES
from sidecar.taking import KEY_REUSED, Core, Submission, Taking

_log = logging.getLogger(__name__)


class Usage(Protocol):
    """What the API asks of live usage; see `sidecar.live.LiveUsage`."""

    async def read(self, user_id: str, meter: str | None, start_us: int, end_us: int) -> LiveReading:
        """Return what the user has used. Raises TaximeterError, Unavailable among them."""


class Api:
    """Answers requests, each once."""

    def __init__(self, ingest: Core, live: Usage, intake: Intake, metrics: Metrics, taking: Taking) -> None:
        self.stopping = False
        self._ingest = ingest
        self._live = live
        self._intake = intake
        self._metrics = metrics
        self._taking = taking
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
        taken = await self._taking.take(submission, body)
        outcome, total = taken.outcome, taken.reading.total
        if taken.refused_whole:
            refused = f"{len(outcome.results)} of {total} events can't be accepted"
            return answers.problem("no_event_accepted", f"{refused}; with atomic=true nothing was applied", outcome)
        if taken.receipt.reused:
            return answers.problem("idempotency_key_reused", f"Idempotency-Key: {KEY_REUSED}")
        if taken.nothing_accepted:
            if submission.single:
                (result,) = outcome.results
                return answers.problem(
                    result.code, result.message or "the event was accepted before, with other content"
                )
            detail = f"all {total} events were rejected or in conflict; results says why"
            return answers.problem("no_event_accepted", detail, outcome)
        if submission.single:
            return answers.ok({"success": True})
        return answers.applied(outcome, taken.reading, taken.receipt, with_ids=submission.with_ids)

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
