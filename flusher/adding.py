"""What batches add up to: gathered by what their events say, and brought to counters once for all of them. Pure."""

from collections.abc import Callable, Iterable

from flusher.entry import Entry
from flusher.law import Case
from sidecar.contract.codec import Batch, numbers
from sidecar.contract.meters import WINDOW_US, Amount, Counter, Revision, groups_of

Counters = dict[Counter, Amount]


class Gathered:
    """Events by revision, user, event type, properties and window. What is taken out may leave less than nothing."""

    def __init__(self) -> None:
        self.revisions: set[int] = set()
        self._sums: dict[tuple[int, str, str, str, int], list[int]] = {}  # -> [nanos, events]

    def add(self, batch: Batch, times: int = 1) -> None:
        """Add the events of a batch, `times` each: -1 takes them out."""
        for (number, window), events in groups_of(batch)[0].items():
            self._add(batch, number, window, events * times)

    def add_places(self, batch: Batch, places: Iterable[int], times: int = 1) -> None:
        """Add single events of a batch, `times` each."""
        content_of, times_us = numbers("H", batch.content_of), numbers("q", batch.times_us)
        for place in places:
            self._add(batch, content_of[place], times_us[place] // WINDOW_US, times)

    def add_counted(self, entry: Entry, batch: Batch, times: int = 1) -> None:
        """Add what ingest counted of a batch: every event but those that it took for a repeat, `times` each."""
        if not entry.opaque:
            self.add(batch, times)
            self.add_places(batch, {*entry.duplicates, *entry.conflicts}, -times)

    def add_difference(self, case: Case) -> None:
        """Add what counts of a settled case beyond what ingest counted of it."""
        entry, batch, decided = case.entry, case.batch, case.decided.keys()
        if entry.opaque:
            self.add(batch)
            self.add_places(batch, decided, -1)
        else:
            repeats = {*entry.duplicates, *entry.conflicts}
            self.add_places(batch, repeats - decided)
            self.add_places(batch, decided - repeats, -1)

    def _add(self, batch: Batch, number: int, window: int, events: int) -> None:
        content = batch.contents[number]
        self.revisions.add(batch.revision)
        same = (batch.revision, content.user_id, content.event_type, content.properties, window)
        held = self._sums.get(same)
        if held is None:
            self._sums[same] = [content.nanos * events, events]
        else:
            held[0] += content.nanos * events
            held[1] += events

    def fold(self, revision_of: Callable[[int], Revision], into: Counters) -> None:
        """Add what was gathered to counters, under the meters of its revisions, and begin anew."""
        for (number, user_id, event_type, properties, window), (nanos, events) in self._sums.items():
            if not events and not nanos:
                continue  # all of it was taken out again
            for meter, dimensions, share in revision_of(number).shares(event_type, properties, nanos, events):
                counter = Counter(user_id, meter, window, dimensions)
                amount = into.get(counter)
                if amount is None:
                    into[counter] = Amount(share, events)
                else:
                    amount.add(share, events)
        self._sums = {}
        self.revisions = set()


def sum_of(counters: Counters, differences: Counters) -> Counters:
    """Return counters and what they differ by, without those that come to nothing."""
    if not differences:
        return counters
    found = {counter: Amount(amount.nanos, amount.events) for counter, amount in counters.items()}
    for counter, amount in differences.items():
        found.setdefault(counter, Amount()).add(amount.nanos, amount.events)
    return {counter: amount for counter, amount in found.items() if amount.events or amount.nanos}
