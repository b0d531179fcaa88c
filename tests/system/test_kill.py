"""`taximeter up`, real processes, kill -9 of each while events come in: every acknowledged event counts once.

Imports nothing of ours: only commands, HTTP and signals, as a user has them.
"""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

TAXIMETER = [sys.executable, "-m", "flusher"]
READY_S = 60
SECONDS = 12
SEED = 20250721


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """Nothing is left behind when the tests are killed: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def call(*arguments: str, data_dir: Path) -> dict[str, object]:
    """Runs a command with --json and returns what it reports; fails when it fails."""
    command = [*TAXIMETER, *arguments, "--json", "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
    reported: dict[str, object] = json.loads(done.stdout)
    return reported


def endpoints(data_dir: Path) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads((data_dir / "endpoints.json").read_text())
    except FileNotFoundError:
        return None
    return found


@pytest.fixture
def running(server_dir: Path) -> Iterator[tuple[Path, str]]:
    """A system in a directory of its own; gives the directory and the sidecar's URL."""
    data_dir, address = server_dir / "data", f"127.0.0.1:{free_port()}"
    with (server_dir / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*TAXIMETER, "up", "--data-dir", str(data_dir), "--http", address],
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
        )
        try:
            deadline = time.monotonic() + READY_S
            while endpoints(data_dir) is None:
                assert up.poll() is None, (server_dir / "up.log").read_text()
                assert time.monotonic() < deadline, (server_dir / "up.log").read_text()
                time.sleep(0.1)
            yield data_dir, f"http://{address}"
        finally:
            up.send_signal(signal.SIGTERM)
            assert up.wait(timeout=60) == 0, (server_dir / "up.log").read_text()


class Client(threading.Thread):
    """An app that sends numbered events, each batch again and again until it is acknowledged."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.prefix = name
        self.acknowledged: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            ids = [f"{self.prefix}-{number + place}" for place in range(20)]
            number += 20
            self.send(ids)
            if number % 100 == 0:
                self.send(ids)  # a retry of what was acknowledged
            time.sleep(0.02)

    def send(self, ids: list[str]) -> None:
        events = [
            {
                "id": one,
                "user_id": "cus_kill",
                "event_type": "api_call",
                "units": "0.1",
                "timestamp": "2025-07-21T09:34:21Z",
            }
            for one in ids
        ]
        request = urllib.request.Request(
            f"{self.url}/v1/events", json.dumps(events).encode(), {"Content-Type": "application/json"}
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    assert answer.status in {200, 202}
                    self.acknowledged += ids
                    return
            except urllib.error.HTTPError as error:
                if error.code not in {429, 503}:
                    raise
            except OSError:
                pass
            if self.stopping.is_set():
                return
            time.sleep(0.1)


def test_kill_9_of_any_process_under_load_loses_nothing_and_counts_nothing_twice(running: tuple[Path, str]) -> None:
    # given two apps that send
    data_dir, url = running
    clients = [Client(url, name) for name in ("a", "b")]
    for client in clients:
        client.start()
    # when each process is killed, in random order, several times
    rng = random.Random(SEED)
    killed: list[str] = []
    deadline = time.monotonic() + SECONDS
    victims = ["sidecar", "flusher", "redis", "postgres"]
    while time.monotonic() < deadline or set(killed) != set(victims):
        time.sleep(rng.uniform(0.3, 1.2))
        found = endpoints(data_dir)
        pids = found["pids"] if found else {}
        assert isinstance(pids, dict)
        victim = rng.choice([one for one in victims if one not in killed] or victims)
        if isinstance(pid := pids.get(victim), int):
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append(victim)
            except ProcessLookupError:
                pass
        assert time.monotonic() < deadline + 60
    for client in clients:
        client.stopping.set()
    for client in clients:
        client.join(timeout=30)
    wait_until_drained(data_dir)
    # then every acknowledged event counts once, and what was never acknowledged at most once
    acknowledged = {one for client in clients for one in client.acknowledged}
    usage = call("usage", "--from", "2025-07-01T00:00:00Z", "--to", "2025-08-01T00:00:00Z", data_dir=data_dir)
    rows = usage["usage"]
    assert isinstance(rows, list)
    (row,) = rows
    assert len(acknowledged) > 100
    assert len(acknowledged) <= row["events"] <= len(acknowledged) + 20 * len(clients), killed
    proof = call("verify", data_dir=data_dir)
    assert proof["ok"], proof


def wait_until_drained(data_dir: Path) -> None:
    """Flushes until the proof says that nothing is left in Redis or a journal."""
    deadline = time.monotonic() + 60
    while True:
        command = [*TAXIMETER, "flush", "--json", "--data-dir", str(data_dir)]
        subprocess.run(command, capture_output=True, timeout=60, check=False)
        command = [*TAXIMETER, "verify", "--json", "--data-dir", str(data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            proof = json.loads(done.stdout)
            if proof["redis"]["events"] == 0 and proof["journal"]["events"] == 0:
                return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.5)
