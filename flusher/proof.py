"""The proof: what was accepted equals what is in Postgres, plus what is still in Redis, in a journal or quarantined.

Redis is read first, then Postgres, then the journals, and each is counted only above the higher position (rule 11):
events move from journals to Redis to Postgres, so nothing can be missed between two readings, and what is seen twice is
counted where it is furthest.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.days import read_days
from flusher.recount import Recount
from flusher.source import Inspection, Source, random_token
from flusher.sql import query
from sidecar.contract import keys
from sidecar.contract.codec import Position, Running, decode_batch, decode_position, decode_running
from sidecar.contract.meters import Amount, Counter, Revision, decode_revision
from sidecar.contract.proof import QUESTION_TTL_S, Answer, Question, ShardAnswer
from sidecar.contract.units import format_units, from_decimal

ANSWER_POLL_S: Final = 0.1
DETAILS_MAX: Final = 5


class Check(NamedTuple):
    """One thing that must hold. `ok` is None when it could not be decided; `detail` says what was found."""

    name: str
    ok: bool | None
    detail: str


@dataclass(slots=True)
class Proof:
    """The figures of the proof and what was checked. `accepted` must equal the sum of all the others."""

    accepted: Amount = field(default_factory=Amount)
    duplicates: Amount = field(default_factory=Amount)
    conflicts: Amount = field(default_factory=Amount)
    postgres: Amount = field(default_factory=Amount)
    redis: Amount = field(default_factory=Amount)
    journal: Amount = field(default_factory=Amount)
    quarantined: Amount = field(default_factory=Amount)
    checks: list[Check] = field(default_factory=list)

    @property
    def difference(self) -> Amount:
        """What was accepted and is nowhere, or is somewhere and was not accepted."""
        parts = (self.duplicates, self.conflicts, self.postgres, self.redis, self.journal, self.quarantined)
        nanos = self.accepted.nanos - sum(part.nanos for part in parts)
        return Amount(nanos, self.accepted.events - sum(part.events for part in parts))

    @property
    def failed(self) -> bool:
        """Whether something does not hold."""
        return self.difference != Amount() or any(check.ok is False for check in self.checks)

    @property
    def undecided(self) -> bool:
        """Whether something could not be read, and nothing failed."""
        return not self.failed and any(check.ok is None for check in self.checks)

    @property
    def ok(self) -> bool:
        """Whether everything was read and holds."""
        return not self.failed and not self.undecided

    def as_json(self) -> dict[str, Any]:
        """Return the form of `taximeter verify --json`."""
        names = ("accepted", "duplicates", "conflicts", "postgres", "redis", "journal", "quarantined", "difference")
        figures = {name: _figure(getattr(self, name)) for name in names}
        checks = [check._asdict() for check in self.checks]
        return {"ok": self.ok, **figures, "checks": checks}


def _figure(amount: Amount) -> dict[str, int | str]:
    return {"events": amount.events, "units": format_units(amount.nanos)}


class _Row(NamedTuple):
    """A producer's position on a shard in Postgres."""

    position: Position
    running: Running
    asked: bool  # whether its journal may have what Postgres lacks


class _Reach(NamedTuple):
    """How far a producer's events were found in Redis or Postgres on a shard."""

    position: Position
    running: Running


Place = tuple[str, int]  # producer and shard


def verify(redis_url: str, database_url: str, *, answer_timeout_s: float) -> Proof:
    """Return the proof. Sidecars that do not answer within `answer_timeout_s` leave it undecided.

    Raises TryAgainError when Redis or Postgres does not answer: then nothing can be proven now.
    """
    proof = Proof()
    source = Source.connect(redis_url)
    try:
        with connect(database_url) as connection:
            shards = range(int(connection.execute(query("read_ledger")).fetchall()[0][1]))
            inspections = {shard: source.inspect(shard) for shard in shards}
            with _snapshot(connection):
                rows = _read_positions(connection, proof)
                _check_tables(connection, proof)
                _check_dropped(connection, proof)
                _check_erased(connection, proof)
                _check_usage(connection, proof, shards)
                _check_values(connection, proof)
                revisions = _revisions(connection)
            reaches = _count_redis(proof, inspections, rows)
            _check_counters(proof, inspections, revisions)
            _check_totals(connection, source, proof, shards)
            _count_journals(source, proof, rows, reaches, answer_timeout_s)
    finally:
        source.close()
    return proof


@contextmanager
def _snapshot(connection: psycopg.Connection[TupleRow]) -> Iterator[None]:
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        connection.execute(query("proof_hold"))
        yield
    connection.isolation_level = None


def _revisions(connection: psycopg.Connection[TupleRow]) -> dict[int, Revision]:
    rows = connection.execute(query("read_revisions"), (-1,)).fetchall()
    return {number: decode_revision(number, meters) for number, meters in rows}


