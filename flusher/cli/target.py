"""Which running system a command works on: flags, then the environment, then `endpoints.json`."""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import urlsplit

from flusher.endpoints import DEFAULT_DATA_DIR, Endpoints, read_endpoints
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import with_secrets
from sidecar.contract.slots import urls_of

_ENVIRONMENT: Final[dict[str, tuple[str, ...]]] = {
    "redis": ("TAXIMETER_REDIS_URL", "REDIS_URL"),
    "database": ("TAXIMETER_DATABASE_URL", "DATABASE_URL"),
    "http": ("TAXIMETER_HTTP",),
}
_FLAGS: Final[dict[str, tuple[str, str, str]]] = {
    "redis": ("--redis-url", "URL", "Redis or Valkey: redis://HOST:PORT or unix:///PATH"),
    "database": ("--database-url", "URL", "PostgreSQL: postgresql://USER@HOST/NAME"),
    "http": ("--http", "HOST:PORT", "the sidecar's address, or its URL"),
}


@dataclass(frozen=True)
class Target:
    """Addresses of the system that a command works on, each None when nothing named it.

    ``origin`` tells for each part where its address came from: a flag, a variable, a file.
    """

    redis: str | None
    database: str | None
    http: str | None
    data_dir: Path
    origin: Mapping[str, str]

    def need_redis(self) -> str:
        """Return Redis's address. Raises TaximeterError (target_missing) when nothing names it."""
        return self._need("redis", self.redis)

    def need_database(self) -> str:
        """Return PostgreSQL's address. Raises TaximeterError (target_missing) when nothing names it."""
        return self._need("database", self.database)

    def need_http(self) -> str:
        """Return the sidecar's URL. Raises TaximeterError (target_missing) when nothing names it."""
        return self._need("http", self.http)

    def announce(self, *parts: str, stream: TextIO | None = None) -> None:
        """Say on standard error which ``parts`` (redis, database, http) are used, without their passwords."""
        for part in parts:
            address = {"redis": self.redis, "database": self.database, "http": self.http}[part]
            if address is not None:
                line = f"{part}: {without_password(address)} (from {self.origin[part]})\n"
                (stream or sys.stderr).write(line)

    def _need(self, part: str, address: str | None) -> str:
        if address is not None:
            return address
        variables = " or ".join(_ENVIRONMENT[part])
        raise TaximeterError(
            "target_missing",
            f"no {part} is named: give {_FLAGS[part][0]}, set {variables}, or start `taximeter up` "
            f"(no running one was found in {self.data_dir})",
        )


def add_target_arguments(parser: argparse.ArgumentParser, *parts: str) -> None:
    """Add the flags that name the ``parts`` (redis, database, http) that a command needs, and ``--data-dir``."""
    group = parser.add_argument_group("target")
    for part in parts:
        flag, metavar, text = _FLAGS[part]
        variables = ", ".join(_ENVIRONMENT[part])
        group.add_argument(flag, metavar=metavar, dest=f"target_{part}", help=f"{text} (default: {variables})")
    group.add_argument(
        "--data-dir",
        metavar="D",
        type=Path,
        dest="target_data_dir",
        help=f"directory of a running `taximeter up`, for what is not named otherwise (default: {DEFAULT_DATA_DIR})",
    )


def find_target(args: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Target:
    """Return the system that the parsed ``args``, the ``environment`` and `endpoints.json` name, in this order.

    ``--data-dir`` is a flag too: what it names goes before the environment. Raises TaximeterError: config_invalid
    for an address of another form, file_invalid for a broken `endpoints.json`, target_missing when ``--data-dir``
    names a directory in which nothing runs.
    """
    variables = with_secrets(os.environ if environment is None else environment, Path.read_text)
    named_dir: Path | None = getattr(args, "target_data_dir", None)
    data_dir = named_dir or DEFAULT_DATA_DIR
    endpoints = read_endpoints(data_dir)
    if named_dir is not None and endpoints is None:
        raise TaximeterError("target_missing", f"no `taximeter up` is running on {named_dir}")
    found: dict[str, str] = {}
    origin: dict[str, str] = {}
    for part in _FLAGS:
        for address, where in _candidates(part, args, variables, endpoints, data_dir, named=named_dir is not None):
            if address:
                found[part], origin[part] = _checked(part, address, where), where
                break
    return Target(found.get("redis"), found.get("database"), found.get("http"), data_dir, origin)


def without_password(address: str) -> str:
    """Return a URL or a libpq ``key=value`` string with its password replaced by ``***``."""
    hidden = re.sub(r"(?<=://)([^/@:]*):[^@]*@", r"\1:***@", address)
    return re.sub(r"(?i)(password=)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", hidden)


def _candidates(
    part: str,
    args: argparse.Namespace,
    variables: Mapping[str, str],
    endpoints: Endpoints | None,
    data_dir: Path,
    *,
    named: bool,
) -> list[tuple[str | None, str]]:
    """Return what could name a part, strongest first, each with where it is from."""
    flag = (getattr(args, f"target_{part}", None), _FLAGS[part][0])
    environment = [(variables.get(name), name) for name in _ENVIRONMENT[part]]
    file = (getattr(endpoints, part, None), str(data_dir / "endpoints.json"))
    return [flag, file, *environment] if named else [flag, *environment, file]


def _checked(part: str, address: str, where: str) -> str:
    schemes = {
        "redis": ("redis", "rediss", "unix"),
        "database": ("postgresql", "postgres"),
        "http": ("http", "https"),
    }[part]
    if part == "http" and "://" not in address:
        address = f"http://{address}"
    if part == "database" and re.match(r"\s*\w+\s*=", address):  # libpq's key=value form
        return address
    if not _is_url(address, schemes, port=part != "database"):  # libpq takes several hosts, each with a port
        expected = " or ".join(f"{scheme}://..." for scheme in schemes)
        raise TaximeterError("config_invalid", f"{where}: expected {expected}, got {without_password(address)!r}")
    return address


def _is_url(address: str, schemes: tuple[str, ...], *, port: bool) -> bool:
    """Say whether it is a URL of one of these schemes, and if asked for, with ports that are some."""
    try:
        readable = not port or urls_of(address)
        return bool(readable) and urlsplit(address).scheme in schemes
    except ValueError:
        return False
