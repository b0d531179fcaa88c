"""The processes of a run: one of our programs, or a client, that is started again and again under one name."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flusher.embedded.process import Child
from tests.faults.points import Act, Moment
from tests.faults.undertaker import Undertaker

ROOT: Final = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], deadline_s: float, what: str) -> None:
    """Polls until the condition holds. Raises TimeoutError that says what did not come."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s:g} s")
        time.sleep(0.02)


class Process:
    """A program under a name, running or not. Its log is one file over all its lives."""

    def __init__(self, name: str, command: list[str], log: Path, undertaker: Undertaker) -> None:
        self.name = name
        self.environment: dict[str, str] = {}
        self.starts = 0
        self._command = command
        self._log = log
        self._undertaker = undertaker
        self._child: Child | None = None

    def start(self) -> None:
        """Starts it. It ends with this process, even if it is stopped then."""
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", **self.environment}
        self._child = Child(
            self.name,
            self._command,
            log=self._log,
            death_signal=signal.SIGKILL,
            environment=environment,
            directory=ROOT,
        )
        self._undertaker.watch(self._child.pid)
        self.starts += 1

    @property
    def pid(self) -> int | None:
        """The process id while it runs, stopped or not."""
        return self._child.pid if self._child is not None and self._child.exit_status is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._child.exit_status if self._child is not None else None

    def kill(self) -> None:
        """Ends it with SIGKILL and waits until it is gone."""
        if self._child is not None:
            self._child.kill()

    def terminate(self, deadline_s: float = 30.0) -> None:
        """Asks it to end and waits. Raises TaximeterError when it does not."""
        if self._child is not None:
            self._child.stop(deadline_s=deadline_s)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP holds it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def log_tail(self, lines: int = 15) -> str:
        """Returns the end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return ""


class Program(Process):
    """A sidecar or a flusher, with traps at its named points."""

    def __init__(self, name: str, kind: str, settings: Mapping[str, str], directory: Path, who: Undertaker) -> None:
        command = [sys.executable, "-m", "tests.faults.program", kind]
        super().__init__(name, command, directory / f"{name}.log", who)
        self.kind = kind
        self.control = directory / f"{name}-control"
        self.control.mkdir()
        self.environment = {"FAULTS_CONTROL": str(self.control), **settings}

    def arm(self, point: str, moment: Moment, act: Act, nth: int = 1) -> None:
        """Sets a trap for the running process, or for its next life."""
        self.disarm()
        fresh = self.control / "trap.new"
        fresh.write_text(json.dumps({"point": point, "moment": moment, "act": act, "nth": nth}))
        fresh.rename(self.control / "trap")

    def disarm(self) -> None:
        """Takes the trap away."""
        for name in ("trap", "fired"):
            (self.control / name).unlink(missing_ok=True)

    @property
    def has_fired(self) -> bool:
        """Whether the trap was sprung."""
        return (self.control / "fired").exists()

    def fired_numbers(self) -> list[int]:
        """Returns the numbers among the arguments of the call at which the trap was sprung."""
        numbers: list[int] = json.loads((self.control / "fired").read_text())["numbers"]
        return numbers

    def bend_clock(self, seconds: float) -> None:
        """Makes its clock wrong by so much, from now on."""
        fresh = self.control / "clock.new"
        fresh.write_text(str(seconds))
        fresh.rename(self.control / "clock")
