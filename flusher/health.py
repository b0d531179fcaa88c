"""The flusher's health over HTTP, on a thread of its own: /livez, /readyz and /metrics, and nothing else."""

import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Self

from flusher.metrics import CONTENT_TYPE, Metrics
from sidecar.contract.codes import CODES, TaximeterError, TryAgainError
from sidecar.contract.settings import Address

READ_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 32


class Health(Metrics):
    """The metrics of a flusher, and whether it is ready.

    Ready means that the last cycle went well. Alive means that the process answers: a drain may take long, and to
    start it over would only make it longer, so a slow cycle is for an alarm on
    `taximeter_flusher_last_cycle_timestamp_seconds`, not for a restart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unready: TaximeterError | None = TryAgainError("starting", CODES["starting"])

    def cycle_ended(self, took_s: float) -> None:
        """Be ready."""
        super().cycle_ended(took_s)
        self.unready = None

    def failed(self, error: TaximeterError) -> None:
        """Be ready no longer, until a cycle goes well."""
        super().failed(error)
        self.unready = error


class Answer(NamedTuple):
    """What is answered to a request."""

    status: HTTPStatus
    content_type: str
    body: bytes


def answer(path: str, health: Health) -> Answer:
    """Return what to answer to GET `path`."""
    match path.partition("?")[0]:
        case "/livez":
            return _json(HTTPStatus.OK, {"status": "ok"})
        case "/readyz":
            unready = health.unready
            if unready is None:
                return _json(HTTPStatus.OK, {"status": "ok"})
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, unready.code, unready.message)
        case "/metrics":
            return Answer(HTTPStatus.OK, CONTENT_TYPE, health.exposition())
        case _:
            return _problem(HTTPStatus.NOT_FOUND, "not_found", "expected /livez, /readyz or /metrics")


def _json(status: HTTPStatus, value: object, content_type: str = "application/json") -> Answer:
    return Answer(status, content_type, json.dumps(value).encode() + b"\n")


def _problem(status: HTTPStatus, code: str, detail: str) -> Answer:
    """Return an answer in the form of RFC 9457."""
    value = {"title": status.phrase, "status": int(status), "code": code, "detail": detail}
    return _json(status, value, "application/problem+json")


class HealthServer:
    """Serves a `Health` on `address` from its making on, until `close`.

    Raises TaximeterError `config_invalid` from its constructor when it can't listen there.
    """

    def __init__(self, address: Address, health: Health) -> None:
        try:
            self._server = _Server(address, health)
        except OSError as error:
            raise TaximeterError(
                "config_invalid", f"--health-http: can't listen on {address}: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where it listens: with the port that was chosen where the setting says 0."""
        host, port = self._server.server_address[:2]
        return Address(str(host), int(port))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(READ_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX  # the default of 5 lets a probe wait for a second

    def __init__(self, address: Address, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((address.host, address.port), _handler(lambda path: answer(path, health)))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread, or close it when there are too many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and give back its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()


def _handler(answer_to: Callable[[str], Answer]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = READ_TIMEOUT_S

        def do_GET(self) -> None:
            status, content_type, body = answer_to(self.path)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object, **__: object) -> None:
            """Log nothing: probes come every few seconds."""

    return Handler
