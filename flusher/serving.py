"""A small HTTP server on threads of its own: a bounded number of connections, one request each."""

import contextlib
import http.server
import json
import logging
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Self

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address

CLOSE_TIMEOUT_S: Final = 5.0
REQUEST_DEADLINE_S: Final = 10.0

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What is answered to a request."""

    status: HTTPStatus
    content_type: str
    body: bytes


def json_answer(status: HTTPStatus, value: object, content_type: str = "application/json") -> Answer:
    """Return an answer in JSON."""
    return Answer(status, content_type, json.dumps(value).encode() + b"\n")


def problem(status: HTTPStatus, code: str, detail: str) -> Answer:
    """Return an answer in the form of RFC 9457."""
    value = {"title": status.phrase, "status": int(status), "code": code, "detail": detail}
    return json_answer(status, value, "application/problem+json")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request; what it answers to each method is for whoever derives from it.

    A request that has not come `REQUEST_DEADLINE_S` after its connection is cut off, however busily it comes.
    """

    def setup(self) -> None:
        """Begin to read, with a deadline."""
        super().setup()
        self._deadline = threading.Timer(REQUEST_DEADLINE_S, self._cut)
        self._deadline.daemon = True
        self._deadline.start()

    def finish(self) -> None:
        """End."""
        self._deadline.cancel()
        super().finish()

    def do_GET(self) -> None:
        """Answer."""
        self._give(self.get())

    def do_POST(self) -> None:
        """Answer."""
        self._give(self.post())

    def get(self) -> Answer:
        """Return the answer to GET."""
        return problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "expected POST")

    def post(self) -> Answer:
        """Return the answer to POST."""
        return problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "expected GET")

    def read_body(self, most: int) -> bytes | Answer:
        """Return the body of a request, or the answer to one that has none that can be taken."""
        told = self.headers.get("Content-Length", "")
        if not (told.isascii() and told.isdigit() and len(told) <= 12):
            return problem(HTTPStatus.BAD_REQUEST, "body_invalid", "expected a header Content-Length")
        if int(told) > most:
            text = f"expected at most {most} bytes, got {told}"
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", text)
        body = self.rfile.read(int(told))
        self._deadline.cancel()
        if len(body) < int(told):
            return problem(HTTPStatus.REQUEST_TIMEOUT, "read_timeout", "the body did not come")
        return body

    def log_message(self, *_: object, **__: object) -> None:
        """Log nothing: probes come every few seconds."""

    def _give(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)


class HttpServer:
    """Serves on `address` from its making on, until `close`; connections above `most` are closed at once.

    Raises TaximeterError `config_invalid` from its constructor when it can't listen there; `flag` names the setting.
    """

    def __init__(self, address: Address, handler: type[Handler], *, flag: str, name: str, most: int) -> None:
        try:
            self._server = _Server(address, handler, most)
        except OSError as error:
            raise TaximeterError(
                "config_invalid", f"{flag}: can't listen on {address}: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name=name, daemon=True)
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
        self._thread.join(CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, address: Address, handler: type[Handler], most: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.request_queue_size = most  # the default of 5 lets a probe wait for a second
        self._slots = threading.BoundedSemaphore(most)
        super().__init__((address.host, address.port), handler)

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

    def handle_error(self, *_: object, **__: object) -> None:
        """Log a fault of ours; that a client went away is none."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("a request was not answered")
