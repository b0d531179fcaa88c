"""When a period may be closed (design 2.5). Pure: what was read from Postgres comes in as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flusher.pricing.line import rfc3339

WINDOW_DEFAULT: Final = timedelta(hours=1)
WINDOW_MAX: Final = timedelta(hours=72)


@dataclass(frozen=True, slots=True)
class Producer:
    """A registered, unretired producer and the earliest watermark that it has committed on any shard.

    `watermark` is None when a shard has no position of it: nothing is known then.
    """

    id: str
    host: str
    watermark: datetime | None

    def has_passed(self, end: datetime) -> bool:
        """Whether no event with an assigned time before `end` can come from it any more."""
        return self.watermark is not None and self.watermark >= end


@dataclass(frozen=True, slots=True)
class Clock:
    """What one reading of Postgres says about time: its clock, and how far the producers have come."""

    now: datetime
    producers: tuple[Producer, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The period may be closed; `without` are the producers that were given up on when the window passed."""

    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotYet:
    """The period waits: `reason` is a code, `detail` says for whom and until when."""

    reason: str
    detail: str


def settlement(end: datetime, clock: Clock, window: timedelta) -> Settled | NotYet:
    """Say whether a period that ends at `end` is settled, closes without some producers, or has to wait.

    `window` is the finalization window, at most `WINDOW_MAX`.
    """
    if clock.now < end:
        return NotYet("period_open", f"the period ends at {rfc3339(end)} and Postgres's clock has not passed it")
    missing = [producer for producer in clock.producers if not producer.has_passed(end)]
    if not missing:
        return Settled()
    if clock.now >= end + window:
        return Settled(tuple(producer.id for producer in missing))
    return NotYet("producers_behind", f"waits until {rfc3339(end + window)} for {describe(missing)}")


def describe(producers: Sequence[Producer]) -> str:
    """Name producers for a reader: id, host, and where each stands."""
    return ", ".join(
        f"{producer.id} on {producer.host or 'an unknown host'} "
        f"(at {'nothing' if producer.watermark is None else rfc3339(producer.watermark)})"
        for producer in producers
    )
