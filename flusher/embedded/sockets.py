"""Where a server's Unix socket goes: a socket's path may have about 100 bytes, a data directory may be longer."""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from sidecar.contract.codes import TaximeterError

SOCKET_PATH_LIMIT_BYTES = 103  # 108 on Linux, 104 on macOS, with the closing NUL


def fits_a_socket(path: Path) -> bool:
    """Say whether a Unix socket can be made at ``path``."""
    return len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES


def socket_directory(home: Path, longest_name: str, *, owner: int | None = None) -> Path:
    """Return a directory with mode 0700 for sockets whose names are no longer than ``longest_name``.

    It is ``home`` itself (absolute, already there) where that is short enough, else a directory in the system's
    temporary one whose name comes from ``home``, so that a restart finds the same. ``owner`` is the user who
    must own that one (default ourselves). Raises TaximeterError (server_failed) when somebody else has it
    or it is too long as well.
    """
    if fits_a_socket(home / longest_name):
        return home
    name = f"taximeter-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    directory = Path(tempfile.gettempdir()) / name
    if not fits_a_socket(directory / longest_name):
        raise TaximeterError(
            "server_failed",
            f"neither {home} nor {directory} is short enough for a Unix socket (the path of one may have "
            f"{SOCKET_PATH_LIMIT_BYTES} bytes); choose a shorter data directory or a shorter TMPDIR",
        )
    ours = os.geteuid()
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {ours, ours if owner is None else owner}:
        raise TaximeterError(
            "server_failed",
            f"{home} is too long a path for a Unix socket, and {directory}, which would take its place, "
            f"belongs to another user; choose a shorter data directory",
        )
    directory.chmod(0o700)
    if owner is not None and found.st_uid != owner:
        os.chown(directory, owner, -1)
    return directory


def remove_socket_directory(directory: Path, home: Path) -> None:
    """Remove what `socket_directory` made for ``home`` outside of it, once its sockets are gone."""
    if directory != home:
        with contextlib.suppress(OSError):
            directory.rmdir()
