"""The little HTTP that the run itself speaks with a sidecar, past all proxies."""

import http.client
import socket
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 3.0


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def http_get(path: Path, target: str) -> tuple[int, str]:
    """Returns status and body of a GET. Raises OSError when nobody answers."""
    connection = _OverUnix(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()
