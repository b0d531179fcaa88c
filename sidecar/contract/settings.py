"""Settings of both programs: each declared once, with its meaning, unit and default; read from flags and environment.

A setting `name` is the flag `--name` (with hyphens) and the variable `TAXIMETER_NAME`; the flag goes first. A program
declares a frozen dataclass whose fields are `Annotated[type, Setting(...)]`; `read_settings` makes one. The readers
turn a setting's text into its value; each raises ValueError with what it expected.
"""

import argparse
import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

from sidecar.contract.codes import TaximeterError
from sidecar.contract.slots import urls_of

VARIABLE_PREFIX: Final = "TAXIMETER_"
# What may hold a password can also be given as the name of a file that holds it: NAME_FILE instead of NAME.
SECRET_VARIABLES: Final = ("TAXIMETER_REDIS_URL", "REDIS_URL", "TAXIMETER_DATABASE_URL", "DATABASE_URL")

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_MIB: Final = 1 << 20
_SIZES: Final = {"": 1, "KiB": 1 << 10, "MiB": _MIB, "GiB": 1 << 30}
_SIZE = re.compile(r"(\d{1,18})(KiB|MiB|GiB)?", re.ASCII)
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Setting(NamedTuple):
    """A setting's `default` as text (None: it has to be given), its reader, its unit or form, and its meaning.

    `fallback` is a variable that is read where the setting's own is not set.
    """

    default: str | None
    read: Callable[[str], object]
    unit: str
    doc: str
    fallback: str | None = None


class Description(NamedTuple):
    """A setting's names beside what it is."""

    name: str
    flag: str
    variable: str
    setting: Setting


_T = TypeVar("_T")


def describe(kind: type) -> tuple[Description, ...]:
    """Return the settings that a dataclass declares, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        Description(name, "--" + name.replace("_", "-"), VARIABLE_PREFIX + name.upper(), hint.__metadata__[0])
        for name, hint in hints.items()
    )


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add a flag for every setting."""
    for name, flag, variable, setting in describe(kind):
        default = "required" if setting.default is None else f"default: {setting.default or 'none'}"
        metavar = setting.unit.upper().replace(" ", "_").replace(",", "")
        parser.add_argument(flag, dest=name, metavar=metavar, help=f"{setting.doc} ({default}; {variable})")


def read_settings(
    kind: type[_T], flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> tuple[_T | None, list[str]]:
    """Return the settings that flags (by name; None when not given) and then the environment give, and no problems;
    or None and what can't be used, each with the flag or the variable that said so."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for described in describe(kind):
        setting = described.setting
        where, text = _given(described, flags, environment)
        if text is None or (setting.default is None and not text):
            problems.append(f"{described.flag} or {described.variable}: expected {setting.unit}: {setting.doc}")
            continue
        try:
            values[described.name] = setting.read(text)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return (None, problems) if problems else (kind(**values), problems)


def _given(
    described: Description, flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> tuple[str, str | None]:
    """Return where a setting's text comes from, and the text."""
    flag = flags.get(described.name)
    if flag is not None:
        return described.flag, flag
    for variable in (described.variable, described.setting.fallback):
        if variable is not None and variable in environment:
            return variable, environment[variable]
    return described.variable, described.setting.default


def with_secrets(environment: Mapping[str, str], read: Callable[[Path], str]) -> dict[str, str]:
    """Return the environment in which each of `SECRET_VARIABLES` whose NAME_FILE is set has what the file holds.

    `read` reads a file. Raises TaximeterError `config_invalid` where it can't, and where both variables are set.
    """
    found = dict(environment)
    for name in SECRET_VARIABLES:
        file = environment.get(f"{name}_FILE")
        if not file:
            continue
        if environment.get(name):
            raise TaximeterError("config_invalid", f"{name} and {name}_FILE are both set; keep one")
        try:
            found[name] = read(Path(file)).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TaximeterError("config_invalid", f"{name}_FILE: can't read {file}: {error}") from error
    return found


class Address(NamedTuple):
    """Where to listen on TCP. Port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _bad(expected: str, text: str) -> ValueError:
    return ValueError(f"expected {expected}, got {text[:80]!r}")


def read_path(text: str) -> Path | None:
    """Return a path, or None for an empty text."""
    return Path(text) if text else None


def read_redis_url(text: str) -> str:
    """Return the address of a Redis; of a cluster it may name several hosts, with commas between."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        scheme = text.partition("://")[0] if "://" in text else "no scheme"
        raise ValueError(f"expected redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH, got {scheme}")
    try:
        urls_of(text)
    except ValueError:
        raise ValueError("expected redis://HOST:PORT, got a host or a port that can't be read") from None
    return text


def read_address(text: str) -> Address | None:
    """Return a TCP address, or None for an empty text."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise _bad("HOST:PORT", text)
    return Address(host, int(port))


def read_mode(text: str) -> int:
    """Return the number of an octal file mode."""
    if not re.fullmatch(r"0?[0-7]{3}", text, re.ASCII):
        raise _bad("an octal file mode such as 0660", text)
    return int(text, 8)


def read_truth(text: str) -> bool:
    """Return the boolean."""
    try:
        return _TRUTHS[text.strip().lower()]
    except KeyError:
        raise _bad("true or false", text) from None


def read_level(text: str) -> str:
    """Return the log level."""
    if text.lower() not in LOG_LEVELS:
        raise _bad(f"one of {', '.join(LOG_LEVELS)}", text)
    return text.lower()


def seconds(minimum: float, maximum: float) -> Callable[[str], float]:
    """Return a reader of seconds, fractions allowed, within bounds."""

    def read(text: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII) or not minimum <= float(text) <= maximum:
            raise _bad(f"seconds from {minimum:g} to {maximum:g}", text)
        return float(text)

    return read


def whole_seconds(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a reader of whole seconds within bounds."""
    return count(minimum, maximum, "whole seconds")


def count(minimum: int, maximum: int, what: str = "a number") -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text, re.ASCII) or not minimum <= int(text) <= maximum:
            raise _bad(f"{what} from {minimum} to {maximum}", text)
        return int(text)

    return read


def size(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a reader of numbers of bytes within bounds."""

    def read(text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        value = int(match[1]) * _SIZES[match[2] or ""] if match else -1
        if not minimum <= value <= maximum:
            raise _bad(f"bytes from {minimum} to {maximum}, as a number or with KiB, MiB or GiB", text)
        return value

    return read
