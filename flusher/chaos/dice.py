"""Numbers that look random and are the same for the same seed on every machine. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_BOUND: Final = 1 << 64


class Dice:
    """A sequence of numbers that follows from `seed` and `purpose` alone, so that one purpose never shifts another."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._stem = f"{seed}/{purpose}/"
        self._thrown = 0

    def number(self, below: int) -> int:
        """Return a whole number from 0 up to, and not with, `below`."""
        self._thrown += 1
        digest = hashlib.blake2b(f"{self._stem}{self._thrown}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") * below // _BOUND

    def between(self, low: float, high: float) -> float:
        """Return a number of seconds from `low` up to `high`, to the millisecond."""
        return low + self.number(max(1, round((high - low) * 1000))) / 1000

    def chance(self, one_in: int) -> bool:
        """Return True one time in so many."""
        return self.number(one_in) == 0

    def shuffled(self, values: Sequence[_T]) -> list[_T]:
        """Return the values in another order."""
        rest = list(values)
        return [rest.pop(self.number(len(rest))) for _ in range(len(values))]
