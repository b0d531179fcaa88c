"""Sockets to serve on: TCP, and a Unix socket that never stands there with the wrong mode."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address

BACKLOG: Final = 512
UNIX_PATH_BYTES_MAX: Final = 107
_DIRECTORY_MODE: Final = 0o750
_PROBE_TIMEOUT_S: Final = 1.0


def bind_tcp(address: Address) -> socket.socket:
    """Return a listening TCP socket. Raises TaximeterError `config_invalid` when it can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(tuple(address))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise TaximeterError(
            "config_invalid", f"--http: can't listen on {address}: {error.strerror or error}"
        ) from error
    return bound


class UnixSocket:
    """A listening Unix socket at a path, taken away again by `remove`."""

    def __init__(self, path: Path, mode: int, flag: str = "--socket") -> None:
        """Bind `path`, which `flag` named, with `mode`; what a dead process left there is replaced.

        Raises TaximeterError `config_invalid` when the path can't be used or somebody listens on it.
        """
        self.path = path
        try:
            path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            _refuse_used(path, flag)
            self.socket = _bound(path, mode)
            self._inode = path.lstat().st_ino
        except OSError as error:
            reason = error.strerror or error
            raise TaximeterError("config_invalid", f"{flag}: can't listen on {path}: {reason}") from error

    def remove(self) -> None:
        """Take the path away, unless another process has put its own there."""
        with suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def _refuse_used(path: Path, flag: str) -> None:
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise TaximeterError(
            "config_invalid", f"{flag}: expected at most {UNIX_PATH_BYTES_MAX} bytes of path, got {path}"
        )
    if not path.exists():
        return
    if not path.is_socket():
        raise TaximeterError("config_invalid", f"{flag}: {path} is there and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            raise
    raise TaximeterError("config_invalid", f"{flag}: another process listens on {path}")


def _bound(path: Path, mode: int) -> socket.socket:
    """Bind under a name of our own, set the mode, and only then move it to where clients look."""
    ours = path.with_name(f".{os.getpid()}")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.unlink(missing_ok=True)
        bound.bind(str(ours))
        ours.chmod(mode)
        bound.listen(BACKLOG)
        ours.rename(path)
    except OSError:
        bound.close()
        ours.unlink(missing_ok=True)
        raise
    return bound
