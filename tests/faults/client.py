"""An app that sends events and writes down each before it sends it. A program of its own: imports nothing of ours.

    python client.py --directory D --name a --seed 1 --rate 100 --batch 20 --targets 127.0.0.1:1,127.0.0.1:2

Events are numbered, and everything about one follows from its number and its batch: `event_of`. The file
`<name>.ndjson` has a line for every attempt, synced before a byte of it is sent, and a line for every answer:

    {"attempt": 7, "batch": 3, "first": 60, "size": 20, "kind": "timed", "variant": 0, "at": 1753090461, "sent": ...}
    {"answer": 7, "status": 200, "codes": {"4": "duplicate"}, "at": ...}

An attempt without an answer may have been taken or not. Kinds of batches:

| kind  | its events have                      | and are sent again                                       |
| ----- | ------------------------------------ | -------------------------------------------------------- |
| timed | id and timestamp                     | until they are answered, and sometimes once more after   |
| ids   | an id                                | the same                                                 |
| keyed | neither, under an `Idempotency-Key`  | the same                                                 |
| bare  | neither                              | never                                                    |

`variant` 1 is another payload under the same identities: of the two at most one may count.
SIGTERM ends it: what is under way is still tried until it is answered, but no longer than `--patience` seconds.
"""

import argparse
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

KINDS: Final = ("timed", "ids", "keyed", "bare")
WEIGHTS: Final = (5, 3, 3, 1)
TYPES: Final = ("api_call", "tokens", "storage")
USERS: Final = 17
HOUR_US: Final = 3_600_000_000
TIMEOUT_S: Final = 4.0
RETRY_S: Final = 0.1
BEHIND_S: Final = 3.0  # an outage that was longer is not made up for


class Batch(NamedTuple):
    """A batch as it stands in the file. `at` is the time of its events, microseconds since 1970."""

    batch: int
    first: int
    size: int
    kind: str
    variant: int
    at: int


def event_of(name: str, batch: Batch, number: int) -> dict[str, Any]:
    """Returns the event with this number. Its `mark` says which one it is, whatever became of its identity."""
    event: dict[str, Any] = {
        "user_id": f"cus_{number * 7 % USERS}",
        "event_type": TYPES[number % 3],
        "units": f"{number % 11 + batch.variant}.{number % 997:03d}",
        "properties": {"mark": f"{name}/{number}" + "~" * batch.variant, "region": ("eu", "us")[number % 2]},
    }
    if batch.kind in {"timed", "ids"}:
        event["id"] = f"{name}-{number}"
    if batch.kind == "timed":
        event["timestamp"] = stamp(time_us_of(batch, number))
    return event


def time_us_of(batch: Batch, number: int) -> int:
    """Returns the time of an event that has one: most are of now, some of the last hours, a few of last month."""
    back = number % 20
    return batch.at - (31 * 24 * HOUR_US if back == 19 else back // 5 * HOUR_US) + number - batch.first


def stamp(time_us: int) -> str:
    """Returns a time as RFC 3339."""
    whole, micros = divmod(time_us, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z"


class Writer:
    """The file of a client. A line is on disk when `write` returns."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, line: dict[str, Any], *, sync: bool) -> None:
        os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        if sync:
            os.fsync(self._descriptor)


class Sender(threading.Thread):
    """Sends one batch after the other, each until it is answered."""

    def __init__(self, name: str, arguments: argparse.Namespace, rng: random.Random, stopping: threading.Event) -> None:
        super().__init__(name=name)
        self._writer = Writer(f"{arguments.directory}/{name}.ndjson")
        self._targets: list[str] = arguments.targets.split(",")
        self._size: int = arguments.batch
        self._every_s: float = arguments.batch * arguments.threads / arguments.rate
        self._patience_s: float = arguments.patience
        self._rng = rng
        self._stopping = stopping
        self._attempts = 0
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._gave_up_at = 0.0

    def run(self) -> None:
        due = time.monotonic()
        answered: list[Batch] = []
        for batch in self._batches():
            if self._stopping.is_set():
                return
            if self._deliver(batch) and batch.kind != "bare":
                answered = [*answered[-20:], batch]
            if answered and self._rng.random() < 0.1:
                self._deliver(self._rng.choice(answered))
            elif batch.kind in {"timed", "ids"} and self._rng.random() < 0.05:
                self._deliver(batch._replace(variant=1))
            due = max(due + self._every_s, time.monotonic() - BEHIND_S)
            self._stopping.wait(max(0.0, due - time.monotonic()))

    def _batches(self) -> Iterator[Batch]:
        number = first = 0
        while True:
            kind = self._rng.choices(KINDS, WEIGHTS)[0]
            count = self._rng.randint(1, 2 * self._size - 1)
            yield Batch(number, first, count, kind, 0, time.time_ns() // 1000)
            number, first = number + 1, first + count

    def _deliver(self, batch: Batch) -> bool:
        """Sends a batch until it is answered with success; says whether it was."""
        lazy = batch.kind == "bare" or self._rng.random() < 0.03
        while True:
            status = self._attempt(batch)
            if status in {200, 202, 422}:
                return status != 422
            if lazy or self._is_out_of_patience():
                return False
            time.sleep(RETRY_S)

    def _is_out_of_patience(self) -> bool:
        if not self._stopping.is_set():
            return False
        self._gave_up_at = self._gave_up_at or time.monotonic() + self._patience_s
        return time.monotonic() > self._gave_up_at

    def _attempt(self, batch: Batch) -> int | None:
        events = [event_of(self.name, batch, number) for number in range(batch.first, batch.first + batch.size)]
        headers = {"Content-Type": "application/json"}
        if batch.kind == "keyed":
            headers["Idempotency-Key"] = f"{self.name}-{batch.batch}"
        target = self._rng.choice(self._targets)
        self._attempts += 1
        number = self._attempts
        self._writer.write({"attempt": number, **batch._asdict(), "sent": time.time()}, sync=True)
        try:
            status, body = self._post(target, json.dumps(events).encode(), headers)
            said = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError):
            self._connections.pop(target).close()
            return None
        codes = {one["index"]: one["code"] for one in said.get("results", ())}
        line = {"answer": number, "status": status, "code": said.get("code") or said.get("status"), "codes": codes}
        self._writer.write({**line, "at": time.time()}, sync=False)
        return status

    def _post(self, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if target not in self._connections:
            self._connections[target] = http.client.HTTPConnection(target, timeout=TIMEOUT_S)
        connection = self._connections[target]
        connection.request("POST", "/v1/events", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--targets", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second, over all threads")
    parser.add_argument("--batch", type=int, default=20, help="events in a request, on average")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=20.0)
    arguments = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    senders = [
        Sender(f"{arguments.name}{number}", arguments, random.Random(f"{arguments.seed}/{number}"), stopping)
        for number in range(arguments.threads)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        while sender.is_alive():
            sender.join(0.2)  # so that the signal is heard
    return 0


if __name__ == "__main__":
    sys.exit(main())
