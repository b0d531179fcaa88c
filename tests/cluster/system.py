"""Sidecars and flushers as processes on a cluster and a PostgreSQL, and apps that send to them."""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

from flusher.database import connect
from flusher.embedded.supervisor import answers_ready
from flusher.embedded.system import Address, free_address
from flusher.proof import Proof, verify
from tests.faults.nursery import Forked, Nursery
from tests.faults.processes import wait_until

PATIENCE_S: Final = 60.0
NOW: Final = datetime.now(UTC).replace(microsecond=0)
BATCH: Final = 20


def text_of(moment: datetime) -> str:
    """Returns a time as RFC 3339 has it."""
    return moment.isoformat().replace("+00:00", "Z")


class System:
    """The programs of one ledger, by name."""

    def __init__(self, redis_url: str, database_url: str, directory: Path, nursery: Nursery) -> None:
        self._nursery = nursery
        self._redis_url, self._database_url = redis_url, database_url
        self._directory = directory
        self._programs: dict[str, Forked] = {}
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "FAULTS_CONTROL": str(directory),
            "TAXIMETER_REDIS_URL": redis_url,
            "TAXIMETER_DATABASE_URL": database_url,
        }
        self.addresses: dict[str, Address] = {}

    def start_flusher(self, name: str) -> None:
        """Starts a flusher."""
        self._start(name, "flusher", {"TAXIMETER_HEALTH_HTTP": ""})

    def start_sidecar(self, name: str) -> None:
        """Starts a sidecar."""
        address = self.addresses[name] = free_address()
        journal = self._directory / f"journal-{name}"
        self._start(name, "sidecar", {"TAXIMETER_HTTP": address.text, "TAXIMETER_JOURNAL_DIR": str(journal)})

    def _start(self, name: str, kind: str, settings: dict[str, str]) -> None:
        log = self._directory / f"{name}.log"
        self._programs[name] = self._nursery.start(kind, self._environment | settings, log)

    def wait_ready(self) -> None:
        """Waits until every sidecar accepts events."""
        for name, address in self.addresses.items():
            wait_until(partial(answers_ready, *address), PATIENCE_S, f"{name} is ready")

    def log(self, name: str) -> str:
        """Returns what a program has said."""
        return (self._directory / f"{name}.log").read_text(encoding="utf-8")

    def drain(self, sent: dict[str, int]) -> Proof:
        """Waits until the running flushers have brought all that was sent into PostgreSQL, and returns the proof."""
        wait_until(lambda: self.billed() == sent, PATIENCE_S, "all that was sent is in PostgreSQL, once")
        proof = verify(self._redis_url, self._database_url, answer_timeout_s=PATIENCE_S)
        assert proof.ok, proof.as_json()
        assert (proof.redis.events, proof.journal.events) == (0, 0)
        return proof

    def billed(self) -> dict[str, int]:
        """Returns the events of each user that count."""
        with connect(self._database_url) as connection:
            rows = connection.execute(
                "SELECT user_id, sum(events)::bigint, sum(units) FROM usage GROUP BY 1"
            ).fetchall()
        assert all(units == events * Decimal("0.5") for _, events, units in rows)
        return {user: events for user, events, _ in rows}

    def live(self, sidecar: str, user: str) -> int | None:
        """Returns how many events of a user a sidecar says there are now, None while it says that it can't."""
        bounds = [text_of((NOW + timedelta(hours=hours)).replace(minute=0, second=0)) for hours in (-1, 2)]
        query = f"user_id={user}&from={bounds[0]}&to={bounds[1]}"
        try:
            with urllib.request.urlopen(f"http://{self.addresses[sidecar].text}/v1/usage?{query}", timeout=10) as reply:
                return sum(int(row["events"]) for row in json.load(reply)["usage"])
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return None

    def close(self) -> None:
        """Ends them all."""
        for program in self._programs.values():
            program.kill()


class App(threading.Thread):
    """Sends numbered events of many users to a sidecar, each batch again and again until it is acknowledged."""

    def __init__(self, name: str, address: Address, users: int) -> None:
        super().__init__(daemon=True)
        self.name = name
        self.sent: dict[str, int] = {}
        self.answers: list[int] = []
        self._url = f"http://{address.text}/v1/events"
        self._users = users
        self._ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            numbers = range(number, number + BATCH)
            number += BATCH
            self._send(numbers)
            if number % (5 * BATCH) == 0:
                self._send(numbers)  # again, all of it
            for one in numbers:
                user = self._user(one)
                self.sent[user] = self.sent.get(user, 0) + 1
            time.sleep(0.01)

    def _user(self, number: int) -> str:
        return f"cus_{number % self._users}"

    def _send(self, numbers: range) -> None:
        events = [
            {
                "id": f"{self.name}-{number}",
                "user_id": self._user(number),
                "event_type": "api_call",
                "units": "0.5",
                "timestamp": text_of(NOW),
            }
            for number in numbers
        ]
        request = urllib.request.Request(self._url, json.dumps(events).encode(), {"Content-Type": "application/json"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    self.answers.append(answer.status)
                    return
            except urllib.error.HTTPError as error:
                if error.code not in {429, 503}:
                    raise
            except OSError:
                pass
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it behind the batch that is under way."""
        self._ended.set()
        self.join(PATIENCE_S)


def total(apps: list[App]) -> dict[str, int]:
    """Returns the events of each user that the apps sent, and that were acknowledged."""
    found: dict[str, int] = {}
    for app in apps:
        for user, events in app.sent.items():
            found[user] = found.get(user, 0) + events
    return found
