"""Keeping a set of services running: a service that ended is started again, at growing intervals."""

import http.client
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from flusher.embedded.process import Child
from sidecar.contract.codes import TaximeterError

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
HEALTHY_AFTER_S = 30.0
_READY_TIMEOUT_S = 1.0


class Service(Protocol):
    """What the supervisor needs of an embedded server or a `Program`."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""

    def start(self) -> None:
        """Start it. Raises TaximeterError when it does not come up."""

    def stop(self) -> None:
        """Stop it in order. Raises TaximeterError when it had to be killed."""

    def kill(self) -> None:
        """End it at once."""


class Program:
    """One of our own programs, such as the sidecar. It is running once `start` returns; `wait_ready` waits for more.

    It is killed outright when we die, as whatever it was doing is safe to repeat; `stop` asks it in order first.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        stop_deadline_s: float = 30.0,
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._environment = environment
        self._stop_deadline_s = stop_deadline_s
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        return self._child.pid if self._child and self._child.exit_status is None else None

    def start(self) -> None:
        """Start it. Raises TaximeterError (server_failed) when its program can't be run at all."""
        self._child = Child(
            self.name,
            self._command,
            log=self._log,
            death_signal=signal.SIGKILL,
            environment=self._environment,
        )

    def wait_ready(self, ready: Callable[[], bool], *, deadline_s: float) -> None:
        """Wait until ``ready`` holds. Raises TaximeterError (server_failed) with the log's end as `Child` does."""
        if self._child is not None:
            self._child.wait_ready(ready, deadline_s=deadline_s)

    def stop(self) -> None:
        """Ask it to end and wait. Raises TaximeterError (server_failed) when it had to be killed."""
        if self._child is not None:
            self._child.stop(deadline_s=self._stop_deadline_s)

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()


class Supervisor:
    """Starts what has ended, waiting longer each time it ends soon again; never gives up.

    ``tell`` takes a line for the person who watches; ``changed`` is called after a service came back;
    ``longest_delay_s`` is what the intervals grow to.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        tell: Callable[[str], None],
        changed: Callable[[], object],
        longest_delay_s: float = LONGEST_DELAY_S,
    ) -> None:
        self._longest_delay_s = longest_delay_s
        self._services = services
        self._tell = tell
        self._changed = changed
        now = time.monotonic()
        self._started_at = {service.name: now for service in services}
        self._start_at: dict[str, float] = {}
        self._delay_s = {service.name: FIRST_DELAY_S for service in services}

    def check(self) -> None:
        """Look at every service once, and start those whose time has come. Call it a few times a second."""
        for service in self._services:
            if service.pid is None:
                self._restart_when_due(service)

    def _restart_when_due(self, service: Service) -> None:
        now = time.monotonic()
        if service.name not in self._start_at:
            if now - self._started_at[service.name] > HEALTHY_AFTER_S:
                self._delay_s[service.name] = FIRST_DELAY_S
            delay_s = self._delay_s[service.name]
            self._delay_s[service.name] = min(delay_s * 2, self._longest_delay_s)
            self._start_at[service.name] = now + delay_s
            self._tell(f"{service.name} ended; starting it again in {delay_s:g} s")
        if now < self._start_at[service.name]:
            return
        del self._start_at[service.name]
        self._started_at[service.name] = now
        try:
            service.start()
        except TaximeterError as error:
            self._tell(f"{service.name}: {error.message}")
            return
        self._tell(f"{service.name} runs again (process {service.pid})")
        self._changed()


def answers_ready(host: str, port: int) -> bool:
    """Say whether the sidecar at ``host``:``port`` answers 200 to GET /readyz within a second."""
    connection = http.client.HTTPConnection(host, port, timeout=_READY_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
