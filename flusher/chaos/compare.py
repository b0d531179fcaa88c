"""What the client noted against what was counted: event by event, and by user, meter and hour. Pure."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from flusher.chaos.notes import Note
from sidecar.contract.units import format_units, from_text

EXAMPLES_MAX: Final = 20
_NO_HOUR: Final = ""  # a time that a sidecar assigned: the client does not know it


class Place(NamedTuple):
    """Where an event is counted: `hour` is the beginning of its UTC hour, RFC 3339, empty if a sidecar assigned it."""

    user_id: str
    meter: str
    hour: str


@dataclass(slots=True)
class Compared:
    """What came of it. `differences` are sentences, at most `EXAMPLES_MAX` of `violations`."""

    acknowledged: int = 0
    unanswered: int = 0
    unanswered_counted: int = 0
    sums: int = 0
    violations: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, sentence: str) -> None:
        """Note a violation."""
        self.violations += 1
        if len(self.differences) < EXAMPLES_MAX:
            self.differences.append(sentence)


class Book:
    """The events of the client's notes, a few bytes each, by number."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self._places: dict[Place, int] = {}
        self._place = array("q")
        self._nanos = array("q")
        self._acknowledged = bytearray()
        self._times = array("b")
        batches: dict[int, list[int]] = {}
        for note in notes:
            if note.sending is not None:
                numbers: list[int] = []
                for event in note.sending.events:
                    hour = _NO_HOUR if event.timestamp is None else f"{event.timestamp[:13]}:00:00Z"
                    place = Place(event.user_id, event.event_type, hour)
                    number = int(event.properties["n"])
                    self._grow(number)
                    self._place[number] = self._places.setdefault(place, len(self._places))
                    self._nanos[number] = from_text(event.units)
                    numbers.append(number)
                batches[note.sending.number] = numbers
            elif note.acknowledged is not None:
                for number in batches.get(note.acknowledged, ()):
                    self._acknowledged[number] = 1

    def _grow(self, number: int) -> None:
        missing = number + 1 - len(self._place)
        if missing > 0:
            self._place.extend([-1] * missing)
            self._nanos.extend([0] * missing)
            self._acknowledged.extend(bytes(missing))
            self._times.extend([0] * missing)

    def compare(
        self, events: Iterable[tuple[str, int, str]], usage: Iterable[tuple[str, str, str, str, int]]
    ) -> Compared:
        """Compare with the events (number, how often, units) and the usage (user, meter, hour, units, events)."""
        compared = Compared()
        self._compare_events(events, compared)
        self._compare_usage(usage, compared)
        return compared

    def _compare_events(self, events: Iterable[tuple[str, int, str]], compared: Compared) -> None:
        for text, times, units in events:
            number = int(text) if text is not None and text.isdigit() else -1
            if not 0 <= number < len(self._place) or self._place[number] < 0:
                compared.differ(f"event {text!r} is counted, and the client never sent it")
                continue
            self._times[number] = min(times, 100)
            if times == 1 and from_text(str(Decimal(units))) != self._nanos[number]:
                wanted = format_units(self._nanos[number])
                compared.differ(f"event {number} is counted with {units} units, and was sent with {wanted}")
        for number, (place, acknowledged, times) in enumerate(
            zip(self._place, self._acknowledged, self._times, strict=True)
        ):
            if place < 0:
                continue
            compared.acknowledged += acknowledged
            compared.unanswered += 1 - acknowledged
            compared.unanswered_counted += times if not acknowledged else 0
            if times > 1 or times < acknowledged:
                was = "acknowledged" if acknowledged else "sent and never answered"
                compared.differ(f"event {number} was {was}, and is counted {times} times")

    def _compare_usage(self, usage: Iterable[tuple[str, str, str, str, int]], compared: Compared) -> None:
        """Usage has to be the sum of the events that are there; what these have to be was compared before."""
        wanted: dict[Place, list[int]] = {}
        names = list(self._places)
        for place, nanos, times in zip(self._place, self._nanos, self._times, strict=True):
            if place >= 0 and times:
                figure = wanted.setdefault(names[place], [0, 0])
                figure[0] += nanos * times
                figure[1] += times
        found: dict[Place, list[int]] = {}
        for user_id, meter, hour, units, count in usage:
            assigned = Place(user_id, meter, _NO_HOUR)
            place_ = assigned if assigned in self._places else Place(user_id, meter, hour)
            figure = found.setdefault(place_, [0, 0])
            figure[0] += from_text(units)
            figure[1] += count
        compared.sums = len(wanted)
        for place_ in sorted(wanted.keys() | found.keys()):
            there, sent = found.get(place_, [0, 0]), wanted.get(place_, [0, 0])
            if there != sent:
                when = f" in {place_.hour}" if place_.hour else ""
                compared.differ(
                    f"usage of {place_.user_id}, {place_.meter}{when}: {format_units(there[0])} units of {there[1]} "
                    f"events, and its events come to {format_units(sent[0])} of {sent[1]}"
                )
