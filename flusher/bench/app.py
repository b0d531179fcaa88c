"""An app that tracks with the client library, as a process of its own: single calls from one thread.

It reads an `App` and then a `Turn` a line from standard input, as the load generator does, and answers each turn with a
`Measured` on standard output, once the sidecar has said of every event that it is accepted.
"""

import sys
import time
from typing import Final

import msgspec

from flusher.bench.load import TIMEOUT_S, App, Measured, Turn
from flusher.bench.requests import USERS
from sidecar.client import Meter

_SLICE: Final = 100  # calls between two looks at the clock
_USERS: Final = [f"cus_{number:06}" for number in range(USERS)]


def run(meter: Meter, turn: Turn) -> Measured:
    """Track until the time is over or the events are tracked, and wait until they are through."""
    before = meter.stats
    cpu_s, began_at = time.process_time(), time.perf_counter()
    tracked = 0
    while tracked < turn.events_max and time.perf_counter() - began_at < turn.seconds:
        for number in range(tracked, min(tracked + _SLICE, turn.events_max)):
            meter.track(_USERS[number % USERS], "api_call", 1)
        tracked = min(tracked + _SLICE, turn.events_max)
    flushed = meter.flush(TIMEOUT_S)
    took_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    after = meter.stats
    good = flushed and after.accepted - before.accepted == tracked
    return Measured(tracked, took_s, cpu_s, 0, [], "" if good else f"expected {tracked} accepted events: {after}")


def main() -> None:
    """Answer turns until standard input ends."""
    app = msgspec.json.decode(sys.stdin.buffer.readline(), type=App)
    with Meter(app.address, when_full="block", block_max_s=TIMEOUT_S, answer_timeout_s=TIMEOUT_S) as meter:
        for line in sys.stdin.buffer:
            measured = run(meter, msgspec.json.decode(line, type=Turn))
            sys.stdout.buffer.write(msgspec.json.encode(measured) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
