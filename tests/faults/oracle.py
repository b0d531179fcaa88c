"""The oracle: what PostgreSQL must hold, from the clients' files alone, against what it holds, by raw SQL.

Written from the promises, independently of the product: nothing of ours is imported but the client's own numbering.
"""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.faults.client import Batch, event_of, time_us_of

SHOWN: Final = 5  # examples of a violation
LATE_S: Final = 10  # an assigned time is at most so far from when the client sent and was answered
HOUR_US: Final = 3_600_000_000
ACCEPTED: Final = frozenset({200, 202, 422})
KNOWN_CODES: Final = frozenset({"duplicate", "conflict", "timestamp_out_of_range"})
KNOWN_STATUSES: Final = frozenset({200, 202, 422, 408, 429, 503})

Cell = tuple[str, str, int]  # customer, meter, hour since 1970
Sums = dict[Cell, tuple[Decimal, int]]


@dataclass
class Told:
    """What one client thread wrote down."""

    name: str
    batches: list[Batch] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)  # by number: how many attempts, at most 255
    taken: bytearray = field(default_factory=bytearray)  # by number: 1 when an attempt was answered with success
    attempts: int = 0
    unanswered: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)

    def batch_of(self, number: int) -> Batch:
        """Returns the batch that an event is in."""
        return self.batches[bisect_right(self.firsts, number) - 1]


@dataclass
class Verdict:
    """What the oracle found. There is no violation when everything is as promised."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def check(self, what: str, examples: list[Any]) -> None:
        """Notes a violation for what has examples."""
        if examples:
            shown = ", ".join(map(str, examples[:SHOWN]))
            self.violations.append(f"{what}: {len(examples)}, such as {shown}")


def read(path: Path) -> Told:
    """Returns what a client's file says. Its last line may be torn: then nothing of it was sent."""
    told = Told(path.stem)
    under_way: dict[int, Batch] = {}
    for line in path.read_bytes().splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if "attempt" in said:
            batch = Batch(*(said[name] for name in Batch._fields))
            under_way[said["attempt"]] = batch
            told.attempts += 1
            _note_sent(told, batch)
        else:
            _note_answer(told, under_way.pop(said["answer"]), said)
    told.unanswered = len(under_way)
    return told


def _note_sent(told: Told, batch: Batch) -> None:
    if batch.first == len(told.sent):
        told.batches.append(batch)
        told.firsts.append(batch.first)
        told.sent.extend(bytes(batch.size))
        told.taken.extend(bytes(batch.size))
    for number in range(batch.first, batch.first + batch.size):
        told.sent[number] = min(255, told.sent[number] + 1)


def _note_answer(told: Told, batch: Batch, said: dict[str, Any]) -> None:
    told.statuses[f"{said['status']} {said['code']}"] += 1
    codes = {int(index): code for index, code in said["codes"].items()}
    unknown = set(codes.values()) - KNOWN_CODES
    if unknown or said["status"] not in KNOWN_STATUSES or said["code"] == "idempotency_key_reused":
        told.strange.append(f"{told.name}: {said['status']} {said['code']} {sorted(unknown)}")
    if said["status"] not in ACCEPTED:
        return
    for index in range(batch.size):
        # A duplicate and a conflict say that the identity is counted, by this or another payload.
        refused = codes.get(index) == "timestamp_out_of_range"
        if not refused and (said["status"] != 422 or index in codes):
            told.taken[batch.first + index] = 1


