"""The time that a file's events without one were given, remembered for when the file is sent again."""

import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from flusher.pricing.line import rfc3339
from sidecar.contract.codes import TaximeterError


def memory_directory(environment: Mapping[str, str]) -> Path:
    """Return where times are remembered: below `XDG_STATE_HOME`, by default `~/.local/state`."""
    named = environment.get("XDG_STATE_HOME", "")
    base = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    return base / "taximeter" / "sent"


def remembered_time(directory: Path, digest: str, now: Callable[[], datetime]) -> str:
    """Return the time that the file with this digest was first sent at, RFC 3339; `now()` if it never was.

    However many begin at once, all get the same. Raises TaximeterError `file_invalid` when it can't be remembered:
    a time of its own in each repeat would make every repeat another event.
    """
    path = directory / digest
    try:
        if not path.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_first(path, rfc3339(now().astimezone(UTC).replace(microsecond=0)))
        return path.read_text(encoding="ascii")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise TaximeterError(
            "file_invalid",
            f"events without a timestamp get the time of the first sending, which can't be remembered in {directory}: "
            f"{error}; give --timestamp, or set XDG_STATE_HOME to a directory that stays",
        ) from error


def _write_first(path: Path, text: str) -> None:
    """Write the file whole, unless another process was faster."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink(missing_ok=True)
