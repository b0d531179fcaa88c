"""What a check found. Pure."""

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and something that may go wrong is not guarded against."""
    FAIL = "fail"
    """Events are refused, or lost, or not billed, unless this is mended."""


class Finding(NamedTuple):
    """What one check found: of which part, under which snake_case name, and what to do where it is not ok."""

    part: str
    name: str
    level: Level
    detail: str
    remedy: str = ""


def finding(part: str, name: str, detail: str, level: Level = Level.OK, remedy: str = "") -> Finding:
    """Return a finding; the remedy is left out where nothing has to be mended."""
    return Finding(part, name, level, detail, "" if level is Level.OK else remedy)