class Oracle:
    """Compares the files of a run with a database."""

    def __init__(self, files: list[Path], connection: "psycopg.Connection[Any]", skew_s: float) -> None:
        self.told = {told.name: told for told in map(read, files)}
        self._connection = connection
        self._skew_s = skew_s
        self._counted = {name: bytearray(len(told.sent)) for name, told in self.told.items()}

    def judge(self, proof: dict[str, Any]) -> Verdict:
        """Returns what is not as promised."""
        verdict = Verdict()
        self._check_events(verdict)
        self._check_once(verdict)
        self._check_ledger(verdict)
        verdict.check("answers that nobody promised", [one for told in self.told.values() for one in told.strange])
        if not proof.get("ok"):
            failed = [check for check in proof.get("checks", []) if not check["ok"]]
            verdict.violations.append(f"the proof does not hold: {failed or proof}")
        for name in ("redis", "journal", "quarantined"):
            if (events := proof.get(name, {}).get("events")) != 0:
                verdict.violations.append(f"{events} events are still in {name}")
        return verdict

    def _rows(self, text: str) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(text.encode()).fetchall())

    def _stream(self, text: str) -> Iterator[tuple[Any, ...]]:
        with self._connection.transaction(), self._connection.cursor(name="oracle") as cursor:
            cursor.itersize = 20_000
            cursor.execute(text.encode())
            yield from cursor

    def _check_events(self, verdict: Verdict) -> None:
        """Every row is an event that was sent, as it was sent; usage per customer, meter and hour is their sum."""
        strangers: list[str] = []
        changed: list[str] = []
        sums: dict[Cell, list[Any]] = defaultdict(lambda: [Decimal(0), 0])
        customers = dict(self._rows("SELECT user_id, customer FROM taximeter.customer_users"))
        rows = 0
        for mark, user, kind, units, time_us in self._stream(
            "SELECT properties->>'mark', user_id, event_type, units, (extract(epoch FROM event_time) * 1000000)::bigint"
            " FROM taximeter.events"
        ):
            rows += 1
            name, _, number = mark.rstrip("~").partition("/")
            told = self.told.get(name)
            if told is None or not number.isdigit() or int(number) >= len(told.sent):
                strangers.append(mark)
                continue
            counted = self._counted[name]
            counted[int(number)] = min(255, counted[int(number)] + 1)
            batch = told.batch_of(int(number))._replace(variant=mark.count("~"))
            wanted = event_of(name, batch, int(number))
            if (user, kind, units) != (wanted["user_id"], wanted["event_type"], Decimal(wanted["units"])):
                changed.append(f"{mark}: {user} {kind} {units}")
            if not self._is_in_time(batch, int(number), time_us):
                changed.append(f"{mark}: at {time_us}, sent at {batch.at}")
            hour = time_us // HOUR_US
            for meter, amount in (("requests", Decimal(1)), (kind, units)) if kind == "api_call" else ((kind, units),):
                cell = sums[customers.get(user, user), meter, hour]
                cell[0] += amount
                cell[1] += 1
        verdict.figures["events"] = rows
        verdict.check("events that nobody sent", strangers)
        verdict.check("events that are not as they were sent", changed)
        self._compare_usage(verdict, {cell: (units, events) for cell, (units, events) in sums.items()})

    def _is_in_time(self, batch: Batch, number: int, time_us: int) -> bool:
        if batch.kind == "timed":
            return time_us == time_us_of(batch, number)
        # Assigned: at any attempt, which may have been long after the first.
        return batch.at - (LATE_S + self._skew_s) * 1e6 <= time_us <= batch.at + 1200e6 + self._skew_s * 1e6

    def _compare_usage(self, verdict: Verdict, wanted: Sums) -> None:
        found: Sums = {
            (customer, meter, hour): (units, int(events))
            for customer, meter, hour, units, events in self._rows(
                "SELECT customer, meter, (extract(epoch FROM window_start) / 3600)::bigint, sum(units), sum(events)"
                " FROM taximeter.usage_by_hour GROUP BY 1, 2, 3"
            )
        }
        differing = [
            f"{cell}: usage {found.get(cell)}, events {wanted.get(cell)}"
            for cell in found.keys() | wanted.keys()
            if found.get(cell) != wanted.get(cell)
        ]
        verdict.check("customers, meters and hours whose usage is not what their events add up to", differing)
        verdict.figures["customer hours"] = len(found)

    def _check_once(self, verdict: Verdict) -> None:
        lost: list[str] = []
        twice: list[str] = []
        for name, told in self.told.items():
            counted = self._counted[name]
            for number, (taken, times) in enumerate(zip(told.taken, counted, strict=True)):
                if times > 1:
                    twice.append(f"{name}/{number} ({told.batch_of(number).kind}) {times} times")
                elif taken and not times:
                    lost.append(f"{name}/{number} ({told.batch_of(number).kind})")
        verdict.check("events that were answered with success and are LOST", lost)
        verdict.check("events that count TWICE", twice)
        everyone = self.told.values()
        verdict.figures["sent"] = sum(len(told.sent) for told in everyone)
        verdict.figures["answered with success"] = sum(sum(told.taken) for told in everyone)
        verdict.figures["attempts"] = sum(told.attempts for told in everyone)
        verdict.figures["answers lost"] = sum(told.unanswered for told in everyone)

    def _check_ledger(self, verdict: Verdict) -> None:
        """Positions add up, and nothing waits for an operator."""
        verdict.check(
            "positions whose events are not accounted for",
            self._rows(
                "SELECT producer, shard, sequence FROM taximeter.positions WHERE events <> inserted_events"
                " + duplicate_events + conflict_events + quarantined_events"
            ),
        )
        ((positions, inserted),) = self._rows("SELECT count(*), sum(inserted_events) FROM taximeter.positions")
        verdict.figures["positions"] = positions
        if inserted != verdict.figures["events"]:
            verdict.violations.append(
                f"positions say {inserted} inserted, {verdict.figures['events']} events are there"
            )
        for table, state in (("discrepancies", "resolved_at"), ("holes", "accepted_at"), ("quarantine", "resolved_at")):
            verdict.check(f"open {table}", self._rows(f"SELECT * FROM taximeter.{table} WHERE {state} IS NULL"))
        ((recorded,),) = self._rows("SELECT count(*) FROM taximeter.discrepancies")
        verdict.figures["discrepancies recorded and closed"] = recorded
