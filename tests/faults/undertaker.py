"""Cleans up behind a run that was killed: ends its processes, even stopped ones, and removes its directory.

A program of its own that imports nothing of ours. It is told on its standard input, line by line, `pid N` of every
process that was started and `dir PATH`; when the input ends, the run is over, in whatever way.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path


def born(pid: int) -> str:
    """Returns when a process was started, so that another one with the same number is not taken for it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


class Undertaker:
    """The run's end of it."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._say(f"dir {directory}")

    def watch(self, pid: int | None) -> None:
        """Has a process ended with the run."""
        if pid is not None:
            self._say(f"pid {pid}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Has it do its work now, and waits."""
        self._process.communicate(timeout=30)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes: dict[int, str] = {}
    directories: list[str] = []
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "pid":
            processes[int(rest)] = born(int(rest))
        else:
            directories.append(rest)
    for pid, when in processes.items():
        if when and born(pid) == when:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
