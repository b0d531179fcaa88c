"""A run: the system, the client, the faults; then everything heals, drains, and is compared."""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

from flusher.chaos.client import Client
from flusher.chaos.compare import Book
from flusher.chaos.hands import Hands
from flusher.chaos.notes import Notes, read_notes
from flusher.chaos.plan import PARTS, Fault, Kind, plan
from flusher.chaos.report import Report
from flusher.chaos.traffic import batches, users
from flusher.chaos.view import Scene, View
from flusher.database import connect
from flusher.embedded.supervisor import answers_ready
from flusher.embedded.system import System, free_address
from flusher.endpoints import Endpoints
from flusher.pricing.line import rfc3339
from flusher.proof import Proof, verify
from flusher.sql import query
from sidecar.contract.codes import TaximeterError, TryAgainError

TICK_S: Final = 0.05
HEAL_S: Final = 120.0
PATIENCE_S: Final = 60.0
DRAIN_S: Final = 600.0
ANSWER_TIMEOUT_S: Final = 15.0
POLL_S: Final = 1.0
RESTART_DELAY_MAX_S: Final = 1.0
NOTES_FILE: Final = "client.ndjson"


class Run:
    """One run on a directory of its own. It belongs to the main thread: it starts processes."""

    def __init__(self, report: Report, view: View) -> None:
        self._report = report
        self._view = view
        self._name = secrets.token_hex(4)
        self._data_dir = Path(report.data_dir)
        self._system = System(
            self._data_dir / "system", free_address(), restart_delay_max_s=RESTART_DELAY_MAX_S, tell=view.say
        )

    def run(self) -> None:
        """Do it, and put into the report what came of it. Raises TaximeterError when the system can't be started."""
        report, scene = self._report, self._view.scene
        endpoints = self._system.start()
        try:
            path = self._data_dir / NOTES_FILE
            path.unlink(missing_ok=True)
            with closing(Notes(path)) as notes, self._hands(endpoints) as hands, _taken(endpoints, scene):
                traffic = batches(report.seed, self._name, datetime.now(UTC))
                client = Client(endpoints.http, notes, traffic, report.rate, report.seed)
                scene.progress = client.progress
                client.start()
                self._break(hands)
                self._heal(hands, client)
                began_at = time.monotonic()
                proof = self._drain(endpoints)
                report.drained_s = time.monotonic() - began_at
            self._compare(endpoints, client, proof, path)
            self._stop()
        except BaseException:
            self._system.kill()
            raise

    @contextmanager
    def _hands(self, endpoints: Endpoints) -> Iterator[Hands]:
        append_only = self._system.data_dir / "valkey" / "appendonlydir"
        hands = Hands(lambda: self._system.pids, endpoints.redis, append_only, self._data_dir / "remembered")
        try:
            yield hands
        finally:
            hands.close()

    def _break(self, hands: Hands) -> None:
        """Do what the plan says; what can't be done now, because its part is down, is done as soon as it can."""
        report, scene = self._report, self._view.scene
        faults = plan(report.seed, report.seconds, report.every_s)
        scene.doing, scene.seconds = "breaking it", report.seconds
        began_at = time.monotonic()
        waiting: list[Fault] = []
        while scene.elapsed_s < report.seconds or faults or waiting:
            scene.elapsed_s = time.monotonic() - began_at
            if scene.elapsed_s > report.seconds + HEAL_S:
                raise TaximeterError("server_failed", f"{waiting[:1]} could not be done for {HEAL_S:g} s")
            while faults and faults[0].at_s <= scene.elapsed_s:
                waiting.append(faults.pop(0))
            waiting = [fault for fault in waiting if not self._do(hands, fault)]
            self._tick(hands)

    def _do(self, hands: Hands, fault: Fault) -> bool:
        if not hands.do(fault):
            return False
        if fault.kind is not Kind.REMEMBER:
            self._view.scene.faults[fault.part, fault.kind] += 1
            self._report.faults[f"{fault.part} {fault.kind}"] += 1
            lasts = f" for {fault.lasts_s:.1f} s" if fault.lasts_s else ""
            self._view.say(f"{fault.part} {fault.kind}{lasts}")
        return True

    def _tick(self, hands: Hands) -> None:
        for part in hands.resume():
            self._view.say(f"{part} goes on")
        self._system.check()
        stopped, pids = hands.stopped, self._system.pids
        self._view.scene.parts = {
            part: "stopped" if part in stopped else "runs" if pids[part] is not None else "down" for part in PARTS
        }
        self._view.refresh()
        time.sleep(TICK_S)

    def _heal(self, hands: Hands, client: Client) -> None:
        self._view.scene.doing = "healing"
        hands.resume(everything=True)
        client.finish(PATIENCE_S)
        deadline = time.monotonic() + HEAL_S
        address = self._system.http
        while client.is_alive() or not answers_ready(address.reachable_host, address.port):
            if time.monotonic() > deadline:
                raise TaximeterError("server_failed", f"the sidecar was not ready again within {HEAL_S:g} s")
            self._tick(hands)
        self._report.sent = client.progress.sent
        self._report.journaled = client.progress.journaled
        self._report.repeated = client.progress.repeated

    def _drain(self, endpoints: Endpoints) -> Proof:
        """Flush until nothing is left in Redis or in a journal; return the last proof, whatever it says."""
        scene = self._view.scene
        scene.doing = "draining"
        deadline = time.monotonic() + DRAIN_S
        proof = Proof()
        while time.monotonic() < deadline:
            self._system.check()
            self._view.refresh()
            with suppress(TryAgainError):
                self._flush()
                proof = verify(endpoints.redis, endpoints.database, answer_timeout_s=ANSWER_TIMEOUT_S)
                if not proof.undecided and not proof.redis.events and not proof.journal.events:
                    return proof
            time.sleep(POLL_S)
        return proof

    def _flush(self) -> None:
        try:
            self._system.run_command("flush")
        except TaximeterError as error:
            self._view.say(_last_line(error))

    def _stop(self) -> None:
        try:
            self._system.stop()
        except TaximeterError as error:
            self._view.say(_last_line(error))  # everything was compared; whatever is down stays as safe as it was

    def _compare(self, endpoints: Endpoints, client: Client, proof: Proof, path: Path) -> None:
        self._view.scene.doing = "comparing"
        known = (users(self._name),)
        with connect(endpoints.database) as connection, connection.cursor(name="chaos_events") as cursor:
            cursor.execute(query("chaos_events"), known)
            usage = (
                (user, meter, rfc3339(hour), units, events)
                for user, meter, hour, units, events in connection.execute(query("chaos_usage"), known)
            )
            compared = Book(read_notes(path)).compare(iter(cursor), usage)
        for problem in client.progress.problems:
            compared.differ(problem)
        if proof.redis.events or proof.journal.events:
            left = proof.redis.events + proof.journal.events
            compared.differ(f"{left:,} events were not in PostgreSQL {DRAIN_S:g} s after the last fault")
        self._report.compared = compared
        self._report.proof = proof.as_json()


@contextmanager
def _taken(endpoints: Endpoints, scene: Scene) -> Iterator[None]:
    """Keep the scene's count of this run's events in PostgreSQL true, in a thread: PostgreSQL may be stopped."""
    ended = threading.Event()
    with connect(endpoints.database) as connection:
        before: int = connection.execute(query("chaos_taken")).fetchall()[0][0]  # of earlier runs

    def poll() -> None:
        while not ended.wait(POLL_S):
            try:
                with connect(endpoints.database) as connection:
                    connection.execute(query("chaos_session"))
                    while not ended.wait(POLL_S):
                        scene.taken = connection.execute(query("chaos_taken")).fetchall()[0][0] - before
                        connection.commit()
            except (psycopg.Error, TaximeterError):
                scene.taken = None

    threading.Thread(target=poll, name="chaos outstanding", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _last_line(error: TaximeterError) -> str:
    return error.message.splitlines()[-1]


def clear_environment() -> None:
    """Take settings of yours out of this process: the system of a run has its own."""
    for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
        del os.environ[name]
