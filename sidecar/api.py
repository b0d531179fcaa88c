"""The HTTP interface: routes, and what each request becomes.

What was submitted is seen through even when the client has left: nobody cancels the task that works on it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final, Protocol

from aiohttp import web
from multidict import CIMultiDictProxy

from sidecar import answers, queries
from sidecar.answers import Answer, Outcome
from sidecar.contract.codes import TaximeterError
from sidecar.errors import Unavailable
from sidecar.guard import Guard
from sidecar.ingest import Receipt
from sidecar.intake import Intake
from sidecar.live import LiveReading
from sidecar.metrics import CONTENT_TYPE, Metrics
from sidecar.openapi import document
from sidecar.reading import MEDIA_TYPES, VOID_MEDIA_TYPES, Reading
from sidecar.taking import KEY_REUSED, Core, Submission, Taken, Taking

EVENTS: Final = "/v1/events"
VOID: Final = "/v1/events/void"
TRACK: Final = "/track"

_log = logging.getLogger(__name__)


class Usage(Protocol):
    """What the API asks of live usage; see `sidecar.live.LiveUsage`."""

    async def read(
        self, user_id: str, meter: str | None, start_us: int, end_us: int, event_type: str | None = None
    ) -> LiveReading:
        """Return what the user has used. Raises TaximeterError, Unavailable among them."""


@lru_cache(maxsize=1024)
def _all_accepted(count: int, *, applied: bool) -> Answer:
    """Return the answer where nothing else is to be said than how many events there were."""
    known = 0 if applied else None
    outcome = Outcome(count, known, known, 0, [])
    return answers.applied(outcome, Reading({}, []), Receipt(applied=applied), with_ids=False)


def _problem_of(error: Exception, path: str) -> Answer:
    """Return the problem that a request ends with; what is no error of its own is a fault of ours, and logged."""
    if isinstance(error, TaximeterError):
        return answers.problem_of(error)
    _log.error("a request failed", exc_info=error, extra={"path": path[:80]})
    return answers.problem("internal", "a fault of the sidecar; its log says more")


class Api:
    """Answers requests, each once."""

    def __init__(self, ingest: Core, live: Usage, intake: Intake, metrics: Metrics, taking: Taking) -> None:
        self.stopping = False
        self.body_bytes_max = intake.body_bytes_max
        self._ingest = ingest
        self._live = live
        self._intake = intake
        self._metrics = metrics
        self._taking = taking
        self.requests_in_flight = 0
        self._finished = asyncio.Event()
        self._openapi = answers.ok(document())
        self._routes: dict[str, dict[str, Callable[[web.BaseRequest], Awaitable[Answer]]]] = {
            EVENTS: {"POST": self._events},
            VOID: {"POST": self._void},
            TRACK: {"POST": self._track},
            "/v1/usage": {"GET": self._usage},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._expose},
            "/openapi.json": {"GET": self._describe},
        }

    async def finish(self, deadline_s: float) -> None:
        """Refuse new requests from now on, and wait for those under way, but not longer than this."""
        self.stopping = True
        if self.requests_in_flight:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._finished.wait()

    async def handle(self, request: web.BaseRequest, guard: Guard | None) -> web.StreamResponse:
        """Answer one request of a listener; `guard` is None where everybody who can connect may."""
        self.requests_in_flight += 1
        try:
            answer = await self._guarded(request, guard)
        except Exception as error:
            answer = _problem_of(error, request.path)
        finally:
            self._end_one()
        answer = self._counted(answer)
        return (answer if request.content.at_eof() else answer._replace(close=True)).response()

    async def take(self, submission: Submission, body: bytes) -> Answer:
        """Answer a usual request (`sidecar.direct`), of which the body is here already."""
        began_at = time.perf_counter()
        self.requests_in_flight += 1
        try:
            self._intake.admit(len(body))
            answer = await self._take(submission, body)
        except Exception as error:
            answer = _problem_of(error, EVENTS)
        finally:
            self._end_one()
        self._metrics.request_seconds.observe(time.perf_counter() - began_at)
        return self._counted(answer)

    def _end_one(self) -> None:
        self.requests_in_flight -= 1
        if self.stopping and not self.requests_in_flight:
            self._finished.set()

    def _counted(self, answer: Answer) -> Answer:
        self._metrics.request_answered(answer.status, answer.code)
        return answer._replace(close=True) if self.stopping else answer

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
        submission = self.submission(request.path, request.headers)._replace(
            atomic=queries.choice(options, "atomic", ("false", "true")) == "true",
            with_ids=queries.choice(options, "return", ("", "ids")) == "ids",
        )
        return await self._submit(request, submission)

    async def _void(self, request: web.BaseRequest) -> Answer:
        options = queries.options(request.rel_url.query if request.query_string else {}, ("atomic",))
        submission = self.submission(request.path, request.headers)
        atomic = queries.choice(options, "atomic", ("false", "true")) == "true"
        return await self._submit(request, submission._replace(atomic=atomic))

    async def _track(self, request: web.BaseRequest) -> Answer:
        return await self._submit(request, self.submission(request.path, request.headers))

    @staticmethod
    def submission(path: str, headers: CIMultiDictProxy[str]) -> Submission:
        """Return what a head says of a body of events. Raises TaximeterError for what is wrong with it."""
        media_type, key = queries.media_type(headers), queries.idempotency_key(headers)
        known = VOID_MEDIA_TYPES if path == VOID else MEDIA_TYPES
        if media_type not in known:
            raise TaximeterError(
                "content_type_unsupported",
                f"Content-Type: expected one of {', '.join(known)}, got {media_type[:80]!r}",
            )
        return Submission(media_type, key, single=path == TRACK, voids=path == VOID)

    async def _submit(self, request: web.BaseRequest, submission: Submission) -> Answer:
        if self.stopping:
            raise Unavailable("stopping", "the sidecar is stopping; try again")
        began_at = time.perf_counter()
        try:
            return await self._take(submission, await self._intake.read(request))
        finally:
            self._metrics.request_seconds.observe(time.perf_counter() - began_at)

    async def _take(self, submission: Submission, body: bytes) -> Answer:
        taken = await self._taking.take(submission, body)
        outcome, receipt = taken.outcome, taken.receipt
        if outcome.accepted and not (outcome.results or receipt.reused or submission.single or submission.with_ids):
            return _all_accepted(outcome.accepted, applied=receipt.applied)
        return self._answer(submission, taken)

    @staticmethod
    def _answer(submission: Submission, taken: Taken) -> Answer:
        """Return the answer to a body of which something is to be said, or the client wants to hear something else."""
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
        live = await self._live.read(query.user_id, query.meter, query.start_us, query.end_us, query.event_type)
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
