"""The rows of latency at half load: of an answer, and until an event is in `GET /v1/usage`."""

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Any, Final

from flusher.bench.contest import Pace, rate
from flusher.bench.driver import Driver
from flusher.bench.figures import Figure, Goal, percentile
from flusher.bench.http_rows import Kind
from flusher.bench.load import TIMEOUT_S, Turn
from flusher.bench.servers import Stand
from sidecar.contract.codes import TaximeterError

PROBE_EVERY_S: Final = 0.02


def latency(kind: Kind, goal: Goal, stand: Stand, pace: Pace) -> Iterator[Figure]:
    """Yield how long an answer takes at half of what we can do, and after how long an event is in `GET /v1/usage`."""
    stand.fresh()
    shown_ms: list[float] = []
    with Driver(kind.contestant(stand).load) as driver, closing(_Probe(stand)) as probe:
        full = rate(driver.turn(Turn(pace.seconds, pace.events_max))) / kind.events
        half = Turn(max(1.0, pace.seconds), pace.events_max, full / 2)
        halves = [driver.turn(half) for _ in range(pace.rounds)]
        for _ in range(pace.rounds):
            driver.turn(half, lambda: shown_ms.append(probe.shown_ms()), PROBE_EVERY_S)
    name = f"{kind.name}: applied, at half load"
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        values = [percentile(measured.latencies_us, share) / 1000 for measured in halves]
        goals = (goal,) if label == "p99" else ()
        yield Figure(f"latency-{kind.row}", f"{name}, {label}", "ms", values, goals=goals)
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        goals = (goal,) if label == "p99" else ()
        name = f"{kind.name}: in GET /v1/usage, at half load, {label} of {len(shown_ms)}"
        yield Figure(f"latency-{kind.row}", name, "ms", [percentile(shown_ms, share)], goals=goals)


class _Probe:
    """Sends single events of users of their own, and looks for them."""

    def __init__(self, stand: Stand) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", stand.tcp.port, timeout=TIMEOUT_S)

    def shown_ms(self) -> float:
        """Return the milliseconds from the sending of an event to an answer of `GET /v1/usage` that has it."""
        user = f"probe-{secrets.token_hex(8)}"
        event = json.dumps({"user_id": user, "event_type": "api_call", "id": user})
        began_at = time.perf_counter()
        self._ask("POST", "/v1/events", event)
        while not self._ask("GET", f"/v1/usage?user_id={user}")["usage"]:
            if time.perf_counter() > began_at + TIMEOUT_S:
                raise TaximeterError("server_failed", f"an event was not in GET /v1/usage after {TIMEOUT_S:g} s")
        return (time.perf_counter() - began_at) * 1000

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TaximeterError("server_failed", f"{method} {path}: {error}") from error
        if response.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            raise TaximeterError("server_failed", f"{method} {path}: {response.status} {answer[:200]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
