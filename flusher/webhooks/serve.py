"""Receives Stripe's events over HTTP. 200 says that what an event did is committed; anything else asks for it again.

Stripe sends an event again for three days, less and less often, until it gets a 2xx.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect, first_line
from flusher.invoicing.finals import Finals
from flusher.invoicing.store import rows
from flusher.metrics import CONTENT_TYPE
from flusher.serving import Answer, Handler, HttpServer, json_answer, problem
from flusher.webhooks.metrics import Metrics
from flusher.webhooks.receive import Door, receive
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.settings import Address

PATH: Final = "/v1/stripe/events"
BODY_MAX: Final = 1 << 20
CONNECTIONS_MAX: Final = 64
WORKERS: Final = 8
WAIT_S: Final = 10.0
"""How long a request waits for one of the workers. Stripe gives up on us after some 20 seconds."""
READ_TIMEOUT_S: Final = 5.0
_SAID_AGAIN_S: Final = 10.0

_STATUS: Final = {
    "signature_invalid": HTTPStatus.BAD_REQUEST,
    "stripe_event_invalid": HTTPStatus.BAD_REQUEST,
    "stripe_account_changed": HTTPStatus.FORBIDDEN,
}

_log = logging.getLogger(__name__)


class _Worker(NamedTuple):
    """What handling an event takes: a connection in autocommit mode, and a gateway."""

    connection: psycopg.Connection[TupleRow]
    gateway: Finals

    def close(self) -> None:
        """Give both back."""
        self.connection.close()
        self.gateway.close()


class Desk:
    """Handles requests, a few at a time. `make_gateway` is called once a worker."""

    def __init__(self, database_url: str, make_gateway: Callable[[], Finals], door: Door) -> None:
        self.metrics = Metrics()
        self._url = database_url
        self._make_gateway = make_gateway
        self._door = door
        self._workers: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(WORKERS):
            self._workers.put(None)
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def handle(self, body: bytes, header: str) -> Answer:
        """Let an event take effect and return the answer."""
        try:
            event = self._door.open(body, header)  # nobody else gets as far as a worker
            with self._worker() as (connection, gateway):
                self._door.check(connection, event)
                outcome = receive(connection, gateway, event)
        except TaximeterError as error:
            return self._refuse(error)
        self.metrics.events.labels(outcome.value).inc()
        return json_answer(HTTPStatus.OK, {"event": event.id, "outcome": outcome.value})

    def ready(self) -> Answer:
        """Say whether PostgreSQL answers."""
        try:
            with self._worker() as (connection, _):
                rows(connection, "find_binding")
        except TaximeterError as error:
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, error.message)
        return json_answer(HTTPStatus.OK, {"status": "ok"})

    def count(self, answer: Answer, code: str) -> Answer:
        """Count a request that was refused before it came here."""
        self.metrics.refusals.labels(code).inc()
        return answer

    def close(self) -> None:
        """Close what no request uses."""
        while not self._workers.empty():
            worker = self._workers.get()
            if worker is not None:
                worker.close()

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        """Lend a worker. Raises TryAgainError: overloaded, database_unavailable."""
        try:
            worker = self._workers.get(timeout=WAIT_S)
        except queue.Empty:
            raise TryAgainError("overloaded", "too many events at once") from None
        try:
            worker = worker or _Worker(connect(self._url, autocommit=True), self._make_gateway())
            yield worker
        except psycopg.Error as error:
            if worker is not None and worker.connection.broken:
                worker.close()
                worker = None
            raise TryAgainError("database_unavailable", f"PostgreSQL: {first_line(error)}") from error
        finally:
            self._workers.put(worker)

    def _refuse(self, error: TaximeterError) -> Answer:
        self.metrics.refusals.labels(error.code).inc()
        with self._lock:  # whoever sends rubbish must not fill the log
            now = time.monotonic()
            if now - self._said.get(error.code, -_SAID_AGAIN_S) >= _SAID_AGAIN_S:
                self._said[error.code] = now
                _log.warning("an event was not taken: %s", error)
        status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, TryAgainError) else _STATUS.get(error.code)
        return problem(status or HTTPStatus.INTERNAL_SERVER_ERROR, error.code, error.message)


def serve(address: Address, desk: Desk) -> HttpServer:
    """Listen. Raises TaximeterError `config_invalid` when that can't be done."""

    class Receiver(Handler):
        timeout = READ_TIMEOUT_S

        def get(self) -> Answer:
            """Answer a probe."""
            match self.path.partition("?")[0]:
                case "/livez":
                    return json_answer(HTTPStatus.OK, {"status": "ok"})
                case "/readyz":
                    return desk.ready()
                case "/metrics":
                    return Answer(HTTPStatus.OK, CONTENT_TYPE, desk.metrics.exposition())
                case _:
                    text = f"expected POST {PATH}, or GET /livez, /readyz or /metrics"
                    return problem(HTTPStatus.NOT_FOUND, "not_found", text)

        def post(self) -> Answer:
            """Take an event."""
            if self.path.partition("?")[0] != PATH:
                return desk.count(problem(HTTPStatus.NOT_FOUND, "not_found", f"expected POST {PATH}"), "not_found")
            body = self.read_body(BODY_MAX)
            if isinstance(body, Answer):
                return desk.count(body, "body_invalid")
            return desk.handle(body, self.headers.get("Stripe-Signature", ""))

    return HttpServer(address, Receiver, flag="--webhooks-http", name="webhooks", most=CONNECTIONS_MAX)
