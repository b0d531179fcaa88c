"""A chunk of batches into Postgres, under the law; what its data make impossible to store is found and quarantined."""

from collections.abc import Mapping, Sequence

from flusher.adding import Counters, Gathered
from flusher.entry import Entry
from flusher.law import NOTHING_REFUSED, Case, Court, Decision, Outcome, claim_keys
from flusher.ledger import Ledger, LedgerRow
from flusher.store import DataRefused
from flusher.summed import KeyedRows, Summing
from flusher.voids import Voiding, stored_voids
from sidecar.contract.codec import Batch
from sidecar.contract.codes import TaximeterError

Taken = tuple[Entry, Batch]


class Inserter:
    """Inserts on behalf of one drain, inside its transaction."""

    def __init__(self, ledger: Ledger, shard: int, floors: LedgerRow, keyed_rows: KeyedRows = KeyedRows.SINGLE) -> None:
        self._ledger = ledger
        self._shard = shard
        self._floors = floors
        self._keyed_rows = keyed_rows

    def insert(self, taken: Sequence[Taken]) -> list[Case]:
        """Decide on every event of the batches, store what that means, and return the settled cases.

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
            refused = self._refused_places(entry, batch, range(batch.count))
            if not refused:
                raise TaximeterError(
                    "invariant_broken", f"a batch is refused, none of its events is: {error}"
                ) from error
            with self._ledger.savepoint():
                return self._rule(taken, {entry.identifier: refused})

    def count(self, cases: Sequence[Case]) -> bool:
        """Add what settled cases stored to usage, less what voids cancel; return whether that was anything.

        For what is brought in one by one; a drain does it once for a whole epoch.
        """
        gathered, voiding = Gathered(), Voiding()
        for case in cases:
            gathered.add_places(case.batch, case.singles())
            voiding.hear(case.batch)
        usage: Counters = {}
        gathered.fold(self._ledger.revision, usage)
        self._ledger.add_usage(self._shard, usage)
        voided, _ = voiding.take_out(self._ledger, self._shard)
        return bool(usage or voided)

    def _rule(self, taken: Sequence[Taken], refused: Mapping[str, Mapping[int, str]]) -> list[Case]:
        wanted: set[bytes] = set()
        for _, batch in taken:
            wanted |= claim_keys(batch)
        summing = self._summing(taken) if wanted and self._keyed_rows is KeyedRows.SUMMED else None
        floors = self._floors
        court = Court(self._ledger.claims(wanted), floors.event_floor_us, floors.claim_floor_us, summing)
        for entry, batch in taken:
            court.hear(entry, batch, refused.get(entry.identifier, NOTHING_REFUSED))
        court.settle(self._ledger.insert(self._shard, court.cases))
        self._ledger.store_values(court.cases)
        self._ledger.store_claims({key: court.claims[key] for key in court.changed_claims})
        self._ledger.store_refused(self._shard, court.cases)
        self._ledger.store_voids(self._shard, stored_voids(court.cases))
        return court.cases

    def _summing(self, taken: Sequence[Taken]) -> Summing:
        users = {content.user_id for _, batch in taken if batch.claims for content in batch.contents}
        return Summing(self._ledger.keeping, self._ledger.single_users(users))

    def _refused_places(self, entry: Entry, batch: Batch, places: Sequence[int]) -> dict[int, str]:
        """Return the places whose events can't be stored, with why, by halving; nothing is left behind."""
        others = set(range(batch.count)).difference(places)
        probe = Case(entry, batch, dict.fromkeys(others, Decision(Outcome.QUARANTINED)))
        try:
            with self._ledger.savepoint(undo=True):
                self._ledger.insert(self._shard, [probe])
        except DataRefused as error:
            if len(places) == 1:
                return {places[0]: error.message}
            half = len(places) // 2
            first = self._refused_places(entry, batch, places[:half])
            return first | self._refused_places(entry, batch, places[half:])
        return {}
