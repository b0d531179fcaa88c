"""The parent's hold on a load generator, or an app: a process for each contestant, told when it is its turn."""

import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Final, Self

import msgspec

from flusher.bench.load import TIMEOUT_S, App, Load, Measured, Turn, Wrk
from flusher.embedded.process import die_with_parent
from sidecar.contract.codes import TaximeterError

POLL_S: Final = 0.1


class Driver:
    """A running load generator. Use it as a context; outside of its turns it waits and costs nothing."""

    def __init__(self, load: Load | App | Wrk) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", load.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        self._tell(msgspec.json.encode(load))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def turn(self, turn: Turn, meanwhile: Callable[[], object] | None = None, every_s: float = POLL_S) -> Measured:
        """Send, and return what came of it; `meanwhile` is called every `every_s` seconds.

        Raises TaximeterError `server_failed` when an answer is not what it should be.
        """
        self._tell(msgspec.json.encode(turn))
        output: IO[bytes] = self._output
        ends_at = time.monotonic() + turn.seconds + 2 * TIMEOUT_S
        while not select.select([output], [], [], every_s)[0]:
            if time.monotonic() > ends_at:
                raise TaximeterError("server_failed", "the load generator did not come to an end")
            if meanwhile is not None:
                meanwhile()
        line = output.readline()
        if not line:
            raise TaximeterError("server_failed", "the load generator ended")
        measured = msgspec.json.decode(line, type=Measured)
        if measured.problem:
            raise TaximeterError("server_failed", f"a request of the load went wrong: {measured.problem}")
        return measured

    @property
    def _output(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise ValueError("the process was started without pipes")
        return self._process.stdout

    def _tell(self, line: bytes) -> None:
        if self._process.stdin is None:
            raise ValueError("the process was started without pipes")
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
