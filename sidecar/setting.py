"""What a setting is, and the readers that turn its text into a value; each raises ValueError with what it expected."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_MIB: Final = 1 << 20
_SIZES: Final = {"": 1, "KiB": 1 << 10, "MiB": _MIB, "GiB": 1 << 30}
_SIZE = re.compile(r"(\d{1,18})(KiB|MiB|GiB)?", re.ASCII)
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Setting(NamedTuple):
    """A setting's `default` as text (None: it has to be given), its reader, its unit or form, and its meaning."""

    default: str | None
    read: Callable[[str], object]
    unit: str
    doc: str


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
    """Return the address of a Redis."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        scheme = text.partition("://")[0] if "://" in text else "no scheme"
        raise ValueError(f"expected redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH, got {scheme}")
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
