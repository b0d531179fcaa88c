"""The Postgres shell of the drain: each method is a statement or two, all inside the transaction of one epoch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.multirange import Multirange

from flusher import rows
from flusher.database import connect, first_line
from flusher.days import read_days
from flusher.law import NO_FLOOR_US, Case, ClaimState, Outcome, Stored, Tally
from flusher.recount import Recount
from flusher.revisions import Revisions
from flusher.sql import query
from flusher.store import DataRefused, Store
from flusher.values import Valued, delete_values, insert_values
from flusher.voids import Void, Voided
from sidecar.contract.asking import Asking, Missing
from sidecar.contract.codec import Position, Running
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.meters import Amount, Counter, Revision
from sidecar.contract.scripts import DayTotals
from sidecar.contract.units import from_decimal, to_decimal

Result = TypeVar("Result")

TOTALS_CHUNK: Final = 20_000


class LedgerRow(NamedTuple):
    """The ledger: its id, its shards, and the floors in microseconds since the epoch (rule 15).

    `told_floor_us` is the floor of events that sidecars refuse by; the ledger's own follows it.
    """

    id: str
    shards: int
    event_floor_us: int
    claim_floor_us: int
    told_floor_us: int = NO_FLOOR_US


@dataclass(slots=True)
class Mark:
    """How far a producer has been taken on a shard, and its running count there."""

    position: Position
    running: Running


class Advance(NamedTuple):
    """What a transaction adds to a producer's position."""

    producer: str
    mark: Mark
    tally: Tally
    watermark_us: int


def unavailable(error: psycopg.Error) -> TryAgainError:
    """Return the error that says that Postgres could not do it now."""
    return TryAgainError("database_unavailable", f"PostgreSQL: {first_line(error)}")


