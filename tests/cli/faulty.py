"""The way to a real sidecar, with faults on it: requests that never arrive, answers that never come back."""

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Fault = Literal["none", "lose_request", "lose_answer", "busy", "too_large", "not_a_sidecar"]


class Request(NamedTuple):
    """A request on the way: how many were before it, how many events it has, and its body."""

    number: int
    events: int
    body: bytes


class FaultyWay:
    """Passes requests on to the sidecar at `url`, as `fault` says for each of them."""

    def __init__(self, url: str, fault: Callable[[Request], Fault]) -> None:
        self.sidecar = urlsplit(url)
        self.fault = fault
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    def take(self, body: bytes) -> Fault:
        """Note a request and say what happens to it."""
        with self.lock:
            request = Request(len(self.requests), body.count(b"\n") + 1, body)
            self.requests.append(request)
            return self.fault(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    way: FaultyWay
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.way.take(body)
        if fault == "lose_request":
            self.close_connection = True
        elif fault == "busy":
            self.answer(503, b'{"code": "journal_full", "detail": "busy"}', {"Retry-After": "0"})
        elif fault == "too_large":
            self.answer(413, b'{"code": "too_many_events", "detail": "too many"}', {})
        elif fault == "not_a_sidecar":
            self.answer(404, b"<html>", {})
        else:
            status, content = self.passed_on(body)
            if fault == "lose_answer":
                self.close_connection = True
            else:
                self.answer(status, content, {})

    def passed_on(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.way.sidecar.hostname or "", self.way.sidecar.port, timeout=30)
        names = ("Content-Type", "Idempotency-Key", "Authorization")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        try:
            connection.request("POST", self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object, **__: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: that the other side has gone is what these tests are about."""


@contextmanager
def faulty_way(url: str, fault: Callable[[Request], Fault]) -> Iterator[tuple[str, FaultyWay]]:
    """Listen on a port of our own; gives its URL, and what came along."""
    way = FaultyWay(url, fault)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"way": way}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", way
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
