"""The client's own file: each batch is on disk before it is sent, and each answer when it came."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flusher.chaos.traffic import Batch


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line: a batch that is about to be sent, or the number of one that was acknowledged."""

    sending: Batch | None = None
    acknowledged: int | None = None


class Notes:
    """Appends lines. Somebody else may append too: a line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._encode = msgspec.json.Encoder().encode

    def add(self, note: Note) -> None:
        """Write a line; it is on the disk when this returns."""
        os.write(self._file, self._encode(note) + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_notes(path: Path) -> Iterator[Note]:
    """Yield the lines of a file."""
    decode = msgspec.json.Decoder(Note).decode
    with path.open("rb") as file:
        for line in file:
            yield decode(line)
