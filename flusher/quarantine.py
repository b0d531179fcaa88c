"""Quarantine: accepted events that could not be counted; an operator tries again or discards them (rule 13)."""

from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import psycopg
from psycopg.rows import TupleRow

from flusher.entry import Entry
from flusher.insert import Inserter
from flusher.law import Case, Outcome, Tally, tally
from flusher.ledger import Ledger
from flusher.source import random_token
from flusher.sql import query
from sidecar.contract.codec import Batch, Claim, Position, Running, decode_batch
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.event import Identity
from sidecar.contract.meters import Amount
from sidecar.contract.units import from_decimal, to_decimal

_COUNTED: Final = (Outcome.INSERTED, Outcome.DUPLICATE, Outcome.CONFLICT)


class Quarantined(NamedTuple):
    """A row of the quarantine. `place` is the event's in its record, None for a whole record; `units` is text.

    `resolved_as` is discarded or retried, None while it is open.
    """

    id: int
    producer: str
    shard: int
    sequence: int
    place: int | None
    reason: str
    detail: str
    events: int
    units: str
    created_at: datetime
    resolved_at: datetime | None
    resolved_as: str | None
    resolution: str | None


class _Held(NamedTuple):
    """A row that is locked, with its record."""

    id: int
    producer: str
    shard: int
    sequence: int
    place: int | None
    reason: str
    record: bytes
    amount: Amount


def list_quarantine(
    connection: psycopg.Connection[TupleRow], limit: int, *, resolved: bool = False
) -> list[Quarantined]:
    """Return the newest rows, at most `limit`; only open ones unless `resolved`."""
    rows = connection.execute(query("list_quarantine"), {"limit": limit, "all": resolved}).fetchall()
    return [Quarantined(*row) for row in rows]


def discard(connection: psycopg.Connection[TupleRow], number: int, reason: str) -> Amount:
    """Decide that what is quarantined is never billed, and return how much that is.

    It stays counted as quarantined by the proof. Raises TaximeterError: quarantine_unknown, already_decided.
    """
    with connection.transaction():
        held = _hold(connection, number)
        _resolve(connection, held, "discarded", reason)
    return held.amount


def retry(ledger: Ledger, number: int) -> dict[Outcome, int]:
    """Bring what is quarantined before the law again; return how many events had which outcome.

    All in one transaction under the shard's lock. What is refused again for a reason of its own stays quarantined,
    in rows of its own. Raises TaximeterError: quarantine_unknown, already_decided; still_refused when nothing of it
    can be counted, codec_unknown when this program is too old for it: then nothing was changed.
    """
    with ledger.transaction():
        connection = ledger.connection
        found = connection.execute(query("find_quarantined_shard"), (number,)).fetchone()
        if found is not None:
            ledger.lock(found[0], wait=True)
        held = _hold(connection, number)
        batch = _batch(held)
        _release(connection, batch)
        before, after = Position(max(held.sequence - 1, 0), b""), Position(held.sequence, b"")
        entry = Entry("", held.producer, before, after, Running(0, 0), (), (), held.record)
        inserter = Inserter(ledger, held.shard, ledger.read())
        cases = inserter.insert([(entry, batch)])
        tallies: dict[str, Tally] = {held.producer: Tally()}
        tally(cases, tallies)
        outcomes = tallies[held.producer]
        if not any(outcomes.events[outcome] for outcome in _COUNTED):
            raise _still_refused(held, _why(cases))
        _move(connection, held, outcomes)
        if inserter.count(cases):
            # Redis's totals lack them: a fresh token has the next cycle write a new generation from Postgres (rule 5).
            ledger.store_token(held.shard, random_token())
        said = ", ".join(f"{outcomes.events[outcome]} {outcome.value}" for outcome in Outcome)
        _resolve(connection, held, "retried", said)
    return outcomes.events


