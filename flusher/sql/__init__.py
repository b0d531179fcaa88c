"""Every SQL text of the flusher: named queries and numbered migrations, loaded from the files beside this one.

A query file holds blocks that start with ``-- name: some_name`` followed by a comment that says what it is for.
Names are unique over all the files.
"""

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, NamedTuple, cast

_HEADER = re.compile(r"^-- name: ([a-z0-9_]+)$", re.MULTILINE)
_MIGRATION = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


class Migration(NamedTuple):
    """One numbered step of the schema: ``number`` from 1 without gaps, ``name``, and its SQL ``text``."""

    number: int
    name: str
    text: LiteralString


@cache
def _queries() -> dict[str, LiteralString]:
    found: dict[str, LiteralString] = {}
    for path in sorted(files(__package__).joinpath("queries").iterdir(), key=lambda entry: entry.name):
        parts = _HEADER.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"query {name} is defined twice, the second time in {path.name}")
            found[name] = cast("LiteralString", text.strip())
    return found


def query(name: str) -> LiteralString:
    """Return the text of the query called ``name``. Raises KeyError for a name that no file defines."""
    return _queries()[name]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return every migration in order. Raises ValueError when the numbers are not 1, 2, 3 ... without gaps."""
    steps: list[Migration] = []
    for path in sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda entry: entry.name):
        match = _MIGRATION.match(path.name)
        if match is None:
            continue
        text: LiteralString = path.read_text(encoding="utf-8")
        steps.append(Migration(int(match[1]), match[2], text))
    numbers = [step.number for step in steps]
    if numbers != list(range(1, len(steps) + 1)):
        raise ValueError(f"migrations must be numbered 1, 2, 3 ... without gaps, found {numbers}")
    return tuple(steps)
