"""The rows of what comes behind ingest: the drain, both together, memory and disk kept for an event."""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
import redis
from psycopg.rows import TupleRow

from flusher.bench.ceilings import Inserts, rows_of
from flusher.bench.contest import EPOCH_EVENTS, Pace, cpu_s
from flusher.bench.driver import Driver
from flusher.bench.figures import Figure, Goal, percentile
from flusher.bench.http_rows import Kind
from flusher.bench.load import Load, Turn
from flusher.bench.requests import http_event
from flusher.bench.servers import Stand, resident_bytes
from flusher.database import connect
from flusher.sql import query
from flusher.summed import KeyedRows
from sidecar.contract.codes import TaximeterError

STAGING: Final = "bare staging insert"
COPY: Final = "bare COPY"
FILL_S: Final = 120.0
BATCH: Final = 500
TURN_S: Final = 0.25
BACKLOG_EVENTS: Final = 150_000  # less may be on its way to PostgreSQL: then the drain keeps up
TOGETHER_TURNS: Final = 4  # so many times the seconds of a round: it takes a few epochs to see a rate
PROBES_A_ROUND: Final = 5
POLL_S: Final = 0.005
PATIENCE_S: Final = 30.0
_MIB: Final = 1024 * 1024


def drain(
    name: str, kind: Kind, goal: Goal, stand: Stand, pace: Pace, keyed_rows: KeyedRows = KeyedRows.SINGLE
) -> Iterator[Figure]:
    """Yield how fast the flusher takes events that wait in Redis, and what each takes in PostgreSQL afterwards."""
    stand.fresh()
    events = pace.drain_events
    label = f"{kind.name.partition(', ')[2]}{_rows_label(keyed_rows)}"
    figure = Figure(name, f"drain, {label}", "events/s", goals=(goal,))
    figure.beside = {STAGING: [], COPY: []}
    with (
        Driver(kind.contestant(stand).load) as driver,
        stand.worker(keyed_rows) as worker,
        connect(stand.postgres.url, autocommit=True) as connection,
        closing(Inserts(connection)) as inserts,
    ):
        stored = _stored(connection)
        backend = int(connection.execute(query("bench_backend")).fetchall()[0][0])
        used_s = dict.fromkeys(("flusher", "PostgreSQL"), 0.0)
        for _ in range(pace.rounds):
            sent = driver.turn(Turn(FILL_S, events)).events
            before_s, began_at = {"flusher": time.process_time(), "PostgreSQL": cpu_s(backend)}, time.perf_counter()
            drained = worker.run_once()
            figure.ours.append(drained.events / (time.perf_counter() - began_at))
            used_s["flusher"] += time.process_time() - before_s["flusher"]
            used_s["PostgreSQL"] += cpu_s(backend) - before_s["PostgreSQL"]
            if drained.events != sent:
                raise TaximeterError("server_failed", f"{sent} events were sent, {drained.events} were drained")
            figure.beside[STAGING].append(events / inserts.staging(rows_of(events)))
            figure.beside[COPY].append(events / inserts.copying(rows_of(events)))
        figure.cpu_us = {part: used / (events * pace.rounds) * 1e6 for part, used in used_s.items()}
        size, count = (after - before for after, before in zip(_stored(connection), stored, strict=True))
    yield figure
    yield Figure(
        "postgres-bytes", f"PostgreSQL, an event with its key{_rows_label(keyed_rows)}", "bytes", [size / count]
    )


def together(
    name: str, kind: Kind, goal: Goal, stand: Stand, pace: Pace, keyed_rows: KeyedRows = KeyedRows.SINGLE
) -> Iterator[Figure]:
    """Yield how fast events come in while a flusher keeps up: no more than `BACKLOG_EVENTS` are ever behind.

    Measured from one commit to another, as PostgreSQL sees it.
    """
    stand.fresh()
    command = [sys.executable, "-m", "flusher", "flusher", "--keyed-rows", keyed_rows]
    label = f"ingest and drain, {kind.name.partition(', ')[2]}{_rows_label(keyed_rows)}"
    figure = Figure(name, label, "events/s", goals=(goal,))
    commits: list[tuple[float, int]] = []
    with (
        Driver(kind.contestant(stand).load) as driver,
        connect(stand.postgres.url, autocommit=True) as connection,
        stand.running("flusher", command) as flusher,
    ):

        def look() -> int:
            taken = int(connection.execute(query("bench_taken")).fetchall()[0][0])
            if not commits or commits[-1][1] != taken:
                commits.append((time.perf_counter(), taken))
            return taken

        before = look()
        sent = driver.turn(Turn(TURN_S, EPOCH_EVENTS), look).events
        patience_ends_at = time.perf_counter() + PATIENCE_S
        while len(commits) < 2:  # until the flusher runs: what its start takes is nobody's event
            if time.perf_counter() > patience_ends_at:
                raise TaximeterError("server_failed", f"the flusher took nothing for {PATIENCE_S:g} s")
            time.sleep(POLL_S)
            look()
        pids = {**stand.ingest_pids, "flusher": flusher}
        used = {part: cpu_s(pid) for part, pid in pids.items()}
        ends_at = time.perf_counter() + TOGETHER_TURNS * pace.rounds * pace.seconds
        while time.perf_counter() < ends_at or len(commits) < 3:
            if time.perf_counter() > ends_at + PATIENCE_S:
                raise TaximeterError("server_failed", f"the flusher took nothing for {PATIENCE_S:g} s")
            if before + sent - look() < BACKLOG_EVENTS:
                sent += driver.turn(Turn(TURN_S, EPOCH_EVENTS), look).events
            else:
                time.sleep(POLL_S)
        took = commits[-1][1] - commits[1][1]
        figure.cpu_us = {part: (cpu_s(pid) - used[part]) / took * 1e6 for part, pid in pids.items()}
    (first_at, first), (last_at, last) = commits[1], commits[-1]
    figure.ours = [(last - first) / (last_at - first_at)]
    figure.note = f"{len(commits) - 1} commits; never over {BACKLOG_EVENTS:,} events behind but for one turn"
    yield figure


