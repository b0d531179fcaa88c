"""What the tests of this folder look at: the files of the project, and their syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    "pyproject.toml",
    "sidecar",
    "flusher",
    "tests",
    "deploy",
    "README.md",
    "Makefile",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    ".ci",
    ".gitignore",
    ".dockerignore",
}
_NOT_OURS = {"__pycache__"}


@cache
def files(*folders: str) -> tuple[Path, ...]:
    """Return every file of the project, or of some of its folders."""
    tops = folders or tuple(TOP_LEVEL)
    return tuple(sorted(path for top in tops for path in _below(ROOT / top)))


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """Return every Python file of the project, or of some of its folders."""
    return tuple(path for path in files(*(folders or ("sidecar", "flusher", "tests"))) if path.suffix == ".py")


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    """Return a path as people write it."""
    return str(path.relative_to(ROOT))


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir() and path.name not in _NOT_OURS:
        for entry in path.iterdir():
            yield from _below(entry)
