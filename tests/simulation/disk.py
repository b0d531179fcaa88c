"""A disk in memory: what was synced outlives a crash of the machine, of the rest a random part does."""

import errno
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import BinaryIO

from sidecar.disk import Disk
from tests.simulation.world import Killed, Process


@dataclass
class File:
    """A file: what programs see, and what the platter has.

    After a sync that failed (`lied_to`) the system takes what was not written for written: later syncs say nothing.
    """

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    lied_to: bool = False

    def copy(self) -> "File":
        """Returns the same file of another disk."""
        return File(bytearray(self.content), self.durable)


class Platter:
    """What a machine's disk holds, and what is wrong with it. It outlives the processes that use it."""

    def __init__(self, rng: Random) -> None:
        self.files: dict[Path, File] = {}
        self.removed: dict[Path, File] = {}  # deleted, and back after a crash unless the directory was synced
        self.locked: set[Path] = set()
        self.full = False
        self.failing_syncs = 0
        self.removing: Callable[[Path, bytes], None] = lambda path, content: None
        self._rng = rng

    def crash(self, *, keeps_synced: bool = True) -> None:
        """Loses power. A disk that lied (not `keeps_synced`) also loses the end of what it said was synced."""
        for path, file in self.removed.items():
            if path not in self.files and self._rng.random() < 0.5:
                self.files[path] = File(bytearray(file.durable), file.durable)
        self.removed.clear()
        written = {
            path.name[:4]: path for path in sorted(self.files) if path.suffix == ".segment"
        }  # last of each shard
        for path, file in self.files.items():
            content, durable = bytes(file.content), file.durable
            if content.startswith(durable):
                lost = content[len(durable) :]
                content = durable + lost[: self._rng.randint(0, len(lost))]
            elif self._rng.random() < 0.5:
                content = durable
            if not keeps_synced and path in written.values():
                content = content[: self._rng.randint(max(0, len(content) - 400), len(content))]
            file.content, file.durable = bytearray(content), content
        self.locked.clear()

    def copy(self) -> dict[Path, File]:
        """Returns a copy of all files, as a backup makes it."""
        return {path: file.copy() for path, file in self.files.items()}

    def restore(self, files: dict[Path, File]) -> None:
        """Puts a copy in the place of what is there."""
        self.files = {path: file.copy() for path, file in files.items()}
        self.removed.clear()


class MemoryDisk(Disk):
    """The disk as one process has it. Every call may be its last one."""

    def __init__(self, platter: Platter, process: Process, yields: Callable[[], None]) -> None:
        self._platter = platter
        self._process = process
        self._yields = yields
        self._open: dict[int, Path] = {}
        self._next = 3

    def _step(self) -> None:
        self._process.burn()
        if not self._process.alive:
            raise Killed

    def _descriptor(self, path: Path) -> int:
        self._next += 1
        self._open[self._next] = path
        return self._next

    def _file(self, descriptor: int) -> File:
        return self._platter.files[self._open[descriptor]]

    def make_directory(self, path: Path) -> None:
        self._step()

    def lock(self, path: Path) -> int:
        self._step()
        if path in self._platter.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._platter.locked.add(path)
        self._process.at_end(lambda: self._platter.locked.discard(path))
        return self._descriptor(path)

    def names(self, directory: Path) -> list[str]:
        self._step()
        return sorted(path.name for path in self._platter.files if path.parent == directory)

    def _there(self, path: Path) -> File:
        file = self._platter.files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    def size(self, path: Path) -> int:
        self._step()
        return len(self._there(path).content)

    def read(self, path: Path) -> bytes:
        self._step()
        return bytes(self._there(path).content)

    def reader(self, path: Path) -> BinaryIO:
        self._step()
        return io.BytesIO(self._there(path).content)

    def create(self, path: Path) -> int:
        self._step()
        if self._platter.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._platter.files[path] = File()
        self._platter.removed.pop(path, None)
        self._step()
        return self._descriptor(path)

    def appender(self, path: Path) -> int:
        self._step()
        self._there(path)
        return self._descriptor(path)

    def write(self, descriptor: int, content: bytes) -> None:
        file = self._file(descriptor)
        cut = self._platter._rng.randint(0, len(content))
        file.content += content[:cut]
        self._step()
        if self._platter.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        file.content += content[cut:]
        self._step()

    def sync(self, descriptor: int) -> None:
        self._step()
        self._yields()
        file = self._file(descriptor)
        if self._platter.failing_syncs:
            self._platter.failing_syncs -= 1
            self._process.world.counts["disk: sync failed"] += 1
            file.lied_to = True
            raise OSError(errno.EIO, "input/output error")
        if not file.lied_to:
            file.durable = bytes(file.content)
        self._step()

    def truncate(self, descriptor: int, size: int) -> None:
        self._step()
        file = self._file(descriptor)
        del file.content[size:]
        file.lied_to = file.lied_to and size > len(file.durable)

    def close(self, descriptor: int) -> None:
        path = self._open.pop(descriptor, None)
        if path is not None and path.name == "lock" and self._process.alive:
            self._platter.locked.discard(path)

    def remove(self, path: Path) -> None:
        self._step()
        file = self._platter.files.pop(path, None)
        if file is not None:
            self._platter.removed[path] = file
            self._platter.removing(path, bytes(file.content))
        self._step()

    def replace(self, path: Path, content: bytes) -> None:
        self._step()
        if self._platter.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._platter.files[path] = File(bytearray(content), content)
        self._step()

    def sync_directory(self, directory: Path) -> None:
        self._step()
        self._platter.removed.clear()
