"""An asyncio event loop of one process in the virtual world: its clock is the world's, its threads are greenlets."""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Self, TypeVar, TypeVarTuple

from tests.simulation.world import Killed, Outcome, Process

Result = TypeVar("Result")
Values = TypeVarTuple("Values")
ENDING_STEPS_MAX = 10_000


class HostLoop(asyncio.AbstractEventLoop):
    """What asyncio needs of a loop, and no more: no sockets, no signals, no subprocesses."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.problems: list[str] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their making
        process.at_end(self._end)

    @classmethod
    def of(cls, process: Process) -> Self:
        """Returns the loop of a process."""
        return cls(process)  # what is missing of a loop is never asked for

    # -- scheduling

    def time(self) -> float:
        return self.process.world.now_s

    def call_soon(
        self, callback: Callable[[*Values], object], *args: *Values, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        self.process.world.soon(self.process, self._run_one)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Values], object], *args: *Values, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Values], object], *args: *Values, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.process.world.at(when, self.process, self._run, timer)
        return timer

    def _run_one(self) -> None:
        if self._ready:
            self._run(self._ready.popleft())

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Values], Result], *args: *Values
    ) -> asyncio.Future[Result]:
        """Runs blocking code in a greenlet, a moment later."""
        future: asyncio.Future[Result] = self.create_future()
        world = self.process.world

        def ended(outcome: Outcome) -> None:
            if future.done():
                return
            if outcome.error is None:
                future.set_result(outcome.result)
            else:
                future.set_exception(outcome.error)

        world.after(world.rng.uniform(0.0, 0.002), self.process, lambda: self.process.run(lambda: func(*args), ended))
        return future

    # -- futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        return task

    def inside(self, function: Callable[[], Result]) -> Result:
        """Calls something as if a callback of the loop did."""
        events._set_running_loop(self)
        try:
            return function()
        finally:
            events._set_running_loop(None)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task from outside."""
        return self.inside(lambda: self.create_task(work))

    def _end(self) -> None:
        """The process was killed: its coroutines are unwound now, and whatever they try has no effect."""
        for task in list(self._tasks):
            task.cancel()
        steps = 0
        while self._ready and steps < ENDING_STEPS_MAX:
            steps += 1
            self._run(self._ready.popleft())
        self._ready.clear()

    # -- what asyncio asks

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its time comes."""

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.process.alive

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.process.alive and not isinstance(context.get("exception"), Killed):
            self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")
