"""Who may use the TCP listener: bearer tokens, and no web page that a browser on this machine happens to show.

The Unix socket needs none of it: its file mode says who may connect, and no browser can.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address

TOKEN_CHARS_MIN: Final = 32
TOKENS_MAX: Final = 16
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})  # probes carry no token

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the SHA-256 digests of the tokens in a file, one a line; several are valid while they are changed.

    Raises TaximeterError `config_invalid`; its message never repeats a token.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise TaximeterError("config_invalid", f"--token-file: {path} can't be read: {error}") from error
    tokens = [line for line in lines if line]
    if not 1 <= len(tokens) <= TOKENS_MAX:
        raise TaximeterError("config_invalid", f"--token-file: expected 1 to {TOKENS_MAX} lines, got {len(tokens)}")
    for number, token in enumerate(tokens, 1):
        if len(token) < TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable() or " " in token:
            expected = f"expected at least {TOKEN_CHARS_MIN} visible ASCII characters"
            raise TaximeterError("config_invalid", f"--token-file: token {number}: {expected}")
    return tuple(hashlib.sha256(token.encode()).digest() for token in tokens)


class Guard:
    """Checks every request of one TCP listener."""

    def __init__(self, address: Address, tokens: Sequence[bytes] = ()) -> None:
        self._tokens = tuple(tokens)
        self._hosts = _LOOPBACK_NAMES | {address.host.lower()} if address.is_loopback else None

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raise TaximeterError `forbidden` for a request that a foreign page made, `unauthorized` without a token."""
        host = headers.get("Host", "")
        if self._hosts is not None and host and _name(host) not in self._hosts:
            raise TaximeterError("forbidden", f"Host: expected the name of this machine, got {host[:80]!r}")
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise TaximeterError("forbidden", "Origin: requests from web pages of other sites are refused")
        if self._tokens and path not in OPEN_PATHS:
            self._check_token(headers.get("Authorization", ""))

    def _check_token(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        known = [hmac.compare_digest(digest, each) for each in self._tokens]  # all of them: time tells nothing
        if scheme.lower() != "bearer" or not any(known):
            raise TaximeterError(
                "unauthorized", "Authorization: expected `Bearer <token>` with a token of --token-file"
            )


def _name(host: str) -> str:
    """Return the name in a Host header, without port and brackets, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
