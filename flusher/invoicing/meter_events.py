"""What of metered usage becomes meter events, and what is carried. Pure.

Units are ints of nanos (`sidecar.contract.units`). Stripe takes whole units only, and bills zero where a cycle's events
come to less: so a rest below one unit, or below zero, is carried to the next event of that customer and meter.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from flusher.invoicing.settle import Clock
from sidecar.contract.codes import TaximeterError
from sidecar.contract.units import NANO

HOUR: Final = timedelta(hours=1)
AGE_MAX: Final = timedelta(days=35) - HOUR
"""How old an event may be: Stripe takes 35 days, the rest is for a slow call and clocks."""

METERS_VARIABLE: Final = "TAXIMETER_STRIPE_METERS"
_EVENT_NAME_MAX: Final = 100  # characters of a meter's event name at Stripe


class Pair(NamedTuple):
    """Whose usage of what: events of a pair are numbered, and carry to each other."""

    customer: str
    meter: str


class Change(NamedTuple):
    """What of an hour's usage is not in events yet: late usage is more, a void less."""

    hour: datetime
    nanos: int


class Whole(NamedTuple):
    """An event to be: whole units of an hour, the `number`th of its pair, from 1."""

    hour: datetime
    units: int
    number: int


@dataclass(frozen=True, slots=True)
class Carry:
    """What a pair's usage is that is in no event, and how many events there were."""

    nanos: int = 0
    events: int = 0


def cut(changes: Sequence[Change], carry: Carry, latest: datetime) -> tuple[list[Whole], Carry]:
    """Return the events that the changes of a pair make, in order, and what is carried then.

    Nothing is lost or made up: the events' units and the new carry are the changes and the old one. Whole units that
    are carried and have no change to go with become an event of the hour `latest`.
    """
    made: list[Whole] = []
    nanos = carry.nanos
    for hour, change in (*changes, Change(latest, 0)):
        nanos += change
        if nanos >= NANO:
            made.append(Whole(hour, nanos // NANO, carry.events + len(made) + 1))
            nanos %= NANO
    return made, Carry(nanos, carry.events + len(made))


def identifier(ledger: str, pair: Pair, whole: Whole) -> str:
    """Return the id under which Stripe knows an event: the same whenever it is made from the same."""
    parts = (ledger, pair.customer, pair.meter, whole.hour.astimezone(UTC).isoformat(), str(whole.number))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"taximeter_{hashlib.sha256(text.encode()).hexdigest()[:48]}"


def floor_hour(instant: datetime) -> datetime:
    """Return the start of the UTC hour that an instant is in."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def ceil_hour(instant: datetime) -> datetime:
    """Return the first full hour at or after an instant."""
    return floor_hour(instant + HOUR - timedelta(microseconds=1))


def settled_until(clock: Clock, window: timedelta) -> datetime:
    """Return the end of the last hour that is settled (`settlement` says so of it and of every hour before)."""
    passed = clock.now - window
    watermarks = [producer.watermark for producer in clock.producers if producer.watermark is not None]
    if len(watermarks) == len(clock.producers):
        passed = max(passed, min((clock.now, *watermarks)))
    return floor_hour(passed)


def read_names(text: str) -> dict[str, str]:
    """Return Stripe's event name by meter from `calls,tokens=llm_tokens`; a meter alone has its own name there.

    Raises TaximeterError `config_invalid`.
    """
    names: dict[str, str] = {}
    for entry in text.split(","):
        meter, _, event_name = (part.strip() for part in entry.partition("="))
        if not meter or meter in names:
            raise TaximeterError(
                "config_invalid", f"{METERS_VARIABLE}: expected meters, each once, with commas between, got {text!r}"
            )
        names[meter] = event_name or meter
    return names


def choose_names(wanted: Mapping[str, str], summable: Iterable[str]) -> dict[str, str]:
    """Return Stripe's event name of every meter that is sent: those that are wanted, or all when none is named.

    Raises TaximeterError `config_invalid` for a meter that can't be sent, or a name that Stripe does not take.
    """
    possible = set(summable)
    names = dict(wanted) or {meter: meter for meter in sorted(possible)}
    for meter, event_name in names.items():
        if meter not in possible:
            raise TaximeterError(
                "config_invalid",
                f"{METERS_VARIABLE}: expected meters that are sums or counts, got {meter!r}; Stripe adds hours up, and "
                f"these can be: {', '.join(sorted(possible)) or 'none'}",
            )
        if len(event_name) > _EVENT_NAME_MAX:
            raise TaximeterError(
                "config_invalid",
                f"{METERS_VARIABLE}: expected at most {_EVENT_NAME_MAX} characters for the name of {meter!r} at "
                f"Stripe, got {len(event_name)}; write {meter}=NAME",
            )
    return names
