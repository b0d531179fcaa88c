"""The file system as the journal uses it: the only place where it touches a disk. Every method may raise OSError.

What a method has made durable is there after any crash; `write`, `truncate` and `remove` alone make nothing durable.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class Disk:
    """The machine's own."""

    def make_directory(self, path: Path) -> None:
        """Make a directory, for its owner alone, and its parents where they are missing."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, path: Path) -> int:
        """Take the lock file for as long as the descriptor is open. Raises BlockingIOError where another has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, in order."""
        return sorted(entry.name for entry in os.scandir(directory))

    def size(self, path: Path) -> int:
        """Return a file's size in bytes."""
        return path.stat().st_size

    def read(self, path: Path) -> bytes:
        """Return a whole file. Raises FileNotFoundError."""
        return path.read_bytes()

    def reader(self, path: Path) -> BinaryIO:
        """Return a file to read from; the caller closes it."""
        return path.open("rb")

    def create(self, path: Path) -> int:
        """Return a descriptor to append to a new, empty file, whose entry in its directory is durable."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fsync(descriptor)
            self.sync_directory(path.parent)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        return descriptor

    def appender(self, path: Path) -> int:
        """Return a descriptor to append to a file that is there."""
        return os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, descriptor: int, content: bytes) -> None:
        """Append all of it. When it raises, any part of it may have been written."""
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Make what was written durable."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file down to `size` bytes."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """Close a descriptor, and let go of the lock that it is."""
        os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        path.unlink(missing_ok=True)

    def copy(self, path: Path, copy: Path) -> None:
        """Give a file a second name, if that is free."""
        with suppress(FileExistsError):
            os.link(path, copy)

    def replace(self, path: Path, content: bytes) -> None:
        """Replace a file durably: after a crash either this or the one before is there, whole."""
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        self.sync_directory(path.parent)

    def sync_directory(self, directory: Path) -> None:
        """Make the directory's entries durable."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
