"""Times on the command line."""

import argparse
import re
from datetime import UTC, datetime
from typing import Final

_FORM: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2}))?", re.ASCII
)


def instant(text: str) -> datetime:
    """Return the time in UTC that `text` means: RFC 3339 with an offset, or a date, which is its midnight in UTC.

    The type of an argument: raises argparse.ArgumentTypeError, which argparse reports with the flag's name.
    """
    try:
        if _FORM.fullmatch(text):
            moment = datetime.fromisoformat(text.upper())
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(
        f'expected a date or a time with an offset, like "2025-07-01" or "2025-07-01T00:00:00Z", got {text!r}'
    )
