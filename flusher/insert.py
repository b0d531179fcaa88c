"""A chunk of batches into Postgres, under the law; what its data make impossible to store is found and quarantined."""

from collections.abc import Mapping, Sequence

import msgspec

from flusher.entry import Entry
from flusher.law import Court, Item, claim_keys
from flusher.ledger import DataRefused, Ledger, LedgerRow
from sidecar.contract.codec import Batch
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event, Identity

Taken = tuple[Entry, Batch]


class Inserter:
    """Inserts on behalf of one drain, inside its transaction."""

    def __init__(self, ledger: Ledger, shard: int, floors: LedgerRow) -> None:
        self._ledger = ledger
        self._shard = shard
        self._floors = floors

    def insert(self, taken: Sequence[Taken]) -> list[Item]:
        """Decide on every event of the batches, store what that means, and return the decided items.

        Only errors of the data (SQLSTATE 22 and 23) bisect the chunk, to single events (rule 13); any other error
        undoes the whole transaction, to be repeated.
        """
        try:
            with self._ledger.savepoint():
                return self._rule(taken, {})
        except DataRefused as error:
            if len(taken) > 1:
                half = len(taken) // 2
                return self.insert(taken[:half]) + self.insert(taken[half:])
            ((entry, batch),) = taken
            refused = self._refused_places(entry, batch, batch.events, range(batch.count))
            if not refused:
                raise TaximeterError(
                    "invariant_broken", f"a batch is refused, none of its events is: {error}"
                ) from error
            with self._ledger.savepoint():
                return self._rule(taken, {entry.identifier: refused})

    def _rule(self, taken: Sequence[Taken], refused: Mapping[str, Mapping[int, str]]) -> list[Item]:
        wanted: set[bytes] = set()
        for _, batch in taken:
            wanted |= claim_keys(batch)
        court = Court(self._ledger.claims(wanted), self._floors.event_floor_us, self._floors.claim_floor_us)
        for entry, batch in taken:
            court.hear(entry, batch, refused.get(entry.identifier, {}))
        court.settle(self._ledger.insert(self._shard, court.candidates))
        self._ledger.store_claims({key: court.claims[key] for key in court.changed_claims})
        self._ledger.store_refused(self._shard, court.items)
        return court.items

    def _refused_places(
        self, entry: Entry, batch: Batch, events: Sequence[Event], places: Sequence[int]
    ) -> dict[int, str]:
        """Return the places whose events can't be stored, with why, by halving; nothing is left behind."""
        # As events that nothing but their key is looked up by: what is probed is whether they can be stored.
        made = [msgspec.structs.replace(events[place], identity=Identity.MADE) for place in places]
        probe = Columns.of(made).batch(batch.shard, batch.revision, batch.accepted_at_us, batch.watermark_us)
        try:
            with self._ledger.savepoint(undo=True):
                self._rule([(entry._replace(conflicts=()), probe)], {})
        except DataRefused as error:
            if len(places) == 1:
                return {places[0]: error.message}
            half = len(places) // 2
            first = self._refused_places(entry, batch, events, places[:half])
            return first | self._refused_places(entry, batch, events, places[half:])
        return {}
