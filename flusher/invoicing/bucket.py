"""A token bucket for calls to Stripe, shared by every thread of a run."""

import threading
import time
from collections.abc import Callable
from typing import Final

RATE_DEFAULT: Final = 20
"""Calls a second. Stripe allows 25 in test mode and 100 in live mode, and others use the account too."""
SLOWEST_S: Final = 2.0
_CALM_S: Final = 1.0  # not slowed down twice within
_RECOVERY: Final = 0.99  # of the distance between two calls, with every call that goes


class TokenBucket:
    """Lets `rate` calls a second go, evenly spaced: one token, filled at the rate.

    Told to slow down (a 429) it lets none go for a while, then half as many, and comes back to its rate by and by.
    Calls that have their token already still go: as many as there are threads.
    """

    def __init__(
        self,
        rate: int = RATE_DEFAULT,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._usual_s = 1 / rate
        self._distance_s = self._usual_s
        self._next = self._calm_at = clock()
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait until a call may go."""
        with self._lock:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + self._distance_s
            self._distance_s = max(self._usual_s, self._distance_s * _RECOVERY)
        if at > now:
            self._sleep(at - now)

    def slow_down(self, pause_s: float) -> None:
        """Let no call go for so long, and half as many afterwards; several threads that are told at once are one."""
        with self._lock:
            now = self._clock()
            if now >= self._calm_at:
                self._distance_s = max(self._usual_s, min(self._distance_s * 2, SLOWEST_S))
                self._calm_at = now + max(pause_s, _CALM_S)
            self._next = max(self._next, now + pause_s)