class Ledger:
    """A connection to the ledger. One transaction at a time: `with ledger.transaction(): ...`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = connect(url)
        self._revisions = Revisions(self.revisions)
        self._store = Store(url, self._connection)
        with self.transaction():
            self._run("create_staged")

    @property
    def connection(self) -> psycopg.Connection[TupleRow]:
        """The connection, for further statements inside `transaction`."""
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reconnect(self) -> None:
        """Connect anew if the connection is gone. Raises TryAgainError `database_unavailable`."""
        if self._connection.closed or self._connection.broken:
            self._connection.close()
            self._connection = connect(self._url)
            self._store = Store(self._url, self._connection)
            with self.transaction():
                self._run("create_staged")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what happens inside, or nothing of it.

        Raises TryAgainError `database_unavailable` where Postgres refuses or is gone: the whole may be repeated.
        """
        try:
            with self._connection.transaction():
                yield
        except psycopg.errors.CheckViolation as error:
            raise TaximeterError("invariant_broken", f"the ledger refuses what does not add up: {error}") from error
        except psycopg.Error as error:
            raise unavailable(error) from error

    @contextmanager
    def savepoint(self, *, undo: bool = False) -> Iterator[None]:
        """Keep what happens inside, unless it fails or `undo`: then nothing of it, and the transaction goes on.

        Raises DataRefused where Postgres refuses the data (SQLSTATE class 22 or 23).
        """
        try:
            with self._connection.transaction(force_rollback=undo):
                yield
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise DataRefused(first_line(error)) from error

    def start(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin work on this ledger behind the caller's back; return what waits for it and gives its result, or error.

        The caller waits before anything else is asked of the ledger, and before the transaction ends.
        """
        behind = ThreadPoolExecutor(1, "ledger")
        done = behind.submit(work)
        behind.shutdown(wait=False)  # its thread ends with the work
        return done.result

    def _rows(self, name: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> list[TupleRow]:
        return self._connection.execute(query(name), parameters).fetchall()

    def _run(self, name: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        self._connection.execute(query(name), parameters)

    # -- the ledger and its producers -----------------------------------------------------------------------------

    def read(self) -> LedgerRow:
        """Return the ledger's row. Raises TaximeterError `schema_outdated` where there is none."""
        rows = self._rows("read_ledger")
        if not rows:
            raise TaximeterError("schema_outdated", "the database holds no ledger; run `taximeter migrate`")
        return LedgerRow(*rows[0][:2], *(NO_FLOOR_US if floor is None else floor for floor in rows[0][2:]))

    def revisions(self, after: int = -1) -> dict[int, str]:
        """Return the meters of the revisions behind `after`, as JSON text."""
        return dict(self._rows("read_revisions", (after,)))

    def users_of_other_customers(self) -> dict[str, str]:
        """Return the users whose customer has another id."""
        return dict(self._rows("read_users_of_other_customers"))

    def revision(self, number: int) -> Revision:
        """Return the meters that a batch was counted under. Raises TaximeterError `codec_unknown` for no known one."""
        return self._revisions.numbered(number)

    def keeping(self, number: int) -> Revision:
        """Return the same meters; those that keep the values of each event by now keep them."""
        return self._revisions.keeping(number)

    def register(self, producer: str, asking: Asking, zeros: Sequence[Position]) -> bool:
        """Make a producer known with its zero position on every shard (rule 6); False when it is known already.

        It goes on with the records of the last known one of its predecessors. One that was retired and returns is
        reinstated where it was.
        """
        known = {"producer": producer, "host": asking.host[:256], "predecessors": list(asking.predecessors)}
        found = self._rows("register_producer", known)
        if found and found[0][0]:
            for shard, zero in enumerate(zeros):
                place = {"producer": producer, "shard": shard, "digest": zero.digest}
                self._run("register_position", place | {"watermark_us": asking.watermark_us})
        return bool(found)

    def position(self, producer: str, shard: int) -> Position | None:
        """Return how far a producer was taken on a shard; None where it is not known."""
        found = self._rows("read_position", (producer, shard))
        return Position(*found[0][:2]) if found else None

    def note_missing(self, missing: Missing) -> None:
        """Record as a hole what Postgres does not have of records that a journal no longer has (rule 7)."""
        self.lock(missing.shard, wait=True)  # nothing of it is committed meanwhile
        found = self._rows("read_position", (missing.producer, missing.shard))
        if not found or found[0][0] >= missing.last:
            return
        sequence, _, events = found[0]
        first = max(missing.first, sequence + 1)
        known = missing.events is not None and first == sequence + 1
        lost = missing.events - events if missing.events is not None and known else 0
        digest = None if missing.digest is None else bytes.fromhex(missing.digest)
        self._run("insert_hole", (missing.producer, missing.shard, first, missing.last, lost, digest))

    def hole_ends(self, shard: int) -> dict[tuple[str, int], bytes]:
        """Return the digests behind the last records of holes that are open, by producer and sequence."""
        return {(producer, last): digest for producer, last, digest in self._rows("read_hole_ends", (shard,))}

    def fill_hole(self, producer: str, shard: int, last: int) -> None:
        """Close a hole whose records have come after all."""
        self._run("fill_hole", (producer, shard, last))

    def quiet_predecessors(self, quiet_s: int) -> list[str]:
        """Return the producers whose records go on under another id and that were not heard of for so long."""
        return [row[0] for row in self._rows("read_quiet_predecessors", (quiet_s,))]

    def let_go(self, producer: str) -> None:
        """Retire a producer that has nothing which Postgres lacks (rule 14)."""
        self._run("let_go", (producer,))

    def open_positions(self, shard: int) -> list[tuple[str, Position]]:
        """Return the positions of the producers that are not retired."""
        return [
            (name, Position(sequence, digest)) for name, sequence, digest in self._rows("read_open_positions", (shard,))
        ]

    # -- the shard --------------------------------------------------------------------------------------------------

    def token(self, shard: int) -> str:
        """Return the token of the last committed epoch, without a lock."""
        return str(self._rows("read_token", (shard,))[0][0])

    def lock(self, shard: int, *, wait: bool) -> str | None:
        """Return the token, and hold the shard until the transaction ends; None if another has it and not `wait`."""
        if wait:
            self._run("wait_for_shard")
        held = self._rows("lock_shard" if wait else "lock_shard_if_free", (shard,))
        if held:
            self._revisions.refresh()  # meters that came meanwhile say whose values are kept
        return str(held[0][0]) if held else None

    def store_token(self, shard: int, token: str) -> None:
        """Let the transaction commit the epoch with this token."""
        self._run("store_token", (token, shard))

    def marks(self, shard: int) -> dict[str, Mark]:
        """Return how far every producer has been taken on the shard."""
        return {
            producer: Mark(Position(sequence, digest), Running(events, from_decimal(units)))
            for producer, sequence, digest, events, units in self._rows("read_positions", (shard,))
        }

    def advance(self, shard: int, advances: Iterable[Advance]) -> None:
        """Move producers on. The transaction fails unless every event is accounted for (rule 11)."""
        for producer, mark, tally, watermark_us in advances:
            outcomes: dict[str, Any] = {}
            for outcome in Outcome:
                outcomes[f"{outcome.value}_events"] = tally.events[outcome]
                outcomes[f"{outcome.value}_units"] = to_decimal(tally.nanos[outcome])
            known = {
                "producer": producer,
                "shard": shard,
                "sequence": mark.position.sequence,
                "digest": mark.position.digest,
                "events": mark.running.events,
                "units": to_decimal(mark.running.nanos),
                "watermark_us": watermark_us,
            }
            self._run("advance_position", known | outcomes)

    # -- events -----------------------------------------------------------------------------------------------------

    def claims(self, wanted: Iterable[bytes]) -> dict[bytes, ClaimState]:
        """Return the claims with these keys that there are."""
        names = list(wanted)
        if not names:
            return {}
        return {
            key: ClaimState(digest, None if covered is None else _indices(covered), 0, _indices(summed))
            for key, digest, covered, summed in self._rows("read_claims", (names,))
        }

    def store_claims(self, claims: Mapping[bytes, ClaimState]) -> None:
        """Store new claims, and what older ones cover by now."""
        if claims:
            states = list(claims.values())
            covered = [None if state.covered is None else rows.ranges(state.covered) for state in states]
            summed = [rows.ranges(state.summed) for state in states]
            digests, accepted_us = [state.digest for state in states], [state.accepted_at_us for state in states]
            self._run("upsert_claims", (list(claims), digests, covered, summed, accepted_us))

    def single_users(self, users: Iterable[str]) -> set[str]:
        """Return those of the users whose single events a subscription may ask for: it begins or ends in a window."""
        names = [user for user in users if "\0" not in user]  # PostgreSQL can't be asked for it, and refuses its events
        return {user for (user,) in self._rows("read_single_users", (names,))} if names else set()

    def insert(self, shard: int, cases: Sequence[Case]) -> dict[Stored, bytes]:
        """Store what counts of these cases; return the fingerprints of what was there, or came before it in them."""
        return self._store.insert(shard, cases)

    def store_values(self, cases: Sequence[Case]) -> None:
        """Keep what the inserted events of settled cases are to the meters that need each."""
        insert_values(self._connection, cases, self.keeping)

    def store_refused(self, shard: int, cases: Iterable[Case]) -> None:
        """Keep conflicts for the operator, and what can't be counted in quarantine."""
        for case in cases:
            refused = {place: one for place, one in case.decided.items() if one.outcome is not Outcome.DUPLICATE}
            events, entry = case.batch.events if refused else (), case.entry
            for place, decision in sorted(refused.items()):
                event = events[place]
                if decision.outcome is Outcome.CONFLICT:
                    self._run("insert_conflict", rows.conflict(shard, case, event, decision))
                    continue
                detail = f"event of {event.user_id!a} at {event.time_us} us: {decision.detail or decision.reason}"
                known = (shard, entry.producer, entry.after.sequence, decision.reason, detail, entry.record)
                self.quarantine(*known, 1, event.nanos, place)

    # -- voids ------------------------------------------------------------------------------------------------------

    def store_voids(self, shard: int, voids: Sequence[Void]) -> None:
        """Keep new voids: they wait for their events."""
        if voids:
            self._run("insert_voids", rows.voids(shard, voids))

    def take_voided(self, shard: int, first_us: int, last_us: int, limit: int) -> list[Voided]:
        """Mark events between two times that voids wait for and that are stored as cancelled, and return them."""
        span = {"shard": shard, "first_us": first_us, "last_us": last_us, "limit": limit}
        voided = [rows.voided(row) for row in self._rows("find_voided", span)]
        if voided:
            times_us, keys = [one.time_us for one in voided], [one.key for one in voided]
            ends = {"first_us": min(times_us), "last_us": max(times_us)}
            self._run("mark_voided", ends | {"times_us": times_us, "keys": keys})
            delete_values(self._connection, [Valued(one.user_id, one.time_us, one.key) for one in voided])
        return voided

    def voided(self, voids: Sequence[Void]) -> list[Voided]:
        """Return the events that these voids have cancelled."""
        wanted = {"times_us": [void.time_us for void in voids], "keys": [void.key for void in voids]}
        return [rows.voided(row) for row in self._rows("read_voided", wanted)] if voids else []

    def lower_usage(self, counters: Mapping[Counter, Amount]) -> None:
        """Take amounts out of the usage of counters. Raises TaximeterError `invariant_broken` where there is none."""
        ordered = list(counters)
        for first in range(0, len(ordered), TOTALS_CHUNK):
            chunk = ordered[first : first + TOTALS_CHUNK]
            lowered = self._connection.execute(query("lower_usage"), rows.amounts(chunk, counters)).rowcount
            if lowered != len(chunk):
                raise TaximeterError("invariant_broken", "an event is cancelled that usage does not have")

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
        """Keep what was accepted and can't be counted: the event at `place` of the record's batch, or all of it."""
        self._run(
            "insert_quarantine",
            (producer, shard, sequence, reason, detail[:2000], record, events, to_decimal(nanos), place),
        )

    # -- usage ------------------------------------------------------------------------------------------------------

    def add_usage(self, shard: int, counters: Mapping[Counter, Amount]) -> None:
        """Add to the usage of counters."""
        ordered = sorted(counters)
        for first in range(0, len(ordered), TOTALS_CHUNK):
            chunk = ordered[first : first + TOTALS_CHUNK]
            self._run("upsert_usage", {"shard": shard} | rows.amounts(chunk, counters))

    def totals(self, counters: Iterable[Counter]) -> dict[Counter, Amount]:
        """Return the usage of counters by now."""
        ordered = list(counters)
        found: dict[Counter, Amount] = {}
        for first in range(0, len(ordered), TOTALS_CHUNK):
            for row in self._rows("read_totals", rows.columns(ordered[first : first + TOTALS_CHUNK])):
                found[Counter(*row[:4])] = Amount(from_decimal(Decimal(row[4])), row[5])
        return found

    def each_day(self, shard: int, since: datetime) -> Iterator[list[DayTotals]]:
        """Yield the usage of a shard from a day on as totals, some thousand of a user and day at a time."""
        return read_days(self._connection, shard, since)

    def resolve_discrepancies(self) -> int:
        """Close the discrepancies on which usage, recounted from events, agrees (rule 9); return how many."""
        if not self._rows("open_discrepancies"):
            return 0
        return Recount(self._connection).resolve()

    def record_discrepancy(self, shard: int, epoch: str, counter: Counter, counted: Amount, streamed: Amount) -> None:
        """Record a counter on which Redis's counters and its stream disagree (rule 9)."""
        known = (shard, epoch, counter.user_id, counter.meter, counter.dimensions, counter.window)
        amounts = (to_decimal(counted.nanos), counted.events, to_decimal(streamed.nanos), streamed.events)
        self._run("insert_discrepancy", known + amounts)


def _indices(covered: Multirange[int]) -> set[int]:
    return {index for span in covered for index in range(span.lower or 0, span.upper or 0)}
