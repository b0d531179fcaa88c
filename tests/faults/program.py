"""`python -m tests.faults.program sidecar|flusher`: one of our programs, with traps at its named points.

The directory in FAULTS_CONTROL says what to do, and may change while the program runs:

| file    | holds                                                                                          |
| ------- | ---------------------------------------------------------------------------------------------- |
| `trap`  | one trap as JSON: `point`, `moment` (before, after), `act` (kill, stop, raise), `nth` hit      |
| `fired` | the trap that was sprung, with `numbers`, those among the arguments; written before it is done  |
| `clock` | seconds by which this program's clock is wrong                                                 |

FAULTS_BUGS names planted bugs, with commas between them; see `tests/faults/bugs.py`.
"""

import errno
import faulthandler
import functools
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, cast

from sidecar.contract.codes import TryAgainError
from sidecar.errors import Unavailable
from tests.faults.points import POINTS, Error, Moment, Point


def _of_postgres() -> Exception:
    return cast("Exception", import_module("psycopg").OperationalError("the connection was lost, says the trap"))


ERRORS: dict[Error, Callable[[], Exception]] = {
    "connection": lambda: ConnectionResetError("the connection was lost, says the trap"),
    "redis": lambda: TryAgainError("redis_unavailable", "the connection was lost, says the trap"),
    "postgres": _of_postgres,  # a sidecar does without its driver
    "disk": lambda: OSError(errno.ENOSPC, "the disk is full, says the trap"),
    "sync": lambda: OSError(errno.EIO, "the disk is broken, says the trap"),
    "full": lambda: Unavailable("journal_full", "the disk is full, says the trap", 1),
}


class Traps:
    """Reads what is to be done from the control directory, and does it."""

    def __init__(self, control: Path) -> None:
        self._trap = control / "trap"
        self._fired = control / "fired"
        self._lock = threading.Lock()
        self._seen_ns = 0
        self._set: dict[str, Any] = {}

    def hit(self, name: str, moment: Moment, error: Callable[[], Exception], arguments: tuple[Any, ...] = ()) -> None:
        """Springs the trap if it is set here. Raises the error if that is what it says."""
        with self._lock:
            if not self._is_due(name, moment):
                return
            numbers = [argument for argument in arguments if isinstance(argument, int)]
            fresh = self._fired.with_suffix(".new")
            fresh.write_text(json.dumps({**self._set, "numbers": numbers}))
            fresh.rename(self._fired)
            self._trap.unlink()
        act = self._set["act"]
        if act == "raise":
            raise error()
        os.kill(os.getpid(), signal.SIGKILL if act == "kill" else signal.SIGSTOP)

    def _is_due(self, name: str, moment: Moment) -> bool:
        try:
            changed_ns = self._trap.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if changed_ns != self._seen_ns:
            self._set = json.loads(self._trap.read_text())
            self._seen_ns = changed_ns
        if (self._set["point"], self._set["moment"]) != (name, moment):
            return False
        self._set["nth"] -= 1
        return bool(self._set["nth"] == 0)


def replace(owner: Any, name: str, value: Any) -> None:
    """Puts something else in the place of a function."""
    setattr(owner, name, value)


def find(point: Point) -> tuple[Any, str, Any]:
    """Returns where the function of a point is kept, its name there, and the function itself as it is kept.

    Raises AttributeError where there is none.
    """
    owner: Any = import_module(point.module)
    *path, name = point.attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    if inspect.isclass(owner):
        if name not in vars(owner):
            raise AttributeError(f"{point.module}.{point.attribute} is no function of the product")
        return owner, name, vars(owner)[name]
    return owner, name, getattr(owner, name)


def _is_called_by(caller: str | None, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename == __file__:  # several points may stand on one function
        frame = frame.f_back
    return caller is None or (frame is not None and frame.f_code.co_name == caller)


def _wrapped(function: Callable[..., Any], name: str, point: Point, traps: Traps) -> Callable[..., Any]:
    """Returns the function with a trap before it and one after it, whatever kind of function it is."""
    error = ERRORS[point.error]

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(call)

    if inspect.iscoroutinefunction(function):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            traps.hit(name, "before", error)
            result = await function(*args, **kwargs)
            traps.hit(name, "after", error)
            return result

        return around(awaited)
    if inspect.isgeneratorfunction(function):

        def generated(*args: Any, **kwargs: Any) -> Iterator[Any]:
            traps.hit(name, "before", error)
            yield from function(*args, **kwargs)
            traps.hit(name, "after", error)

        return around(generated)
    if inspect.isgeneratorfunction(inspect.unwrap(function)):
        return around(_committing(function, name, point, traps))

    def called(*args: Any, **kwargs: Any) -> Any:
        if not _is_called_by(point.caller, sys._getframe(1)):
            return function(*args, **kwargs)
        traps.hit(name, "before", error, args)
        result = function(*args, **kwargs)
        traps.hit(name, "after", error)
        return result

    return around(called)


def _committing(function: Callable[..., Any], name: str, point: Point, traps: Traps) -> Callable[..., Any]:
    """Returns a context manager with a trap before what it does at its end (a COMMIT), and one after that."""

    def lost() -> Exception:
        return TryAgainError("database_unavailable", "the reply to COMMIT was lost, says the trap")

    def entered(*args: Any, **kwargs: Any) -> Any:
        if not _is_called_by(point.caller, sys._getframe(1)):
            return function(*args, **kwargs)

        @contextmanager
        def trapped() -> Iterator[Any]:
            with function(*args, **kwargs) as value:
                yield value
                traps.hit(name, "before", ERRORS[point.error])
            traps.hit(name, "after", lost)

        return trapped()

    return entered


def set_traps(program: str, control: Path) -> None:
    """Wraps every named point of a program."""
    traps = Traps(control)
    for name, point in POINTS[program].items():
        owner, attribute, kept = find(point)
        if isinstance(kept, classmethod):
            replace(owner, attribute, classmethod(_wrapped(kept.__func__, name, point, traps)))
        else:
            replace(owner, attribute, _wrapped(kept, name, point, traps))


def bend_clock(control: Path) -> None:
    """Lets `time.time` and `time.time_ns` be wrong by what the file `clock` says at that moment."""
    path = control / "clock"
    seen: tuple[int, int] = (0, 0)  # when the file changed, and what it says, in nanoseconds
    true_ns = time.time_ns

    def time_ns() -> int:
        nonlocal seen
        try:
            changed_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            return true_ns()
        if changed_ns != seen[0]:
            seen = (changed_ns, int(float(path.read_text() or "0") * 1e9))
        return true_ns() + seen[1]

    replace(time, "time_ns", time_ns)
    replace(time, "time", lambda: time_ns() / 1e9)


def main() -> int:
    """Runs the program that the first argument names, as its environment says."""
    program = sys.argv.pop(1)
    faulthandler.register(signal.SIGUSR1)  # where it stands goes to its log
    control = Path(os.environ["FAULTS_CONTROL"])
    bend_clock(control)
    if planted := os.environ.get("FAULTS_BUGS"):
        import_module("tests.faults.bugs").plant(planted.split(","))
    set_traps(program, control)
    if program == "sidecar":
        from sidecar.__main__ import main as run_sidecar

        return run_sidecar()
    from flusher.cli.main import main as run_command

    return run_command(["flusher"])


if __name__ == "__main__":
    sys.exit(main())
