"""Starts our programs quickly: a process that has loaded them, and forks one whenever it is told to.

Every program is a process of its own, in a session of its own, with its own environment and log, as if it had been
started afresh; only the loading, which takes most of a second, happened before.
"""

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
LOADED: Final = ("sidecar.__main__", "flusher.cli.main", "flusher.cli.flusher", "tests.faults.program")
MESSAGE_BYTES: Final = 65_536
DEADLINE_S: Final = 30.0


class Forked:
    """A program that was started. `exit_status` is negative for the signal that ended it, None while it runs."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self._nursery = nursery

    @property
    def exit_status(self) -> int | None:
        return self._nursery.status(self.pid)

    def kill(self) -> None:
        """Ends it with SIGKILL and waits until it is gone."""
        if self.exit_status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            end = time.monotonic() + DEADLINE_S
            while self.exit_status is None:
                if time.monotonic() > end:
                    raise TimeoutError(f"process {self.pid} does not end")
                time.sleep(0.005)


class Nursery:
    """The process that forks. It ends with us, and its programs with it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.faults.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True)
        theirs.close()
        self._statuses: dict[int, int] = {}
        self._ours.settimeout(DEADLINE_S)

    def start(self, kind: str, environment: Mapping[str, str], log: Path) -> Forked:
        """Starts `sidecar` or `flusher`."""
        self._ours.send(json.dumps({"kind": kind, "environment": dict(environment), "log": str(log)}).encode())
        while True:
            said = json.loads(self._ours.recv(MESSAGE_BYTES))
            if "started" in said:
                return Forked(self, said["started"])
            self._statuses[said["ended"]] = said["status"]

    def status(self, pid: int) -> int | None:
        """Returns how a program ended, None while it runs."""
        while select.select([self._ours], [], [], 0)[0]:
            said = json.loads(self._ours.recv(MESSAGE_BYTES))
            self._statuses[said["ended"]] = said["status"]
        return self._statuses.get(pid)

    def close(self) -> None:
        """Ends it, and what it started."""
        self._ours.close()
        self._process.wait(DEADLINE_S)


def _be(kind: str, environment: dict[str, str], log: str) -> int:
    """Is the program from here on; returns its exit status."""
    os.setsid()
    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, descriptor)
    sys.argv = ["program", kind]
    return int(import_module("tests.faults.program").main())


def end_with_parent() -> None:
    """Lets the kernel end this process with its parent: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Forks until the channel is closed. In the fork it returns what to be, in the nursery None."""
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ, 0)
    while True:
        for key, _ in selector.select():
            if key.data:
                _, status = os.waitpid(key.data, 0)
                selector.unregister(key.fd)
                os.close(key.fd)
                channel.send(json.dumps({"ended": key.data, "status": os.waitstatus_to_exitcode(status)}).encode())
                continue
            message = channel.recv(MESSAGE_BYTES)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                selector.close()
                wanted: dict[str, Any] = json.loads(message)
                return wanted
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
            channel.send(json.dumps({"started": pid}).encode())


def main() -> int:
    end_with_parent()
    for name in LOADED:
        import_module(name)
    wanted = None
    with socket.socket(fileno=int(sys.argv[1])) as channel, contextlib.suppress(ConnectionError):
        wanted = _serve(channel)
    return 0 if wanted is None else _be(**wanted)


if __name__ == "__main__":
    sys.exit(main())
