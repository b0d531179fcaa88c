"""The drain: one sealed epoch into Postgres, in one transaction, then published (rules 2 to 4, 9 and 11)."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from flusher.adding import Counters, Gathered, sum_of
from flusher.entry import Entry, Verdict, judge
from flusher.insert import Inserter, Taken
from flusher.law import NO_FLOOR_US, Case, Outcome, Tally, tally
from flusher.ledger import Advance, Ledger, LedgerRow, Mark
from flusher.source import Sealed, Source, random_token
from flusher.store import DataRefused
from flusher.summed import KeyedRows
from flusher.totals import day_totals
from flusher.voids import Void, Voiding, fed_by, voids_of
from sidecar.contract.codec import decode_batch
from sidecar.contract.meters import Amount, Counter

CHUNK_EVENTS: Final = 10_000


@dataclass(slots=True)
class Drained:
    """What one or more drains did. `again`: something else was done instead, and the shard may have more."""

    epochs: int = 0
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    discrepancies: int = 0
    voided: int = 0
    again: bool = False

    def add(self, other: "Drained") -> None:
        """Add what another drain did."""
        self.epochs += other.epochs
        self.events += other.events
        self.duplicates += other.duplicates
        self.conflicts += other.conflicts
        self.quarantined += other.quarantined
        self.discrepancies += other.discrepancies
        self.voided += other.voided
        self.again = self.again or other.again

    def as_json(self) -> dict[str, int]:
        """Return the figures that commands report."""
        names = ("epochs", "events", "duplicates", "conflicts", "quarantined", "discrepancies", "voided")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class _Epoch:
    """What is known of an epoch while its entries are read."""

    floors: LedgerRow
    marks: dict[str, Mark]
    hole_ends: dict[tuple[str, int], bytes]  # what closes a hole when it is taken (rule 7)
    entries: int = 0
    broken: bool = False
    inserting: Callable[[], list[Case]] | None = None  # waits for the chunk that Postgres has
    gathered: Gathered = field(default_factory=Gathered)  # what Redis counted, and is not in `streamed` yet
    missed: Gathered = field(default_factory=Gathered)  # what Redis counted and is not taken, taken out
    streamed: Counters = field(default_factory=dict)  # what the counters should say (rule 9)
    differences: Counters = field(default_factory=dict)  # what counts beyond that: mostly nothing
    tallies: dict[str, Tally] = field(default_factory=dict)
    watermarks_us: dict[str, int] = field(default_factory=dict)
    voiding: Voiding = field(default_factory=Voiding)


class Drain:
    """Takes sealed epochs of one ledger from `source` to `ledger`.

    `keyed_rows` says what Postgres keeps of events under an Idempotency-Key.
    """

    def __init__(self, source: Source, ledger: Ledger, keyed_rows: KeyedRows = KeyedRows.SINGLE) -> None:
        self._source = source
        self._ledger = ledger
        self._keyed_rows = keyed_rows

    def drain(
        self, shard: int, generation: str, sealed: Sealed, *, remains: bool = False, wait: bool = False
    ) -> Drained:
        """Commit the sealed epoch if it is next, and publish it. Safe to repeat, by anyone, at any time.

        `remains`: the generation is fenced and about to be replaced; its epochs are taken whatever they follow (rule
        5). `wait` for another flusher that holds the shard, instead of leaving it to that one. Raises EpochChanged
        when the epoch is gone, TryAgainError when a server is.
        """
        with self._ledger.transaction():
            held = self._ledger.lock(shard, wait=wait)
            if held is None:
                return Drained(again=True)
            counters = self._source.counters(shard, generation, sealed.token)
            if held == sealed.token:
                # Committed before, not published (rule 3). What counted may be in no counter of Redis: it was opaque,
                # or took what Redis took for a repeat, or the counters are gone.
                drained, mentioned = Drained(again=True), {*counters, *self._mentioned(shard, generation, sealed)}
            elif remains or held == sealed.follows:
                drained, mentioned = self._commit(shard, generation, sealed, counters)
            else:
                return Drained(again=True)  # Redis follows something else than Postgres: a new generation (rule 5)
            totals = self._totals(list(mentioned))
            committed = [(producer, mark.position) for producer, mark in self._ledger.marks(shard).items()]
        self._source.publish(shard, generation, sealed.token, committed, day_totals(totals))
        return drained

    def _mentioned(self, shard: int, generation: str, sealed: Sealed) -> set[Counter]:
        """Return the counters that events of the epoch feed, or that its voids took something from."""
        gathered = Gathered()
        voids: list[Void] = []
        for entries in self._source.entries(shard, generation, sealed.token):
            for entry in entries:
                if entry is not None:
                    with suppress(msgspec.DecodeError):  # it is in quarantine
                        batch = decode_batch(entry.record)
                        gathered.add(batch)
                        voids += [void for _, void in voids_of(batch)]
        fed = fed_by(self._ledger.voided(voids), self._ledger)
        gathered.fold(self._ledger.revision, fed)
        return set(fed)

    def _totals(self, counters: Sequence[Counter]) -> dict[Counter, Amount]:
        """Return the usage of counters. What Postgres can't be asked for has none: it was quarantined (rule 13)."""
        try:
            with self._ledger.savepoint():
                return self._ledger.totals(counters)
        except DataRefused:
            half = len(counters) // 2
            return self._totals(counters[:half]) | self._totals(counters[half:]) if half else {}

    def _commit(
        self, shard: int, generation: str, sealed: Sealed, counters: dict[Counter, Amount]
    ) -> tuple[Drained, set[Counter]]:
        epoch = _Epoch(self._ledger.read(), self._ledger.marks(shard), self._ledger.hole_ends(shard))
        inserter = Inserter(self._ledger, shard, epoch.floors, self._keyed_rows)
        taken: list[Taken] = []
        try:
            for entries in self._source.entries(shard, generation, sealed.token):
                for entry in entries:
                    self._hear(shard, epoch, entry, taken)
                if sum(batch.count for _, batch in taken) >= CHUNK_EVENTS:
                    self._insert(epoch, inserter, taken)
                    taken = []
            self._insert(epoch, inserter, taken)
            self._settle(epoch)
        except BaseException:
            if epoch.inserting is not None:
                with suppress(Exception):  # the transaction can't be undone before; what happened first is raised
                    epoch.inserting()
            raise
        usage = sum_of(epoch.streamed, epoch.differences)
        self._ledger.add_usage(shard, usage)
        voided, lowered = epoch.voiding.take_out(self._ledger, shard)
        drained = self._finish(shard, sealed, epoch, counters)
        drained.voided = voided
        return drained, {*counters, *epoch.streamed, *usage, *lowered}

    def _hear(self, shard: int, epoch: _Epoch, entry: Entry | None, taken: list[Taken]) -> None:
        epoch.entries += 1
        if entry is None:
            epoch.broken = True  # somebody else wrote into the stream: what it displaced is sent again
            return
        mark = epoch.marks.get(entry.producer)
        verdict = judge(entry, mark.position if mark else None)
        try:
            batch = decode_batch(entry.record)
        except msgspec.DecodeError as error:
            batch = None
            problem = str(error)
        is_taken = verdict is Verdict.TAKE
        if batch is not None:
            epoch.gathered.add_counted(entry, batch)
            if not is_taken:
                epoch.missed.add_counted(entry, batch, -1)
        if verdict is Verdict.LEAVE_OUT:
            epoch.broken = True
        if not is_taken or mark is None:
            return
        if batch is None:
            events = entry.running.events - mark.running.events
            nanos = entry.running.nanos - mark.running.nanos
            sequence = entry.after.sequence
            self._settle(epoch)
            self._ledger.quarantine(
                shard, entry.producer, sequence, "record_invalid", problem, entry.record, events, nanos
            )
            epoch.tallies.setdefault(entry.producer, Tally()).add(Outcome.QUARANTINED, events, nanos)
        else:
            taken.append((entry, batch))
            epoch.voiding.hear(batch)
            watermark_us = max(batch.watermark_us, epoch.watermarks_us.get(entry.producer, NO_FLOOR_US))
            epoch.watermarks_us[entry.producer] = watermark_us
        epoch.marks[entry.producer] = Mark(entry.after, entry.running)
        if epoch.hole_ends.get((entry.producer, entry.after.sequence)) == entry.after.digest:
            self._settle(epoch)
            self._ledger.fill_hole(entry.producer, shard, entry.after.sequence)

    def _insert(self, epoch: _Epoch, inserter: Inserter, taken: list[Taken]) -> None:
        """Have Postgres take a chunk; meanwhile the next one is read, and what Redis counted is folded."""
        self._settle(epoch)
        for number in epoch.gathered.revisions | epoch.missed.revisions:
            self._ledger.revision(number)  # asked for now: nothing is while a chunk is on its way
        epoch.inserting = self._ledger.start(partial(inserter.insert, taken))
        epoch.gathered.fold(self._ledger.revision, epoch.streamed)
        epoch.missed.fold(self._ledger.revision, epoch.differences)

    def _settle(self, epoch: _Epoch) -> None:
        """Wait for the chunk that Postgres has, and account for it."""
        if epoch.inserting is None:
            return
        inserting, epoch.inserting = epoch.inserting, None
        cases = inserting()
        tally(cases, epoch.tallies)
        beyond = Gathered()
        for case in cases:
            beyond.add_difference(case)
        beyond.fold(self._ledger.revision, epoch.differences)

    def _finish(self, shard: int, sealed: Sealed, epoch: _Epoch, counters: dict[Counter, Amount]) -> Drained:
        self._ledger.advance(
            shard,
            [
                Advance(producer, mark, epoch.tallies.get(producer, Tally()), epoch.watermarks_us.get(producer, 0))
                for producer, mark in epoch.marks.items()
                if producer in epoch.tallies or producer in epoch.watermarks_us
            ],
        )
        differing = list(_differences(counters, epoch.streamed))
        for counter in differing:
            none = Amount()
            counted, streamed = counters.get(counter, none), epoch.streamed.get(counter, none)
            self._ledger.record_discrepancy(shard, sealed.token, counter, counted, streamed)
        if epoch.entries != sealed.entries:
            epoch.broken = True  # a short read: what is missing can't be told from what never was
        # Rule 3: the epoch's own token lets the next one follow; a fresh one forces a new generation (rule 5).
        self._ledger.store_token(shard, random_token() if epoch.broken else sealed.token)
        outcomes = {outcome: sum(tally_.events[outcome] for tally_ in epoch.tallies.values()) for outcome in Outcome}
        return Drained(
            epochs=1,
            events=outcomes[Outcome.INSERTED],
            duplicates=outcomes[Outcome.DUPLICATE],
            conflicts=outcomes[Outcome.CONFLICT],
            quarantined=outcomes[Outcome.QUARANTINED],
            discrepancies=len(differing),
            again=epoch.broken,
        )


def _differences(counted: dict[Counter, Amount], streamed: dict[Counter, Amount]) -> Iterable[Counter]:
    for counter in counted.keys() | streamed.keys():
        there, wanted = counted.get(counter, Amount()), streamed.get(counter, Amount())
        if (there.nanos, there.events) != (wanted.nanos, wanted.events):
            yield counter
