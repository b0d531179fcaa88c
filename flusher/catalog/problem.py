"""What is wrong with a catalog: every problem with its place, all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from flusher.catalog.model import CATALOG_INVALID
from sidecar.contract.codes import TaximeterError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `path` is the key's place (`plans[0].prices[1].model`), or `line 3` for a syntax error.

    `message` says what was expected, what came and what to do.
    """

    path: str
    message: str
    code: str = CATALOG_INVALID

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class CatalogError(TaximeterError):
    """A catalog that can't be applied; nothing of it was. `problems` lists every one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        codes = {problem.code for problem in problems}
        code = codes.pop() if len(codes) == 1 else CATALOG_INVALID
        lines = [str(problem) for problem in problems]
        many = [f"{len(lines)} problems, nothing was applied:", *lines]
        super().__init__(code, "\n  ".join(many) if len(lines) > 1 else lines[0])
        self.problems = tuple(problems)
