"""What a call comes to, and the idempotency keys that remember it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import msgspec

from tests.stripe_stand_in.errors import ApiError

KEY_LIFE_S: Final = 24 * 3600
KEY_LIFE_V2_S: Final = 30 * 24 * 3600
KEY_MAX: Final = 255


@dataclass(frozen=True)
class Outcome:
    """What a call comes to: its answer, whether a key remembers it, and whether the connection is cut instead."""

    status: int
    body: bytes = b"{}"
    saved: bool = False
    replayed: bool = False
    dropped: bool = False

    @classmethod
    def of(cls, status: int, body: Any, *, saved: bool = False) -> Self:
        """Return an answer with a JSON body, as it is at this moment."""
        return cls(status, msgspec.json.encode(body), saved)

    @classmethod
    def error(cls, error: ApiError, *, saved: bool = False) -> Self:
        """Return an error answer."""
        return cls.of(error.status, error.body(), saved=saved)


class Asked(NamedTuple):
    """What is compared when a key comes again; `params` is a digest."""

    method: str
    path: str
    params: bytes

    @property
    def is_v2(self) -> bool:
        """Whether this is a call of API v2, whose keys live for 30 days and never replay a failure."""
        return self.path.startswith("/v2/")


@dataclass(frozen=True)
class _Saved:
    asked: Asked
    outcome: Outcome  # its body is compressed
    at: int


class Keys:
    """The idempotency keys of one account and mode."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._saved: dict[str, _Saved] = {}
        self._in_flight: set[str] = set()

    def begin(self, key: str | None) -> None:
        """Take a key for a call that begins; raise ApiError 409 while another call has it."""
        if key is None:
            return
        if len(key) > KEY_MAX:
            raise ApiError(400, f"Idempotency key is too long; at most {KEY_MAX} characters.", kind="idempotency_error")
        if key in self._in_flight:
            text = (
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later."
            )
            raise ApiError(409, text, kind="idempotency_error", code="idempotency_key_in_use")
        self._in_flight.add(key)

    def end(self, key: str | None) -> None:
        """Give a key back when its call has its outcome."""
        self._in_flight.discard(key or "")

    def replay(self, key: str | None, asked: Asked) -> Outcome | None:
        """Return what the key remembers; raise ApiError when it was used with other parameters."""
        saved = self._saved.get(key or "")
        if saved is None:
            return None
        if saved.at + (KEY_LIFE_V2_S if asked.is_v2 else KEY_LIFE_S) <= self._now():
            self.forget(key)
            return None
        if saved.asked != asked:
            text = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request."
            )
            raise ApiError(400, text, kind="idempotency_error")
        return replace(saved.outcome, body=zlib.decompress(saved.outcome.body), replayed=True)

    def save(self, key: str | None, asked: Asked, outcome: Outcome) -> None:
        """Remember the first outcome of a key, errors too, unless the call never began or is of v2 and failed."""
        if key is None or not outcome.saved or key in self._saved or (asked.is_v2 and outcome.status >= 400):
            return
        kept = replace(outcome, body=zlib.compress(outcome.body, 1), dropped=False)
        self._saved[key] = _Saved(asked, kept, self._now())

    def forget(self, key: str | None) -> None:
        """Let a key expire now."""
        self._saved.pop(key or "", None)

    def clear(self) -> None:
        """Let every key expire now."""
        self._saved.clear()
