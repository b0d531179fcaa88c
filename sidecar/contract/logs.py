"""Log lines for machines, the same of both programs: one JSON object a line. Bodies, keys and tokens never get here."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

# What the standard library puts on every record; anything else was given as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes `time`, `level`, `logger`, `message`, whatever `extra` holds, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line; line breaks in it are escaped."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Send everything from `level` on to `stream` (default: stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
