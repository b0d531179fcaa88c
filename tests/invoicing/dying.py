"""Processes that die at a statement."""

from typing import Any, Self

import psycopg


class Killed(BaseException):
    """The process ends here."""


class DyingCursor(psycopg.Cursor[Any]):
    """A cursor whose process dies at its connection's n-th statement."""

    def execute(self, *arguments: Any, **options: Any) -> Self:
        LEFT[0] -= 1
        if LEFT[0] < 0:
            raise Killed
        return super().execute(*arguments, **options)


LEFT = [0]
