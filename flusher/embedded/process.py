"""Server processes that belong to this one: own session, own log, and gone when this process is gone.

Each child is started with PR_SET_PDEATHSIG, so on Linux the kernel ends it even when its parent is killed with
SIGKILL. The kernel ties that to the *thread* that started the child, hence only the main thread may start one.
Each child has a session of its own, so a Ctrl-C in the terminal reaches only the parent, which then stops its
children in the right order.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.contract.codes import TaximeterError

POLL_S = 0.02
LOG_LIMIT_BYTES = 10 * 1024 * 1024
_LOG_TAIL_LINES = 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class RunAs:
    """Who a child runs as: ``prefix`` goes before its command, ``user`` and ``group`` are ids (None = ours)."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """What `subprocess` takes beside user and group: no further groups, or ours."""
        return None if self.user is None else []


OURSELVES = RunAs()


def wait_until(condition: Callable[[], bool], *, deadline_s: float) -> bool:
    """Poll ``condition`` until it holds or ``deadline_s`` have passed; say whether it held."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


class DirectoryLock:
    """A lock file that proves whether anything still works in a directory.

    The open file is handed on to the server, which holds the lock for as long as it or any process that it
    forked lives, whatever happens to us. So whoever gets the lock knows that no old server is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self, *, deadline_s: float) -> int:
        """Take the lock, waiting for a dying server to be gone; return the descriptor to hand on.

        Raises TaximeterError (server_failed) when another process still holds it after ``deadline_s``.
        """
        self.release()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def locked() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not wait_until(locked, deadline_s=deadline_s):
            os.close(descriptor)
            raise TaximeterError(
                "server_failed",
                f"{self._path.parent} is in use by another running server; stop that one first, "
                f"or choose another data directory (the lock is {self._path})",
            )
        self._file = descriptor
        return descriptor

    def release(self) -> None:
        """Close our copy. The lock itself lasts until every process that inherited it has closed its own."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Child:
    """One started process. Create it from the main thread; it is running when the constructor returns.

    Arguments: ``name`` for messages; ``command``; ``log`` that takes its output; ``stop_signal`` asks it to end
    in order; ``death_signal`` is what the kernel sends when we die; ``environment`` in full; ``keep_open`` are
    descriptors that it inherits. Raises TaximeterError (server_failed) when it can't be started at all.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
        run_as: RunAs = OURSELVES,
        directory: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{name} must be started from the main thread, or it dies with the thread")
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        _limit_log(log)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [*run_as.prefix, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=die_with_parent(death_signal),
                    env=environment,
                    cwd=directory,
                    pass_fds=tuple(keep_open),
                    user=run_as.user,
                    group=run_as.group,
                    extra_groups=run_as.extra_groups,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise TaximeterError("server_failed", f"{name} could not be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process id, which stays the same until the process ends."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs, else its exit status (negative: the signal that ended it)."""
        return self._process.poll()

    def wait_ready(self, ready: Callable[[], bool], *, deadline_s: float) -> None:
        """Wait until ``ready`` holds. Raises TaximeterError (server_failed) with the log's tail when the process
        ends before, or after ``deadline_s`` (then the process is killed)."""
        if wait_until(lambda: self.exit_status is not None or ready(), deadline_s=deadline_s):
            if self.exit_status is None:
                return
            raise self.failure(f"ended with status {self.exit_status} while starting")
        self.kill()
        raise self.failure(f"was not ready within {deadline_s:g} s and was killed")

    def stop(self, *, deadline_s: float) -> None:
        """Ask it to end and wait. Raises TaximeterError (server_failed) when it had to be killed."""
        if self.exit_status is not None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failure(f"did not stop within {deadline_s:g} s and was killed") from None

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def failure(self, what: str) -> TaximeterError:
        """Make the error that says ``what`` happened to this process, with the end of its log."""
        return TaximeterError("server_failed", f"{self.name} {what}{log_tail(self.log)}")


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what a child runs before its program starts so that the kernel ends it with us; None off Linux."""
    if _LIBC is None:
        return None
    parent = os.getpid()
    prctl = _LIBC.prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # we died before the kernel was told
            os.kill(os.getpid(), signal.SIGKILL)

    return arm


def log_tail(log: Path) -> str:
    """Return the last lines of ``log``, indented under a line that names it; says so when there are none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    except OSError:
        lines = []
    if not lines:
        return f" (nothing in {log})"
    return "\n".join([f"; the end of {log}:", *(f"    {line}" for line in lines)])


def _limit_log(log: Path) -> None:
    """Keep one older log file beside ``log``, and start a new one, when it has grown over the limit."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
