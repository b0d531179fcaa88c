"""Batches over HTTP, on TCP or a Unix socket: one at a time on each connection."""

import http.client
import socket
import time
from http import HTTPStatus
from typing import Final

import msgspec

from sidecar.client.backlog import Batch
from sidecar.client.link import LinkError, connected
from sidecar.client.tally import Later, Refused, Result, Settled, Verdict

CONNECTIONS_MAX: Final = 4
# What a sidecar takes by default. One that takes less says so, and the batch is split.
EVENTS_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
ANSWER_BYTES_MAX: Final = 16 << 20

_PATH: Final = "/v1/events"
_FOR_GOOD: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)


class _Result(msgspec.Struct):
    index: int
    code: str
    message: str = ""


class _Answer(msgspec.Struct):
    """An answer or a problem, as far as it says what became of events."""

    code: str = ""
    detail: str = ""
    accepted: int | None = None
    duplicates: int | None = None
    conflicts: int | None = None
    rejected: int = 0
    results: list[_Result] = []


_decode = msgspec.json.Decoder(_Answer).decode


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("sidecar", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = connected(self._path, self._timeout_s)


class HttpLink:
    """One connection that carries one request at a time; a `Link`."""

    events_max = EVENTS_MAX
    bytes_max = BYTES_MAX

    def __init__(self, connection: http.client.HTTPConnection, token: str | None, timeout_s: float) -> None:
        """Connect. Raises LinkError."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._batch: Batch | None = None
        self._sent_at_s = 0.0
        self._headers = {"Content-Type": "application/msgpack"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            connection.connect()
        except OSError as error:
            raise LinkError(f"can't connect: {error.strerror or error}") from error

    @property
    def unanswered(self) -> list[Batch]:
        """The batch that was sent and not answered."""
        return [] if self._batch is None else [self._batch]

    @property
    def has_room(self) -> bool:
        """Whether the last request was answered."""
        return self._batch is None

    @property
    def deadline_s(self) -> float | None:
        """When the answer is overdue."""
        return None if self._batch is None else self._sent_at_s + self._timeout_s

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        sock: socket.socket | None = self._connection.sock
        return -1 if sock is None else sock.fileno()

    def send(self, batch: Batch) -> None:
        """Send a request. Raises LinkError."""
        self._batch = batch
        self._sent_at_s = time.monotonic()
        try:
            self._connection.request("POST", _PATH, batch.body, {**self._headers, "Idempotency-Key": batch.key})
        except (OSError, http.client.HTTPException) as error:
            raise LinkError(f"a request broke off: {error}") from error

    def receive(self) -> list[tuple[Batch, Verdict]]:
        """Return the answer. Raises LinkError, also for one that is too long or ends too early."""
        batch = self._batch
        if batch is None:
            raise LinkError("the sidecar closed the connection")
        try:
            response = self._connection.getresponse()
            body = response.read(ANSWER_BYTES_MAX)
            if not response.isclosed():
                raise LinkError(f"an answer is longer than {ANSWER_BYTES_MAX} bytes")
        except (OSError, http.client.HTTPException) as error:
            raise LinkError(f"no answer: {error or type(error).__name__}") from error
        self._batch = None
        if response.will_close:
            self._connection.close()
        return [(batch, _verdict(response, body, batch.count))]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _verdict(response: http.client.HTTPResponse, body: bytes, count: int) -> Verdict:
    status = response.status
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Later(f"{status} that is no answer of a sidecar", None)
    if answer.accepted is not None and status in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.UNPROCESSABLE_ENTITY):
        results = [Result(each.index, each.code, each.message) for each in answer.results if each.index < count]
        return Settled(answer.accepted, answer.duplicates or 0, answer.conflicts or 0, answer.rejected, results)
    if status in _FOR_GOOD and answer.code:
        return Refused(answer.code, answer.detail)
    return Later(f"{status} {answer.code or response.reason}: {answer.detail}", _seconds(response))


def _seconds(response: http.client.HTTPResponse) -> float | None:
    """Return what Retry-After says; dates are not read, a sidecar sends none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else None


def http_link(address: str, token: str | None, timeout_s: float) -> HttpLink:
    """Connect to `unix://PATH` or `http://HOST:PORT`. Raises LinkError."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return HttpLink(_UnixConnection(rest, timeout_s), token, timeout_s)
    return HttpLink(http.client.HTTPConnection(rest.rstrip("/"), timeout=timeout_s), token, timeout_s)
