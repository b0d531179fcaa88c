"""A file of events as it is when sending begins: its digest, and its lines up to the end that it had then."""

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final

from flusher.sending.records import LINE_BYTES_MAX
from sidecar.contract.codes import TaximeterError

SPOOL_BYTES_MAX: Final = 4 << 30
STANDARD_INPUT: Final = "-"
_CHUNK_BYTES: Final = 1 << 20
_DIGEST_CHARS: Final = 32


class EventFile:
    """A file of events that is open.

    `digest` is 32 hex digits of the SHA-256 of its bytes, `size` their number, `read` how many were read so far.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self.read = 0
        self._file = file
        digest, self.size = hashlib.sha256(), 0
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            self.size += len(chunk)
        self.digest = digest.hexdigest()[:_DIGEST_CHARS]

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that the digest is of, with their ends; what was appended since is not among them.

        Of a line longer than 1 MiB only the first 1 MiB and a byte comes.
        """
        self._file.seek(0)
        self.read = 0
        while self.read < self.size:
            line = rest = self._part(LINE_BYTES_MAX + 1)
            while rest and not rest.endswith(b"\n") and self.read < self.size:
                rest = self._part(_CHUNK_BYTES)
            if not line:  # somebody has cut the file
                return
            yield line

    def _part(self, most: int) -> bytes:
        part = self._file.readline(min(most, self.size - self.read))
        self.read += len(part)
        return part


@contextmanager
def open_events(path: str) -> Iterator[EventFile]:
    """Open a file of events, or standard input for `-`. A pipe is copied to a temporary file, which is gone after.

    Raises TaximeterError `usage_invalid` for one that can't be read, or for more than 4 GiB from a pipe.
    """
    with ExitStack() as stack:
        try:
            if path == STANDARD_INPUT:
                source: BinaryIO | IO[bytes] = sys.stdin.buffer
            else:
                source = stack.enter_context(Path(path).open("rb"))
            if path == STANDARD_INPUT or not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                spooled = stack.enter_context(tempfile.TemporaryFile(prefix="taximeter-send-"))
                _spool(source, spooled)
                source = spooled
            events = EventFile("standard input" if path == STANDARD_INPUT else path, source)
        except OSError as error:
            raise TaximeterError(
                "usage_invalid", f"FILE: expected a file that can be read, got {path!r}: {error.strerror or error}"
            ) from error
        yield events


def _spool(source: BinaryIO | IO[bytes], target: IO[bytes]) -> None:
    size = 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > SPOOL_BYTES_MAX:
            limit = f"at most {SPOOL_BYTES_MAX >> 30} GiB from a pipe"
            raise TaximeterError("usage_invalid", f"FILE: expected {limit}; write the events to a file first")
        target.write(chunk)
