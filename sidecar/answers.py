"""What requests are answered with: what became of events, problems after RFC 9457, and their HTTP form."""

from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from sidecar.contract.codes import HTTP_STATUS, TaximeterError
from sidecar.contract.event import Identity
from sidecar.errors import Unavailable
from sidecar.ingest import Receipt
from sidecar.reading import Reading

JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"

_MADE: Final = frozenset({int(Identity.INDEXED), int(Identity.MADE)})
_encode = msgspec.json.Encoder().encode


class Result(msgspec.Struct, frozen=True):
    """What became of one event that was not simply accepted; `id` is null where it had none or can't be read."""

    index: int
    id: str | None
    code: str
    message: str | msgspec.UnsetType = msgspec.UNSET


class MadeId(msgspec.Struct, frozen=True):
    """The id, 32 hex digits, under which an event without one is stored."""

    index: int
    id: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of the events of a request. The counts add up to the events sent; null where it is not known yet."""

    accepted: int
    duplicates: int | None
    conflicts: int | None
    rejected: int
    results: list[Result]


class _Applied(msgspec.Struct, frozen=True):
    status: str
    accepted: int
    duplicates: int | None
    conflicts: int | None
    rejected: int
    results: list[Result]
    ids: list[MadeId] | msgspec.UnsetType = msgspec.UNSET


class _Problem(msgspec.Struct, frozen=True):
    type: str
    title: str
    status: int
    code: str
    detail: str
    accepted: int | msgspec.UnsetType = msgspec.UNSET
    duplicates: int | msgspec.UnsetType | None = msgspec.UNSET
    conflicts: int | msgspec.UnsetType | None = msgspec.UNSET
    rejected: int | msgspec.UnsetType = msgspec.UNSET
    results: list[Result] | msgspec.UnsetType = msgspec.UNSET


class Answer(NamedTuple):
    """An answer before it is HTTP. `code` is for the metrics: `applied`, `journaled`, `ok` or a problem's code."""

    status: int
    code: str
    body: bytes
    content_type: str = JSON_TYPE
    retry_after_s: int | None = None
    allow: str | None = None
    close: bool = False

    def response(self) -> web.Response:
        """Return the HTTP response."""
        headers = {"Content-Type": self.content_type}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        response = web.Response(status=self.status, body=self.body, headers=headers)
        if self.close:
            response.force_close()
        return response


def ok(value: object) -> Answer:
    """Return 200 with a value as JSON."""
    return Answer(HTTPStatus.OK, "ok", _encode(value))


def problem(code: str, detail: str, outcome: Outcome | None = None, *, status: int | None = None) -> Answer:
    """Return a problem; `status` is that of the code unless it is given. `outcome` says what became of each event."""
    number = HTTP_STATUS.get(code, HTTPStatus.UNPROCESSABLE_ENTITY) if status is None else status
    members = msgspec.structs.asdict(outcome) if outcome is not None else {}
    body = _Problem("about:blank", HTTPStatus(number).phrase, number, code, detail, **members)
    return Answer(number, code, _encode(body), PROBLEM_TYPE)


def problem_of(error: TaximeterError) -> Answer:
    """Return the problem that an error means."""
    if isinstance(error, Unavailable):
        status = HTTP_STATUS.get(error.code, HTTPStatus.SERVICE_UNAVAILABLE)
        return problem(error.code, error.message, status=status)._replace(retry_after_s=error.retry_after_s)
    status = HTTP_STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return problem(error.code, error.message, status=status)


def outcome_of(reading: Reading, receipt: Receipt) -> Outcome:
    """Return what became of each event that was read, once it was submitted."""
    results = [Result(entry.index, entry.id, entry.code, entry.message) for entry in reading.rejections]
    if receipt.duplicates or receipt.conflicts:
        ids = reading.ids()
        results += [Result(index, ids[index], "duplicate") for index in receipt.duplicates]
        results += [Result(index, ids[index], "conflict") for index in receipt.conflicts]
        results.sort(key=lambda result: result.index)
    return Outcome(
        accepted=reading.accepted - len(receipt.duplicates) - len(receipt.conflicts),
        duplicates=len(receipt.duplicates) if receipt.applied else None,
        conflicts=len(receipt.conflicts) if receipt.applied else None,
        rejected=len(reading.rejections),
        results=results,
    )


def refused_whole(reading: Reading) -> Outcome:
    """Return the outcome of a request of which nothing was submitted, because some of it was rejected."""
    results = [Result(entry.index, entry.id, entry.code, entry.message) for entry in reading.rejections]
    return Outcome(0, 0, 0, reading.total, results)


def applied(outcome: Outcome, reading: Reading, receipt: Receipt, *, with_ids: bool) -> Answer:
    """Return 200 when Redis has the events and 202 when they are only journaled."""
    ids: list[MadeId] | msgspec.UnsetType = msgspec.UNSET
    if with_ids:
        ids = [MadeId(event.index, event.key.hex()) for event in reading.events if event.identity in _MADE]
    status, code = (HTTPStatus.OK, "applied") if receipt.applied else (HTTPStatus.ACCEPTED, "journaled")
    return Answer(status, code, _encode(_Applied(code, **msgspec.structs.asdict(outcome), ids=ids)))
