"""The time of this machine, passed to whatever reads it, so that a simulation can run the same code on another one."""

import time


class Clock:
    """The wall clock decides when keys expire and what is live; the monotonic one how long something took."""

    def wall_s(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()