def _read_positions(connection: psycopg.Connection[TupleRow], proof: Proof) -> dict[Place, _Row]:
    rows: dict[Place, _Row] = {}
    for row in connection.execute(query("proof_positions")).fetchall():
        producer, shard, sequence, digest, events, units = row[:6]
        outcomes = (proof.postgres, proof.duplicates, proof.conflicts, proof.quarantined)
        for figure, at in zip(outcomes, range(6, 14, 2), strict=True):
            figure.add(from_decimal(row[at + 1]), row[at])
        running = Running(events, from_decimal(units))
        rows[producer, shard] = _Row(Position(sequence, digest), running, row[14])
    return rows


def _check_tables(connection: psycopg.Connection[TupleRow], proof: Proof) -> None:
    """The rows are as many, and sum up to as much, as the positions say."""
    row = connection.execute(query("proof_open")).fetchall()[0]
    unresolved, recorded, holes, accepted, discarded, retried = row
    decided = f"; of what was in quarantine {discarded} were discarded and {retried} retried"
    for name, wanted, text, trace in (
        ("events", proof.postgres, query("proof_events"), ""),
        ("conflicts", proof.conflicts, query("proof_refused"), ""),
        ("quarantine", proof.quarantined, query("proof_quarantined"), decided if discarded or retried else ""),
    ):
        there = Amount()
        for _, events, units in connection.execute(text).fetchall():
            there.add(from_decimal(units), events)
        detail = f"{there.events} events and {format_units(there.nanos)} units in the table"
        if there != wanted:
            detail += f", the positions say {wanted.events} and {format_units(wanted.nanos)}"
        proof.checks.append(Check(name, there == wanted, detail + trace))
    proof.checks.append(Check("discrepancies", unresolved == 0, f"{unresolved} open of {recorded} recorded"))
    proof.checks.append(Check("holes", holes == 0, f"{holes} not accepted, {accepted} accepted by an operator"))
    given_up = connection.execute(query("proof_given_up")).fetchall()
    if given_up:
        examples = ", ".join(f"{producer} ({reason})" for producer, reason in given_up[:DETAILS_MAX])
        proof.checks.append(Check("given_up", ok=True, detail=f"{len(given_up)} sidecars given up on: {examples}"))
    successors = connection.execute(query("proof_successors")).fetchall()
    if successors:
        examples = ", ".join(f"{old} as {new}" for old, new in successors[:DETAILS_MAX])
        proof.checks.append(Check("renumbered", ok=True, detail=f"{len(successors)} journals go on: {examples}"))


def _check_dropped(connection: psycopg.Connection[TupleRow], proof: Proof) -> None:
    """Usage of months whose events were dropped is what it was when they were (rule 15)."""
    months, events, changed = connection.execute(query("proof_dropped")).fetchall()[0]
    if months:
        detail = f"{events} events of {months} months are dropped, "
        detail += f"and usage changed since in {', '.join(changed[:DETAILS_MAX])}" if changed else "their usage stays"
        proof.checks.append(Check("dropped", not changed, detail))


def _check_erased(connection: psycopg.Connection[TupleRow], proof: Proof) -> None:
    """Usage of erased users, whose properties are gone, is what it was when they were erased."""
    users, changed = connection.execute(query("proof_erased")).fetchall()[0]
    if users:
        detail = f"{users} users are erased, "
        detail += f"and usage changed since of {', '.join(changed[:DETAILS_MAX])}" if changed else "their usage stays"
        proof.checks.append(Check("erased", not changed, detail))


def _check_usage(connection: psycopg.Connection[TupleRow], proof: Proof, shards: range) -> None:
    """Usage is what single events, counted again, add up to, where they are kept."""
    recount = Recount(connection)
    found = [difference for shard in shards for difference in recount.differences(shard)]
    detail = "usage equals the events, counted again"
    if found:
        examples = (
            f"{one.counter.user_id}/{one.counter.meter} in window {one.counter.window}: usage has "
            f"{format_units(one.usage.nanos)}, the events {format_units(one.events.nanos)}"
            for one in found[:DETAILS_MAX]
        )
        detail = f"{len(found)} counters differ: " + "; ".join(examples)
    proof.checks.append(Check("usage", not found, detail))


def _check_values(connection: psycopg.Connection[TupleRow], proof: Proof) -> None:
    """What is kept of single events adds up to the usage of their meters."""
    differing, examples = connection.execute(query("proof_values")).fetchall()[0]
    detail = "values of events add up to usage"
    if differing:
        detail = f"values of events differ from {differing} rows of usage, of {', '.join(examples)}"
    proof.checks.append(Check("values", not differing, detail))


def _count_redis(
    proof: Proof, inspections: Mapping[int, Inspection], rows: Mapping[Place, _Row]
) -> dict[Place, _Reach]:
    """Count what is in Redis above Postgres's positions; return how far each producer was found."""
    reaches = {place: _Reach(row.position, row.running) for place, row in rows.items()}
    gaps: list[str] = []
    for shard, inspection in inspections.items():
        for entry in inspection.entries:
            reach = reaches.get((entry.producer, shard))
            if reach is not None and entry.after.sequence <= reach.position.sequence:
                continue
            if reach is None or entry.before != reach.position:
                gaps.append(f"{entry.producer} at {entry.after.sequence} on shard {shard}")
                continue
            batch = decode_batch(entry.record)
            proof.redis.add(batch.nanos, batch.count)
            reaches[entry.producer, shard] = _Reach(entry.after, entry.running)
    detail = "every entry in Redis follows what Postgres has" if not gaps else "out of place: " + ", ".join(gaps[:5])
    # What is out of place is not taken from Redis but sent again by its journal, and is counted there.
    proof.checks.append(Check("stream", not gaps or None, detail))
    return reaches