def _hold(connection: psycopg.Connection[TupleRow], number: int) -> _Held:
    row = connection.execute(query("find_quarantined"), (number,)).fetchone()
    if row is None:
        raise TaximeterError("quarantine_unknown", f"nothing in quarantine is {number}; see `taximeter quarantine`")
    producer, shard, sequence, place, reason, record, events, units, resolved_at, resolved_as = row
    if resolved_at is not None:
        raise TaximeterError("already_decided", f"{number} was {resolved_as} at {resolved_at:%Y-%m-%dT%H:%M:%SZ}")
    return _Held(number, producer, shard, sequence, place, reason, record, Amount(from_decimal(units), events))


def _resolve(connection: psycopg.Connection[TupleRow], held: _Held, decided: str, resolution: str) -> None:
    known = {"quarantined": held.id, "as": decided, "resolution": resolution[:2000]}
    connection.execute(query("resolve_quarantined"), known)


def _still_refused(held: _Held, why: str) -> TaximeterError:
    return TaximeterError(
        "still_refused", f"{held.id} ({held.reason}) stays in quarantine: {why}; `taximeter quarantine discard` ends it"
    )


def _why(cases: list[Case]) -> str:
    decisions = [decision for case in cases for _, decision in sorted(case.decided.items())]
    if any(decision.reason == "too_old" for decision in decisions):
        return "it is older than what is still kept, so a repeat of it could not be recognised"
    return next((decision.detail for decision in decisions if decision.detail), "no event of it can be counted")


def _batch(held: _Held) -> Batch:
    """Return what of the record is quarantined: a batch of one event, or the whole one."""
    try:
        batch = decode_batch(held.record)
    except msgspec.DecodeError as error:
        raise _still_refused(held, f"this program can't read the record either: {error}") from error
    if held.place is not None:
        batch = _one(batch, held.place)
    if Amount(batch.nanos, batch.count) != held.amount:
        raise _still_refused(
            held, f"the record reads as {batch.count} events, and {held.amount.events} were quarantined"
        )
    return batch


def _one(batch: Batch, place: int) -> Batch:
    claims = tuple(
        Claim(claim.key, claim.digest, 0, 1)
        for claim in batch.claims
        if claim.first <= place < claim.first + claim.count
    )
    one = Columns.of(batch.events[place : place + 1])
    return one.batch(batch.shard, batch.revision, batch.accepted_at_us, batch.watermark_us, claims)


def _release(connection: psycopg.Connection[TupleRow], batch: Batch) -> None:
    """Take back the claims that the events made themselves when they were quarantined: they are not stored."""
    held = {event.key for event in batch.events if event.identity in (Identity.CLAIMED, Identity.INDEXED)}
    if not held:
        return
    rows = connection.execute(query("find_stored_keys"), (list(held),)).fetchall()
    lost = held - {bytes(key) for (key,) in rows}
    for place, event in enumerate(batch.events):
        if event.key not in lost:
            continue
        if event.identity == Identity.CLAIMED:
            connection.execute(query("release_claim"), (event.key, event.fingerprint))
            continue
        for claim in batch.claims:
            if claim.first <= place < claim.first + claim.count:
                known = {"key": claim.key, "digest": claim.digest, "index": event.index}
                connection.execute(query("release_index"), known)


def _move(connection: psycopg.Connection[TupleRow], held: _Held, outcomes: Tally) -> None:
    known: dict[str, object] = {"producer": held.producer, "shard": held.shard}
    for outcome in _COUNTED:
        known[f"{outcome.value}_events"] = outcomes.events[outcome]
        known[f"{outcome.value}_units"] = to_decimal(outcomes.nanos[outcome])
    known["moved_events"] = sum(outcomes.events[outcome] for outcome in _COUNTED)
    known["moved_units"] = to_decimal(sum(outcomes.nanos[outcome] for outcome in _COUNTED))
    connection.execute(query("move_quarantined"), known)
