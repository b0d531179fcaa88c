"""The usual request, answered past aiohttp: a small POST of events that came in one piece.

Of what a single event costs over HTTP, two thirds are objects that a server makes for every request. A head of the
plain form that clients send, in which nothing can be read in two ways, is understood once and remembered by its bytes;
whatever else comes, and whatever is wrong with it, is aiohttp's to read and to answer.
"""

import re
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from sidecar.answers import Answer
from sidecar.api import EVENTS, TRACK, Api
from sidecar.contract.codes import TaximeterError
from sidecar.guard import Guard
from sidecar.taking import Submission

HEAD_BYTES_MAX: Final = 1024
HEADS_REMEMBERED: Final = 1024

_END: Final = b"\r\n\r\n"
_HEAD = re.compile(
    rf"POST ({EVENTS}|{TRACK}) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n".encode()
)
_LENGTH = re.compile("0|[1-9][0-9]{0,8}")
# What says how a body comes, or what is to become of the connection; `keep-alive` alone is usual.
_UNUSUAL: Final = ("Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade", "TE", "Trailer", "Keep-Alive")


class _Head(NamedTuple):
    submission: Submission
    body_bytes: int


class Desk:
    """Understands the usual requests of one listener; `guard` is None where everybody who can connect may."""

    def __init__(self, api: Api, guard: Guard | None) -> None:
        self.api = api
        self._guard = guard
        self._head = lru_cache(maxsize=HEADS_REMEMBERED)(self._read_head)

    def understand(self, data: bytes) -> tuple[Submission, bytes] | None:
        """Return the submission and the body when `data` is one usual request and nothing else, else None."""
        end = data.find(_END, 0, HEAD_BYTES_MAX) + len(_END)
        if end < len(_END) or len(data) - end > self.api.body_bytes_max:
            return None
        head = self._head(data[:end])
        if head is None or head.body_bytes != len(data) - end:
            return None
        return head.submission, data[end:]

    def _read_head(self, data: bytes) -> _Head | None:
        match = _HEAD.fullmatch(data)
        if match is None:
            return None
        lines = match[2].decode("ascii").removesuffix("\r\n").split("\r\n")
        headers = CIMultiDictProxy(CIMultiDict([_named(line) for line in lines]))
        if not _is_usual(headers):
            return None
        path = match[1].decode("ascii")
        try:
            if self._guard is not None:
                self._guard.check(path, headers)
            return _Head(self.api.submission(path, headers), int(headers["Content-Length"]))
        except TaximeterError:
            return None


def _named(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


def _is_usual(headers: CIMultiDictProxy[str]) -> bool:
    """Whether each header is there once, the length among them, and none changes how the request is to be read."""
    return (
        len({name.lower() for name in headers}) == len(headers)
        and _LENGTH.fullmatch(headers.get("Content-Length", "")) is not None
        and headers.get("Connection", "keep-alive").lower() == "keep-alive"
        and not any(name in headers for name in _UNUSUAL)
    )


class _Dates:
    """The header Date, made once a second."""

    def __init__(self) -> None:
        self._known = (0, b"")

    def now(self) -> bytes:
        """Return the time now as HTTP says it."""
        second = int(time.time())
        if self._known[0] != second:
            self._known = (second, formatdate(second, usegmt=True).encode())
        return self._known[1]


_date = _Dates().now


@lru_cache(maxsize=64)
def _first_lines(status: int, content_type: str, retry_after_s: int | None, connection: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    if retry_after_s is not None:
        lines.append(f"Retry-After: {retry_after_s}")
    if connection:
        lines.append(f"Connection: {connection}")
    return "\r\n".join([*lines, "Date: "]).encode()


def wire(answer: Answer) -> bytes:
    """Return an answer to a usual request as it is sent."""
    connection = "close" if answer.close else ""
    first = _first_lines(answer.status, answer.content_type, answer.retry_after_s, connection)
    return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (first, _date(), len(answer.body), answer.body)
