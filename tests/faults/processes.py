"""The processes of a run: one of our programs, or a client, that is started again and again under one name."""

import contextlib
import json
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flusher.embedded.process import Child
from tests.faults.nursery import Forked, Nursery
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


class Process(ABC):
    """A program under a name, running or not. Its log is one file over all its lives."""

    def __init__(self, name: str, log: Path, undertaker: Undertaker) -> None:
        self.name = name
        self.starts = 0
        self.is_ending = False  # it was asked to end, so it may
        self.may_fail = False  # what happens to it is a reason to end
        self._log = log
        self._undertaker = undertaker
        self._child: Child | Forked | None = None

    @abstractmethod
    def _begin(self) -> Child | Forked:
        """Starts it."""

    def start(self) -> None:
        """Starts it. It ends with this process, even if it is stopped then."""
        self._child = self._begin()
        self._undertaker.watch(self._child.pid)
        self.starts += 1
        self.is_ending = self.may_fail = False

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

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        if (pid := self.pid) is not None:
            self.is_ending = self.is_ending or number == signal.SIGTERM
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP holds it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def log_text(self) -> str:
        """Returns its log."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")
        return ""

    def log_tail(self, lines: int = 15) -> str:
        """Returns the end of its log."""
        return "\n".join(self.log_text().splitlines()[-lines:])


class Client(Process):
    """A client: another program than ours, started as such."""

    def __init__(self, name: str, command: list[str], directory: Path, undertaker: Undertaker) -> None:
        super().__init__(name, directory / f"{name}.log", undertaker)
        self._command = command

    def _begin(self) -> Child:
        return Child(self.name, self._command, log=self._log, death_signal=signal.SIGKILL, directory=ROOT)


class Program(Process):
    """A sidecar or a flusher, with traps at its named points."""

    def __init__(
        self, name: str, kind: str, settings: Mapping[str, str], directory: Path, who: Undertaker, nursery: Nursery
    ) -> None:
        super().__init__(name, directory / f"{name}.log", who)
        self.kind = kind
        self.control = directory / f"{name}-control"
        self.control.mkdir()
        self._nursery = nursery
        self._environment = {"PATH": os.environ.get("PATH", ""), "FAULTS_CONTROL": str(self.control), **settings}

    def _begin(self) -> Forked:
        return self._nursery.start(self.kind, self._environment, self._log)

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
