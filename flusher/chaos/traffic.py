"""What the app of a run sends: numbered events with every kind of identity, in batches. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from flusher.chaos.dice import Dice
from flusher.pricing.line import rfc3339

USERS: Final = 40
HOURS: Final = 4
BATCH_EVENTS: Final = 50
UNITS: Final = ("1", "0.000000001", "12.5", "-0.25", "999999999.999999999", "3")


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is sent. Its number is in its properties: the only thing that no part of Taximeter looks at."""

    user_id: str
    event_type: str
    units: str
    properties: dict[str, str]
    id: str | None = None
    timestamp: str | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Events that are sent together, under an Idempotency-Key where there is one."""

    number: int
    events: list[Event]
    key: str | None = None


def users(run: str) -> list[str]:
    """Return the users of a run."""
    return [f"chaos-{run}-{number:02d}" for number in range(USERS)]


def batches(seed: int, run: str, now: datetime) -> Iterator[Batch]:
    """Yield batches without end. Half have ids and timestamps, a quarter ids alone, a quarter an Idempotency-Key."""
    dice = Dice(seed, "traffic")
    known = users(run)
    newest = now.astimezone(UTC).replace(microsecond=0)
    number = 0
    while True:
        identity = ("timed", "timed", "claimed", "keyed")[dice.number(4)]
        events: list[Event] = []
        for place in range(BATCH_EVENTS):
            serial = f"{number * BATCH_EVENTS + place}"
            at = newest - timedelta(seconds=dice.number(HOURS * 3600))
            events.append(
                Event(
                    known[dice.number(USERS)],
                    f"chaos_{identity}",
                    UNITS[dice.number(len(UNITS))],
                    {"n": serial},
                    None if identity == "keyed" else f"{run}-{serial}",
                    None if identity == "claimed" else rfc3339(at),
                )
            )
        yield Batch(number, events, f"{run}-{number}" if identity == "keyed" else None)
        number += 1
