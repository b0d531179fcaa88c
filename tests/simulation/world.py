"""Virtual time, and the processes that live in it.

One queue of callbacks, ordered by virtual time; the clock jumps to the next one, so nothing ever waits. A callback
belongs to a process: while that is stopped its callbacks wait, after its death they never come. Blocking code runs in
a greenlet of its own and hands over at every call of `World.sleep`.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from greenlet import getcurrent, greenlet

WALL_BASE_S: Final = 1_760_000_000.0  # 2025-10-09T08:53:20Z
STEPS_MAX: Final = 400_000  # of one history: more means that something goes round in circles


class Killed(BaseException):
    """The process that is running was killed; nothing that it does from here on has an effect."""


class Stuck(AssertionError):
    """A history that does not come to an end."""


class Outcome(AbstractContextManager[None]):
    """What came of a function: its result, or whatever it raised."""

    result: Any = None
    error: BaseException | None = None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.error = error
        return True


class Process:
    """Something that can be stopped and killed. `skew_s` is how far its wall clock is ahead."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.stopped = False
        self.skew_s = 0.0
        self.fuse = -1  # after so many calls to the outside `blow` is called
        self.blow: Callable[[], None] = self.kill
        self._held: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._threads: list[greenlet] = []
        self._endings: list[Callable[[], None]] = []

    def wall_s(self) -> float:
        """Returns what this process takes for the time, in seconds since the epoch."""
        return WALL_BASE_S + self.world.now_s + self.skew_s

    def hold(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Keeps a callback that came while the process is stopped."""
        self._held.append((function, arguments))

    def go_on(self) -> None:
        """Ends a stop: what was held comes now, in its order."""
        if self.stopped:
            self.stopped = False
            held, self._held = self._held, []
            for function, arguments in held:
                self.world.soon(self, function, *arguments)

    def run(self, function: Callable[[], Any], ended: Callable[["Outcome"], None]) -> None:
        """Runs blocking code in a thread of its own; `ended` gets what came of it, unless it was killed."""

        def body() -> None:
            outcome = Outcome()
            with outcome:
                outcome.result = function()
            self._threads.remove(thread)
            if not isinstance(outcome.error, Killed):
                ended(outcome)

        thread = greenlet(body)
        self._threads.append(thread)
        thread.switch()

    def burn(self) -> None:
        """Counts a call to the outside."""
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                self.blow()

    def at_end(self, ending: Callable[[], None]) -> None:
        """Has something called when the process dies."""
        self._endings.append(ending)

    def kill(self) -> None:
        """Ends the process: no callback of it comes any more, and whatever its code still tries has no effect."""
        if self.alive:
            self.alive = False
            self._held.clear()
            self.world.soon(None, self._unwind)

    def _unwind(self) -> None:
        for ending in self._endings:
            ending()
        for thread in list(self._threads):
            thread.throw(Killed)


class World:
    """The clock, the queue, the dice. `trace` hears what happens, `counts` says how often each thing did."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.steps = 0
        self.quiet = trace is None
        self._trace = trace
        self._tick = 0
        self._later: list[tuple[float, int, Process | None, Callable[..., Any], tuple[Any, ...]]] = []
        self._soon: deque[tuple[Process | None, Callable[..., Any], tuple[Any, ...]]] = deque()

    def log(self, text: str) -> None:
        """Tells the trace, if somebody listens."""
        if self._trace is not None:
            self._trace(f"{self.now_s:9.4f}  {text}")

    def soon(self, process: Process | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Has a callback made at this moment, behind those that are due already."""
        self._soon.append((process, function, arguments))

    def at(self, when_s: float, process: Process | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Has a callback made at a moment."""
        self._tick += 1
        heapq.heappush(self._later, (when_s, self._tick, process, function, arguments))

    def after(self, delay_s: float, process: Process | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Has a callback made in a while."""
        self.at(self.now_s + delay_s, process, function, *arguments)

    def sleep(self, process: Process, delay_s: float) -> None:
        """Lets others run for a while: for blocking code, inside `Process.run`."""
        process.burn()
        if not process.alive:
            raise Killed
        current = getcurrent()
        self.at(self.now_s + delay_s, process, current.switch)
        current.parent.switch()

    def run(self, until_s: float, done: Callable[[], bool] | None = None) -> None:
        """Lets time pass until a moment, or until `done`."""
        soon, later = self._soon, self._later
        while True:
            while soon:
                process, function, arguments = soon.popleft()
                self._call(process, function, arguments)
            if done is not None and done():
                return
            if not later or later[0][0] > until_s:
                self.now_s = until_s
                return
            when_s, _, process, function, arguments = heapq.heappop(later)
            if when_s > self.now_s:
                self.now_s = when_s
            self._call(process, function, arguments)

    def _call(self, process: Process | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"more than {STEPS_MAX} steps after {self.now_s:.1f} s")
        if process is None:
            function(*arguments)
        elif process.stopped:
            process.hold(function, arguments)
        elif process.alive:
            try:
                function(*arguments)
            except Killed:
                if process.alive:
                    raise
