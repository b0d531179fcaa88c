"""Measures the client library through to Redis, over HTTP and over the stream: `make measure-client`.

A whole system runs on disk in a directory of its own. One thread calls `track()` for single events, with a property, as
fast as it can while the queue has room; the clock stops when the sidecar has said of all of them that Redis has them.
"""

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from flusher.embedded.system import System, free_address
from flusher.endpoints import Endpoints
from sidecar.client import Meter

ROUNDS: Final = 3
SLICE: Final = 1000
FLUSH_S: Final = 600.0
USERS: Final = [f"cus_{number:06}" for number in range(1000)]


def track(meter: Meter, events: int) -> float:
    """Tracks so many events and returns the CPU seconds of this thread."""
    began = time.thread_time()
    for number in range(events):
        meter.track(USERS[number % 1000], "api_call", 1, region="eu")
    return time.thread_time() - began


def alone(directory: Path, events: int) -> float:
    """Returns the CPU microseconds of a call without a sidecar to send to: the best thousand calls of so many."""
    meter = Meter(f"stream://{directory / 'nobody'}", queue_events_max=events + SLICE, linger_s=3600.0)
    took_s = min(track(meter, SLICE) for _ in range(0, events, SLICE))
    meter.close(0.0)
    return round(took_s / SLICE * 1e6, 2)


def through(address: str, events: int) -> dict[str, Any]:
    """Returns what single calls reach through to Redis at an address."""
    meter = Meter(address, when_full="block", block_max_s=FLUSH_S, answer_timeout_s=60.0)
    track(meter, min(events, 1000))
    if not meter.flush(FLUSH_S):
        raise SystemExit(f"error: nothing gets through: {meter.stats.problem}")
    before, cpu_s, began_at = meter.stats, time.process_time(), time.perf_counter()
    call_s = track(meter, events)
    if not meter.flush(FLUSH_S):
        raise SystemExit(f"error: not everything got through: {meter.stats}")
    took_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    stats = meter.stats
    meter.close()
    if stats.accepted - before.accepted != events:
        raise SystemExit(f"error: expected {events} accepted events: {stats}")
    return {
        "events_per_s": round(events / took_s),
        "call_cpu_us": round(call_s / events * 1e6, 2),
        "app_cpu_us_per_event": round(cpu_s / events * 1e6, 2),
        "retried": stats.retried,
    }


def cpu_s_of(pid: int) -> float:
    """Returns the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(endpoints: Endpoints, directory: Path, events: int) -> dict[str, Any]:
    """Returns all figures: of each way the best of some rounds, with what sidecar and Redis used meanwhile."""
    report: dict[str, Any] = {"call_cpu_us_alone": alone(directory, events)}
    for name, address in (("http", f"unix://{endpoints.socket}"), ("stream", f"stream://{endpoints.stream}")):
        rounds = []
        for _ in range(ROUNDS):
            before = {part: cpu_s_of(endpoints.pids[part]) for part in ("sidecar", "redis")}
            found = through(address, events)
            for part, used_s in before.items():
                found[f"{part}_cpu_us_per_event"] = round((cpu_s_of(endpoints.pids[part]) - used_s) / events * 1e6, 2)
            rounds.append(found)
        report[name] = max(rounds, key=lambda one: one["events_per_s"])
    return report


def run(events: int) -> dict[str, Any]:
    """Runs a system of its own and returns the figures."""
    directory = Path(tempfile.mkdtemp(prefix="tm-measure-"))
    directory.chmod(0o711)  # as root PostgreSQL runs as nobody, who has to pass through
    system = System(directory / "data", free_address(), tell=lambda line: None)
    try:
        endpoints = system.start()
        try:
            report = measured(endpoints, directory, events)
        finally:
            system.stop()
    finally:
        shutil.rmtree(directory)
    load = round(os.getloadavg()[0], 1)
    return {"events": events, "cpus": os.cpu_count(), "python": platform.python_version(), "load": load, **report}


def main() -> None:
    logging.getLogger("sidecar.client").setLevel(logging.ERROR)  # that nobody is there is meant
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="tracked in each round (default: %(default)s)")
    sys.stdout.write(json.dumps(run(parser.parse_args().events), indent=2) + "\n")


if __name__ == "__main__":
    main()
