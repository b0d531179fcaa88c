"""What the two embedded servers have in common: a directory, a lock on it, a log, a process, a socket."""

from abc import ABC, abstractmethod
from pathlib import Path

from flusher.embedded.process import Child, DirectoryLock
from flusher.embedded.sockets import remove_socket_directory
from sidecar.contract.codes import TaximeterError

LOCK_DEADLINE_S = 10.0


class EmbeddedServer(ABC):
    """A server whose whole state is in ``data_dir``. Nothing runs before `start`; start from the main thread."""

    def __init__(self, name: str, data_dir: Path) -> None:
        self.name = name
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir / f"{name.lower()}.log"
        self._lock = DirectoryLock(self.data_dir / f"{name.lower()}.lock")
        self._sockets = self.data_dir
        self._child: Child | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that clients take."""

    @abstractmethod
    def start(self, *, deadline_s: float = 60.0) -> None:
        """Start it on whatever ``data_dir`` holds and wait until it answers.

        Raises TaximeterError: server_missing when there is no program to start; server_failed with the end of the
        log when it is not ready within ``deadline_s``, or when another server still works in the directory.
        """

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it does not run."""
        return self._child.pid if self._child and self._child.exit_status is None else None

    def stop(self, *, deadline_s: float = 30.0) -> None:
        """Stop it in order, with everything written. Raises TaximeterError (server_failed) if it had to be killed."""
        if self._child is not None:
            self._child.stop(deadline_s=deadline_s)
            remove_socket_directory(self._sockets, self.data_dir)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would. `start` brings it back with what it had on disk."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same data."""
        self.stop()
        self.start()

    def failure(self, what: str) -> TaximeterError:
        """Make the error that says ``what`` happened to the server, with the end of its log."""
        if self._child is None:
            return TaximeterError("server_failed", f"{self.name} {what}")
        return self._child.failure(what)
