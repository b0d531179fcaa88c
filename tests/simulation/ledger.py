"""The flusher's ledger over the in-memory Postgres: the methods of `flusher.ledger.Ledger`, with the same meaning.

`tests/simulation/test_ledger.py` runs the same operations here and on PostgreSQL.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from flusher.law import NO_FLOOR_US, Case, ClaimState, Outcome, Stored
from flusher.ledger import Advance, LedgerRow, Mark
from flusher.store import DataRefused
from flusher.totals import day_totals
from flusher.voids import Void, Voided
from sidecar.contract.asking import Asking, Missing
from sidecar.contract.codec import Position, Running
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event
from sidecar.contract.meters import WINDOW_S, WINDOW_US, Amount, Counter, Revision
from sidecar.contract.scripts import DayTotals
from tests.simulation.database import GONE
from tests.simulation.session import LedgerSession

DAYS_AT_ONCE: Final = 2
REFUSED: Final = "refused by Postgres"  # a user whose events can't be stored


class Known(NamedTuple):
    """A row of producers."""

    host: str
    predecessor: str | None
    retired: bool


class Hole(NamedTuple):
    """A row of holes."""

    last: int
    events: int
    digest: bytes | None
    accepted: bool


@dataclass(frozen=True)
class Place:
    """A row of positions: how far a producer was taken on a shard, and what became of its events."""

    position: Position
    running: Running
    watermark_us: int
    events: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    nanos: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))


class MemoryLedger(LedgerSession):
    """A session of a process with the in-memory Postgres."""

    # -- the ledger and its producers

    def read(self) -> LedgerRow:
        """Returns the ledger's row."""
        identifier, shards = self._alive().get("ledger", ())
        return LedgerRow(identifier, shards, NO_FLOOR_US, NO_FLOOR_US)

    def revisions(self, after: int = -1) -> dict[int, str]:
        """Returns the meters of the revisions behind `after`."""
        return {number: text for (number,), text in sorted(self._alive().rows("revisions")) if number > after}

    def users_of_other_customers(self) -> dict[str, str]:
        """Returns nobody."""
        return {}

    def revision(self, number: int) -> Revision:
        """Returns the meters that a batch was counted under."""
        return self._revisions.numbered(number)

    def keeping(self, number: int) -> Revision:
        """Returns the same meters; those that keep values by now keep them."""
        self._revisions.refresh()
        return self._revisions.keeping(number)

    def register(self, producer: str, asking: Asking, zeros: Sequence[Position]) -> bool:
        """Makes a producer known, or takes back that it was let go; False when it is known already."""
        self._hold(("producer", producer), wait=True)
        session = self._session
        known: Known | None = session.get("producers", (producer,))
        if known is not None:
            if known.retired:
                session.put("producers", (producer,), known._replace(retired=False))
            return known.retired
        before = [name for name in asking.predecessors if session.get("producers", (name,)) is not None]
        predecessor = before[-1] if before else None
        watermark_us = self._database.now_us()
        if asking.watermark_us is not None:
            watermark_us = min(watermark_us, asking.watermark_us)
        session.put("producers", (producer,), Known(asking.host, predecessor, retired=False))
        for shard, zero in enumerate(zeros):
            session.put("positions", (producer, shard), Place(zero, Running(0, 0), watermark_us))
        return True

    def position(self, producer: str, shard: int) -> Position | None:
        """Returns how far a producer was taken on a shard."""
        row: Place | None = self._statement().get("positions", (producer, shard))
        return None if row is None else row.position

    def note_missing(self, missing: Missing) -> None:
        """Records as a hole what Postgres does not have of records that a journal no longer has."""
        self.lock(missing.shard, wait=True)
        session = self._statement()
        row: Place | None = session.get("positions", (missing.producer, missing.shard))
        if row is None or row.position.sequence >= missing.last:
            return
        first = max(missing.first, row.position.sequence + 1)
        known = missing.events is not None and first == row.position.sequence + 1
        lost = missing.events - row.running.events if missing.events is not None and known else 0
        digest = None if missing.digest is None else bytes.fromhex(missing.digest)
        key = (missing.producer, missing.shard, first)
        old: Hole | None = session.get("holes", key)
        new = Hole(missing.last, lost, digest, accepted=False)
        if old is None:
            session.put("holes", key, new)
        elif missing.last > old.last:
            session.put("holes", key, new._replace(events=max(old.events, lost)))
        else:
            session.put("holes", key, old._replace(events=max(old.events, lost)))

    def hole_ends(self, shard: int) -> dict[tuple[str, int], bytes]:
        """Returns the digests behind the last records of open holes."""
        return {
            (producer, hole.last): hole.digest
            for (producer, number, _), hole in self._statement().rows("holes")
            if number == shard and not hole.accepted and hole.digest is not None
        }

    def fill_hole(self, producer: str, shard: int, last: int) -> None:
        """Closes a hole whose records have come after all."""
        session = self._statement()
        for key, hole in session.rows("holes"):
            if key[:2] == (producer, shard) and hole.last == last:
                session.put("holes", key, hole._replace(accepted=True))

    def quiet_predecessors(self, quiet_s: int) -> list[str]:
        """Returns the producers whose records go on under another id and that were silent for so long."""
        session = self._statement()
        producers: dict[str, Known] = {key[0]: row for key, row in session.rows("producers")}
        followed = {row.predecessor for row in producers.values()}
        until_us = self._database.now_us() - quiet_s * 1_000_000
        heard: dict[str, int] = {}
        for (producer, _), row in session.rows("positions"):
            heard[producer] = max(row.watermark_us, heard.get(producer, 0))
        return [
            name for name, row in producers.items() if not row.retired and name in followed and heard[name] < until_us
        ]

    def let_go(self, producer: str) -> None:
        """Retires a producer that has nothing which Postgres lacks."""
        session = self._statement()
        session.put("producers", (producer,), session.get("producers", (producer,))._replace(retired=True))

    def open_positions(self, shard: int) -> list[tuple[str, Position]]:
        """Returns the positions of the producers that are not retired."""
        session = self._statement()
        return sorted(
            (producer, row.position)
            for (producer, number), row in session.rows("positions")
            if number == shard and not session.get("producers", (producer,)).retired
        )

    # -- the shard

    def token(self, shard: int) -> str:
        """Returns the token of the last committed epoch."""
        return str(self._statement().get("shards", (shard,)))

    def lock(self, shard: int, *, wait: bool) -> str | None:
        """Holds the shard until the transaction ends, and returns its token."""
        if not self._hold(("shard", shard), wait=wait):
            return None
        return str(self._session.get("shards", (shard,)))

    def store_token(self, shard: int, token: str) -> None:
        """Lets the transaction commit the epoch with this token."""
        self._statement().put("shards", (shard,), token)

    def marks(self, shard: int) -> dict[str, Mark]:
        """Returns how far every producer has been taken."""
        rows = self._statement().rows("positions")
        return {producer: Mark(row.position, row.running) for (producer, number), row in rows if number == shard}

    def advance(self, shard: int, advances: Iterable[Advance]) -> None:
        """Moves producers on; the constraint refuses what does not add up."""
        session = self._statement()
        for producer, mark, tally, watermark_us in advances:
            row: Place | None = session.get("positions", (producer, shard))
            if row is None:
                continue
            moved = replace(
                row,
                position=mark.position,
                running=mark.running,
                watermark_us=max(row.watermark_us, watermark_us),
                events={outcome: row.events[outcome] + tally.events[outcome] for outcome in Outcome},
                nanos={outcome: row.nanos[outcome] + tally.nanos[outcome] for outcome in Outcome},
            )
            if mark.running != (sum(moved.events.values()), sum(moved.nanos.values())):
                raise TaximeterError("invariant_broken", "every_event_is_accounted_for")
            session.put("positions", (producer, shard), moved)

    # -- events

    def claims(self, wanted: Iterable[bytes]) -> dict[bytes, ClaimState]:
        """Returns the claims with these keys that there are."""
        session = self._statement()
        found = {key: session.get("claims", (key,)) for key in wanted}
        return {
            key: ClaimState(row[0], None if row[1] is None else set(row[1]), 0, set(row[2]))
            for key, row in found.items()
            if row is not None
        }

    def store_claims(self, claims: Mapping[bytes, ClaimState]) -> None:
        """Stores new claims, and what older ones cover by now."""
        session = self._statement()
        for key, state in claims.items():
            old = session.get("claims", (key,))
            covered = None if state.covered is None else frozenset(state.covered)
            digest = state.digest if old is None else old[0]
            session.put("claims", (key,), (digest, covered, frozenset(state.summed)))

    def single_users(self, users: Iterable[str]) -> set[str]:
        """Returns nobody: there are no subscriptions."""
        return set()

    def insert(self, shard: int, cases: Sequence[Case]) -> dict[Stored, bytes]:
        """Stores what counts; returns the fingerprints of what was there."""
        session = self._statement()
        there: dict[Stored, bytes] = {}
        for number, case in enumerate(cases):
            events = case.batch.events
            stored: dict[int, tuple[Event, tuple[int, ...]]] = {}
            for place in case.singles():
                stored[place] = events[place], (events[place].nanos,)
            for place, one in case.sums.items():
                stored[place] = one.event, tuple(events[part].nanos for part in one.places)
            for place, (event, parts) in sorted(stored.items()):
                if event.user_id == REFUSED:
                    raise DataRefused("a user that is refused")
                row = session.get("events", (event.time_us, event.key))
                if row is None:
                    known = (shard, case.entry.producer, case.batch.revision, event, parts)
                    session.put("events", (event.time_us, event.key), known)
                else:
                    there[Stored(number, place)] = row[3].fingerprint
        return there

    def store_values(self, cases: Sequence[Case]) -> None:
        """Keeps what the inserted events are to the meters that need each."""
        session = self._session
        for case in cases:
            events, revision = case.batch.events, self.keeping(case.batch.revision)
            for event in (events[place] for place in case.singles()):
                for value in revision.values(event.event_type, event.properties, event.nanos):
                    key = (event.time_us, event.key, value.meter)
                    if session.get("usage_values", key) is not None:
                        raise DataRefused("a value that is there")
                    session.put("usage_values", key, (event.user_id, value.dimensions, value.nanos, value.label))

    def store_refused(self, shard: int, cases: Iterable[Case]) -> None:
        """Keeps conflicts and quarantine."""
        session = self._statement()
        for case in cases:
            entry, events = case.entry, case.batch.events if case.decided else ()
            for place, (outcome, reason, detail) in sorted(case.decided.items()):
                event = events[place]
                if outcome is Outcome.CONFLICT:
                    row = (shard, entry.producer, reason, event)
                    session.put("event_conflicts", (self._database.next_serial(),), row)
                elif outcome is Outcome.QUARANTINED:
                    known = (shard, entry.producer, entry.after.sequence, reason, detail, entry.record)
                    self.quarantine(*known, 1, event.nanos, place)

    def quarantine(
        self,
        shard: int,
        producer: str,
        sequence: int,
        reason: str,
        detail: str,
        record: bytes,
        events: int,
        nanos: int,
        place: int | None = None,
    ) -> None:
        """Keeps what can't be counted."""
        row = (shard, producer, sequence, reason, record, events, nanos, place)
        self._statement().put("quarantine", (self._database.next_serial(),), row)

    # -- voids

    def store_voids(self, shard: int, voids: Sequence[Void]) -> None:
        """Keeps new voids."""
        for void in voids:
            self._statement().put("voids", (void.time_us, void.key), (shard, void, False))

    def take_voided(self, shard: int, first_us: int, last_us: int, limit: int) -> list[Voided]:
        """Marks stored events that voids wait for, and returns them."""
        session = self._statement()
        found: list[Voided] = []
        for key, (at, void, voided) in list(session.rows("voids")):
            event = session.get("events", key)
            if at == shard and not voided and first_us <= void.time_us <= last_us and event is not None:
                session.put("voids", key, (shard, void, True))
                found.append(_voided(event))
                for kept in [kept for kept, _ in session.rows("usage_values") if kept[:2] == key]:
                    session.put("usage_values", kept, GONE)
        return found

    def voided(self, voids: Sequence[Void]) -> list[Voided]:
        """Returns the events that these voids have cancelled."""
        session = self._statement()
        keys = {(void.time_us, void.key) for void in voids}
        return [_voided(session.get("events", key)) for key, row in session.rows("voids") if key in keys and row[2]]

    def lower_usage(self, counters: Mapping[Counter, Amount]) -> None:
        """Takes amounts out of the usage of counters."""
        for counter, amount in counters.items():
            for shard, _ in [key for key, _ in self._statement().rows("usage") if key[1] == counter]:
                self.add_usage(shard, {counter: Amount(-amount.nanos, -amount.events)})

    # -- usage

    def add_usage(self, shard: int, counters: Mapping[Counter, Amount]) -> None:
        """Adds to the usage of counters."""
        session = self._statement()
        for counter, amount in counters.items():
            nanos, events = session.get("usage", (shard, counter)) or (0, 0)
            session.put("usage", (shard, counter), (nanos + amount.nanos, events + amount.events))

    def totals(self, counters: Iterable[Counter]) -> dict[Counter, Amount]:
        """Returns the usage of counters by now."""
        wanted = set(counters)
        rows = self._statement().rows("usage")
        return {counter: Amount(*row) for (_, counter), row in rows if counter in wanted}

    def each_day(self, shard: int, since: datetime) -> Iterator[list[DayTotals]]:
        """Yields the usage of a shard from a day on as totals, some at a time."""
        first = int(since.timestamp()) // WINDOW_S
        rows = self._statement().rows("usage")
        found = {counter: Amount(*row) for (at, counter), row in rows if at == shard and counter.window >= first}
        days = day_totals(found)
        for place in range(0, len(days), DAYS_AT_ONCE):
            self._statement()
            yield days[place : place + DAYS_AT_ONCE]

    def record_discrepancy(self, shard: int, epoch: str, counter: Counter, counted: Amount, streamed: Amount) -> None:
        """Records a counter on which Redis's counters and its stream disagree."""
        row = (shard, epoch, counter, counted, streamed)
        self._statement().put("discrepancies", (self._database.next_serial(),), (*row, False))

    def resolve_discrepancies(self) -> int:
        """Closes the discrepancies on which usage agrees with the events."""
        session = self._statement()
        open_rows = [(key, row) for key, row in session.rows("discrepancies") if not row[5]]
        resolved = 0
        for key, row in open_rows:
            shard, _, counter = row[:3]
            counted: dict[Counter, Amount] = {}
            voided = {key for key, row in session.rows("voids") if row[2]}
            for key, (_, _, revision, event, parts) in session.rows("events"):
                if key not in voided:
                    _count(self.revision(revision), event, len(parts), counted)
            usage = session.get("usage", (shard, counter)) or (0, 0)
            if Amount(*usage) == counted.get(counter, Amount()):
                session.put("discrepancies", key, (*row[:5], True))
                resolved += 1
        return resolved


def _voided(row: tuple[int, str, int, Event, tuple[int, ...]]) -> Voided:
    _, _, revision, event, _ = row
    return Voided(event.key, event.time_us, event.user_id, event.event_type, revision, event.nanos, event.properties)


def _count(revision: Revision, event: Event, events: int, into: dict[Counter, Amount]) -> None:
    """Adds what a row of so many events feeds."""
    for meter, dimensions, nanos in revision.shares(event.event_type, event.properties, event.nanos, events):
        counter = Counter(event.user_id, meter, event.time_us // WINDOW_US, dimensions)
        into.setdefault(counter, Amount()).add(nanos, events)
