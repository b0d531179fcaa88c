"""The client in real processes: forked, ended, and with its sidecar killed under it; every event counts once."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from flusher.database import connect
from flusher.embedded.process import die_with_parent, wait_until
from flusher.worker import Worker
from sidecar.client import Meter

READY_S = 90.0
SEED = 20250721


class Sidecar:
    """A sidecar process that is killed and started again, and a flusher beside it in a thread."""

    def __init__(self, redis_url: str, database_url: str, directory: Path) -> None:
        self.directory = directory
        self.database_url = database_url
        self.worker = Worker.connect(redis_url, database_url)
        self._redis_url = redis_url
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._work)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread.start()

    def _work(self) -> None:
        while not self._stopping.wait(0.1):
            with self._turn:
                self.worker.run_once()

    def address(self, scheme: str) -> str:
        return f"{scheme}://{self.directory / scheme}.sock"

    def start(self) -> None:
        flags = ["--redis-url", self._redis_url, "--journal-dir", str(self.directory / "journal"), "--http", ""]
        sockets = [
            "--socket",
            str(self.directory / "unix.sock"),
            "--stream-socket",
            str(self.directory / "stream.sock"),
        ]
        with (self.directory / "sidecar.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", *flags, *sockets],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(READY_S)

    def end(self) -> None:
        """Stops it in order."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(READY_S) == 0, (self.directory / "sidecar.log").read_text()

    def counted(self) -> dict[str, tuple[Decimal, int]]:
        """Returns units and events by user, once everything that was accepted is in Postgres."""
        with self._turn:
            self.worker.flush()
        with connect(self.database_url) as connection:
            rows = connection.execute("SELECT user_id, sum(units), sum(events)::int FROM usage GROUP BY 1").fetchall()
        return {user: (units, events) for user, units, events in rows}

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._stopping.set()
        self._thread.join()
        self.worker.close()


@pytest.fixture
def sidecar(redis_url: str, database_url: str, server_dir: Path) -> Iterator[Sidecar]:
    made = Sidecar(redis_url, database_url, server_dir)
    made.start()
    yield made
    made.close()


def has_accepted_more(meter: Meter, than: int) -> bool:
    return meter.stats.accepted > than


@pytest.mark.parametrize("scheme", ["unix", "stream"])
def test_a_sidecar_that_is_killed_again_and_again_loses_nothing_and_counts_nothing_twice(
    scheme: str, sidecar: Sidecar
) -> None:
    # given threads that track without a pause
    meter = Meter(sidecar.address(scheme), when_full="block")
    stopping = threading.Event()
    tracked = dict.fromkeys(("cus_0", "cus_1", "cus_2"), 0)

    def track(user: str) -> None:
        while not stopping.is_set():
            for _ in range(5):
                meter.track(user, "api_call", 2)
            tracked[user] += 5
            time.sleep(0.01)

    threads = [threading.Thread(target=track, args=(user,)) for user in tracked]
    for thread in threads:
        thread.start()
    # when the sidecar is killed in the middle of it
    rng = random.Random(SEED)
    try:
        for _ in range(3):
            assert wait_until(partial(has_accepted_more, meter, meter.stats.accepted), deadline_s=READY_S)
            time.sleep(rng.uniform(0.0, 0.2))
            sidecar.kill()
            time.sleep(rng.uniform(0.0, 0.1))
            sidecar.start()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    # then the last flush succeeds, and each event is in Postgres once
    assert meter.flush(READY_S), meter.stats
    stats = meter.stats
    assert stats.retried > 0
    assert (stats.dropped, stats.rejected, stats.conflicts, stats.waiting) == (0, 0, 0, 0)
    assert stats.sent == stats.accepted + stats.duplicates == sum(tracked.values())
    assert meter.close()
    sidecar.end()
    assert sidecar.counted() == {user: (Decimal(2 * count), count) for user, count in tracked.items()}


FORKING = """
import os, sys, threading
from sidecar.client import Meter

meter = Meter(sys.argv[1], linger_s=0.02)
meter.track("parent", "api_call")
assert meter.flush(20)
for number in range(300):
    meter.track("parent", "api_call")
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        assert meter.stats[:8] == (0,) * 8, meter.stats
        for number in range(100):
            meter.track(f"child-{child}", "api_call")
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                meter.track("grandchild", "api_call")
                os._exit(0 if meter.flush(20) else 1)
            assert os.waitpid(grandchild, 0)[1] == 0
        sent = meter.close(20)
        os._exit(0 if sent and meter.stats.accepted == 100 else 1)
    children.append(pid)
    for number in range(50):
        meter.track("parent", "api_call")
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert meter.flush(20)
assert meter.stats.accepted == 451, meter.stats
"""

ENDING = """
import atexit, sys
from sidecar.client import Meter

meter = Meter(sys.argv[1], linger_s=5.0, exit_flush_s=20.0)
for number in range(500):
    meter.track("cus_1", "api_call")
if sys.argv[2] == "raise":
    raise ValueError("the app fails")
if sys.argv[2] == "late":
    atexit.register(lambda: meter.track("late", "api_call"))
"""


def run_app(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )


@pytest.mark.parametrize("scheme", ["unix", "stream"])
def test_a_forked_child_begins_with_nothing_and_the_parent_loses_nothing(scheme: str, sidecar: Sidecar) -> None:
    done = run_app(FORKING, sidecar.address(scheme))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    sidecar.end()
    counts = {user: events for user, (_, events) in sidecar.counted().items()}
    assert counts == {"parent": 451, "child-0": 100, "child-1": 100, "child-2": 100, "grandchild": 1}


def test_an_app_that_ends_has_sent_everything(sidecar: Sidecar) -> None:
    for how, status in (("return", 0), ("raise", 1), ("late", 0)):
        done = run_app(ENDING, sidecar.address("stream"), how)
        assert done.returncode == status, done.stderr
    sidecar.end()
    assert {user: events for user, (_, events) in sidecar.counted().items()} == {"cus_1": 1500, "late": 1}


def test_an_id_that_is_tracked_again_counts_once_even_by_another_process(sidecar: Sidecar) -> None:
    for scheme, expected in (("stream", (1, 0)), ("unix", (0, 1))):
        meter = Meter(sidecar.address(scheme))
        meter.track("cus_1", "api_call", id="job-7")
        assert meter.flush(READY_S)
        assert (meter.stats.accepted, meter.stats.duplicates) == expected
        assert meter.close()
    sidecar.end()
    assert sidecar.counted() == {"cus_1": (Decimal(1), 1)}


def test_an_app_ends_in_time_without_a_sidecar(tmp_path: Path) -> None:
    began_at = time.monotonic()
    done = run_app(ENDING.replace("20.0", "0.2"), f"stream://{tmp_path}/nobody.sock", "return")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_at < 20


def test_importing_the_client_imports_no_server_library() -> None:
    program = (
        "import sys, sidecar.client; "
        "print(sorted({'aiohttp', 'redis', 'uvloop', 'prometheus_client', 'asyncio', 'psycopg'} & set(sys.modules)))"
    )
    assert run_app(program).stdout == "[]\n"


def test_tracking_in_a_signal_handler_is_safe(tmp_path: Path) -> None:
    meter = Meter(f"unix://{tmp_path}/nobody.sock")

    def handle(number: int, frame: object) -> None:
        meter.track("cus_1", "api_call")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(20_000):
            meter.track("cus_1", "api_call")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert meter.stats.waiting >= 20_000
    meter.close(0.0)