def billable(goal: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield how long an event takes from its sending until PostgreSQL has its usage, with the default interval."""
    stand.fresh()
    command = [sys.executable, "-m", "flusher", "flusher"]
    waits_ms: list[float] = []
    with connect(stand.postgres.url, autocommit=True) as connection, stand.running("flusher", command):
        for _ in range(pace.rounds * PROBES_A_ROUND):
            user = f"probe-{secrets.token_hex(8)}"
            request = http_event("/v1/events", secrets.token_hex(4), user=user)
            with Driver(Load(stand.tcp, request, 1)) as driver:
                driver.turn(Turn(FILL_S, 1))
            began_at = time.perf_counter()
            while not connection.execute(query("bench_billable"), ([user],)).fetchall():
                if time.perf_counter() > began_at + PATIENCE_S:
                    raise TaximeterError("server_failed", f"an event was not in PostgreSQL after {PATIENCE_S:g} s")
                time.sleep(POLL_S)
            waits_ms.append((time.perf_counter() - began_at) * 1000)
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        goals = (goal,) if label == "p99" else ()
        name = f"from answered to billable in PostgreSQL, {label} of {len(waits_ms)}"
        yield Figure("billable", name, "ms", [percentile(waits_ms, share)], goals=goals)


def redis_memory(goals: dict[str, Goal], stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield what Redis keeps for an event once it is drained, without the totals of users: they don't grow with it."""
    for label, kind in {"ids": Kind(BATCH), "a key per 500": Kind(BATCH, keyed=True)}.items():
        stand.fresh()
        with stand.worker() as worker, closing(stand.redis_client()) as client:
            used: list[int] = []
            sent = 0
            for _ in range(2):  # the first makes the users' totals
                with Driver(kind.contestant(stand).load) as driver:
                    sent = driver.turn(Turn(FILL_S, pace.drain_events)).events
                worker.flush()
                used.append(_used(client))
            kept = (used[1] - used[0]) / sent
        name = f"Redis, kept per drained event, {label}"
        yield Figure("redis-memory", name, "bytes", [kept], goals=(goals[label],))


def sidecar_memory(idle: Goal, loaded: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield the memory that a sidecar has in RAM before its first event, and the most that it has under load."""
    stand.fresh()
    pid = stand.ingest_pids["sidecar"]
    yield Figure("sidecar-memory", "sidecar, idle", "MiB", [resident_bytes(pid) / _MIB], goals=(idle,))
    seen: list[int] = []
    with Driver(Kind(BATCH).contestant(stand).load) as driver:
        driver.turn(Turn(pace.rounds * pace.seconds, EPOCH_EVENTS), lambda: seen.append(resident_bytes(pid)))
    seen.append(resident_bytes(pid))
    yield Figure("sidecar-memory", "sidecar, at full load", "MiB", [max(seen) / _MIB], goals=(loaded,))


def _stored(connection: psycopg.Connection[TupleRow]) -> tuple[int, int]:
    """Return the bytes that events take with their keys, and their number."""
    size, count = connection.execute(query("bench_event_bytes")).fetchall()[0]
    return int(size), int(count)


def _rows_label(keyed_rows: KeyedRows) -> str:
    return ", summed rows" if keyed_rows is KeyedRows.SUMMED else ""


def _used(client: redis.Redis) -> int:
    """Return the bytes that Redis uses, once what was unlinked is given back."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        memory: Any = client.info("memory")
        if not memory["lazyfree_pending_objects"] or time.monotonic() > deadline:
            return int(memory["used_memory"])
        time.sleep(POLL_S)