def _check_counters(proof: Proof, inspections: Mapping[int, Inspection], revisions: Mapping[int, Revision]) -> None:
    """What Redis counted is what its streams add up to (rule 9)."""
    differing = 0
    for inspection in inspections.values():
        streamed: dict[Counter, Amount] = {}
        for entry in inspection.entries:
            if entry.opaque:
                continue
            batch = decode_batch(entry.record)
            repeats = {*entry.duplicates, *entry.conflicts}
            events = (event for place, event in enumerate(batch.events) if place not in repeats)
            revisions[batch.revision].fold(events, streamed)
        names = streamed.keys() | inspection.counters.keys()
        differing += sum(streamed.get(name, Amount()) != inspection.counters.get(name, Amount()) for name in names)
    detail = "counters equal the stream" if not differing else f"{differing} counters in Redis differ from the stream"
    proof.checks.append(Check("counters", not differing, detail))


def _check_totals(connection: psycopg.Connection[TupleRow], source: Source, proof: Proof, shards: range) -> None:
    """The totals that Redis shows are Postgres's."""
    found = [_differing_totals(connection, source, shard) for shard in shards]
    differing = sum(filter(None, found))
    if differing:
        proof.checks.append(Check("totals", ok=False, detail=f"{differing} totals in Redis differ from Postgres"))
    else:
        pending = found.count(None)
        detail = f"{pending} shards are being published; ask again" if pending else "totals equal Postgres's usage"
        proof.checks.append(Check("totals", None if pending else True, detail))


def _differing_totals(connection: psycopg.Connection[TupleRow], source: Source, shard: int) -> int | None:
    """Return how many totals of a shard differ, or None where Redis is about to be changed.

    The shard is held, so that nothing is committed between the two; a rebuild may hold it for longer than we wait.
    """
    try:
        with connection.transaction():
            token = connection.execute(query("lock_shard"), (shard,)).fetchall()[0][0]
            state = source.state(shard)
            if state.generation is None or state.token != token:
                return None  # committed and not published yet, or about to be replaced
            days = read_days(connection, shard, keys.live_since(datetime.now(UTC)))
            return sum(source.differing_totals(shard, state.generation, some) for some in days)
    except psycopg.errors.LockNotAvailable:
        return None


def _count_journals(
    source: Source, proof: Proof, rows: Mapping[Place, _Row], reaches: Mapping[Place, _Reach], timeout_s: float
) -> None:
    """Count what only journals have, and take from them what was accepted."""
    question = Question(
        random_token(), {f"{producer}/{shard}": reach.position.encode() for (producer, shard), reach in reaches.items()}
    )
    waiting = {producer for (producer, _), row in rows.items() if row.asked}
    answers = _ask(source, question, waiting, timeout_s)
    for (producer, shard), reach in reaches.items():
        answer = answers.get((producer, shard))
        if answer is None or answer.error:
            proof.accepted.add(reach.running.nanos, reach.running.events)
            if answer is not None:
                proof.checks.append(Check(f"journal {producer}/{shard}", ok=False, detail=answer.error))
            continue
        at, head = decode_running(answer.at_running), decode_running(answer.head_running)
        proof.accepted.add(head.nanos, head.events)
        proof.journal.add(head.nanos - at.nanos, head.events - at.events)
        if decode_position(answer.at) != reach.position or at != reach.running:
            detail = f"at {reach.position.encode()} the journal has {answer.at} with {answer.at_running}"
            proof.checks.append(Check(f"journal {producer}/{shard}", ok=False, detail=detail))
    silent = sorted(waiting - {producer for producer, _ in answers})
    detail = f"{len(waiting) - len(silent)} of {len(waiting)} sidecars answered"
    if silent:
        detail += "; not " + ", ".join(silent[:DETAILS_MAX])
    proof.checks.append(Check("sidecars", None if silent else True, detail))


def _ask(source: Source, question: Question, waiting: set[str], timeout_s: float) -> dict[Place, ShardAnswer]:
    answers: dict[Place, ShardAnswer] = {}
    if not waiting:
        return answers
    source.command("SET", keys.PROOF_QUESTION, msgspec.json.encode(question), "EX", QUESTION_TTL_S)
    deadline = time.monotonic() + timeout_s
    missing = set(waiting)
    while missing and time.monotonic() < deadline:
        for producer, text in source.hash(keys.proof_answers(question.id)).items():
            if producer in missing:
                answer = msgspec.json.decode(text, type=Answer)
                answers.update({(producer, shard.shard): shard for shard in answer.shards})
                missing.discard(producer)
        time.sleep(ANSWER_POLL_S)
    return answers
