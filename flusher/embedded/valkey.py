"""A Valkey (or Redis) server of our own: one process, one Unix socket, an append-only file on disk."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flusher.embedded.binaries import find_valkey
from flusher.embedded.process import Child
from flusher.embedded.server import LOCK_DEADLINE_S, EmbeddedServer
from flusher.embedded.sockets import socket_directory

_SOCKET_NAME = "valkey.sock"
_PING_DEADLINE_S = 1.0
_DEFAULTS: Mapping[str, str] = {
    "appendonly": "yes",  # what was acknowledged survives a restart, but for the last second
    "appendfsync": "everysec",
    "save": "",  # the append-only file is enough; no snapshots beside it
    "maxmemory-policy": "noeviction",  # an evicted counter would be lost usage
}


class ValkeyServer(EmbeddedServer):
    """A Valkey server that keeps its data in ``data_dir`` and listens on a Unix socket.

    ``options`` are settings of the server by their own names, over the defaults (append-only file synced every
    second, no snapshots, no eviction); ``tcp_port`` opens that port on 127.0.0.1 as well; ``program`` names a
    server on PATH instead of the embedded one. Nothing runs before `start`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        tcp_port: int | None = None,
        program: str | None = None,
    ) -> None:
        super().__init__("Valkey", data_dir)
        self._options = {**_DEFAULTS, **(options or {})}
        self._tcp_port = tcp_port
        self._program = program

    @property
    def socket(self) -> Path:
        """The Unix socket's path, in ``data_dir`` or, where that is too long, in a short directory of its own."""
        return self._sockets / _SOCKET_NAME

    @property
    def url(self) -> str:
        """The address of the Unix socket, as redis-py's ``from_url`` takes it."""
        return f"unix://{quote(str(self.socket))}"

    def start(self, *, deadline_s: float = 60.0) -> None:
        """Start it; loading a large append-only file takes time. Raises as `EmbeddedServer.start` says."""
        program = find_valkey(self._program)
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sockets = socket_directory(self.data_dir, _SOCKET_NAME)
        lock = self._lock.acquire(deadline_s=LOCK_DEADLINE_S)
        settings = {
            "port": str(self._tcp_port or 0),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "daemonize": "no",
            **self._options,
        }
        command = [str(program), *(part for name, value in settings.items() for part in (f"--{name}", value))]
        try:
            self._child = Child(self.name, command, log=self.log, directory=self.data_dir, keep_open=[lock])
        finally:
            self._lock.release()
        self._child.wait_ready(self._answers, deadline_s=deadline_s)

    def _answers(self) -> bool:
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=_PING_DEADLINE_S,
            socket_connect_timeout=_PING_DEADLINE_S,
            retry=Retry(NoBackoff(), 0),  # the caller asks again, and sooner
        )
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its file
            return False
        finally:
            client.close()
