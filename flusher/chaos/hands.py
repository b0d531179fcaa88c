"""Does to the running processes what the plan says. Whoever does it is the one thread that starts them, too."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flusher.chaos.plan import Fault, Kind
from flusher.embedded.process import wait_until

GONE_S: Final = 10.0
REDIS_TIMEOUT_S: Final = 2.0
COPIES_MAX: Final = 10


class _Stopped(NamedTuple):
    until: float
    pids: list[int]


class Hands:
    """Kills, stops and wipes. `pids` tells which process each part is now, None while it is down.

    `append_only` is the directory of Redis's append-only file, `memory` one for the states that are remembered.
    """

    def __init__(
        self, pids: Callable[[], Mapping[str, int | None]], redis_url: str, append_only: Path, memory: Path
    ) -> None:
        self._pids = pids
        self._append_only = append_only
        self._memory = memory
        self._stopped: dict[str, _Stopped] = {}
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def stopped(self) -> set[str]:
        """The parts that are stopped now."""
        return set(self._stopped)

    def do(self, fault: Fault) -> bool:
        """Do it; False when it can't be done now, because the part is down or stopped."""
        pid = self._pids()[fault.part]
        if pid is None:
            return False
        if fault.kind is Kind.STOP:
            return self._stop(fault.part, pid, fault.lasts_s)
        if fault.kind is Kind.WIPE:
            return self._wipe()
        if fault.kind is Kind.REMEMBER:
            return self._remember()
        if fault.kind is Kind.BACK and not self._memory.exists():
            return False
        self._kill(fault.part, pid)
        if fault.kind in {Kind.EMPTY, Kind.BACK}:
            for path in self._append_only.iterdir():
                path.unlink()
        if fault.kind is Kind.BACK:
            for path in self._memory.iterdir():
                shutil.copy(path, self._append_only / path.name)
        return True

    def resume(self, *, everything: bool = False) -> list[str]:
        """Let go on what was stopped for long enough, or `everything`; return the parts."""
        now = time.monotonic()
        due = [part for part, stopped in self._stopped.items() if everything or now >= stopped.until]
        for part in due:
            for pid in self._stopped.pop(part).pids:
                _signal(pid, signal.SIGCONT)
        return due

    def close(self) -> None:
        """Leave nothing stopped."""
        self.resume(everything=True)
        self._redis.close()

    def _kill(self, part: str, pid: int) -> None:
        _signal(pid, signal.SIGKILL)
        stopped = self._stopped.pop(part, None)
        for other in stopped.pids if stopped else ():
            _signal(other, signal.SIGCONT)  # what is left of PostgreSQL has to see that its parent is gone
        wait_until(lambda: self._pids()[part] is None, deadline_s=GONE_S)

    def _stop(self, part: str, pid: int, lasts_s: float) -> bool:
        if part in self._stopped:
            return False
        pids = [pid, *_children(pid)]
        for one in pids:
            _signal(one, signal.SIGSTOP)
        self._stopped[part] = _Stopped(time.monotonic() + lasts_s, pids)
        return True

    def _wipe(self) -> bool:
        if "redis" in self._stopped:
            return False
        try:
            self._redis.flushall()
        except (RedisError, OSError):
            return False  # just started, or just ending
        return True

    def _remember(self) -> bool:
        """Keep what the append-only file is now: it only ever grows, until it is replaced by a shorter one."""
        for _ in range(COPIES_MAX):
            shutil.rmtree(self._memory, ignore_errors=True)
            self._memory.mkdir(mode=0o700)
            before = _manifests(self._append_only)
            try:
                for path in self._append_only.iterdir():
                    shutil.copy(path, self._memory / path.name)
            except FileNotFoundError:
                continue
            if before and _manifests(self._append_only) == before:
                return True
        shutil.rmtree(self._memory, ignore_errors=True)
        return False


def _manifests(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.manifest")}


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    """Return the processes that it started: PostgreSQL has one for every connection."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found
