"""The programs as the simulation runs them: sidecars on their disks, and flushers. Both run the product's own code."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import RLock
from typing import Final, NamedTuple, cast

from greenlet import getcurrent

from flusher.clock import Clock
from flusher.nodes import Nodes
from flusher.source import Source
from flusher.summed import KeyedRows
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.event import Event
from sidecar.errors import JournalError
from sidecar.ingest import Ingest, Receipt
from sidecar.journal import Journal
from sidecar.link import RedisServer
from tests.contract.values import shares
from tests.simulation.database import Database
from tests.simulation.disk import MemoryDisk, Platter
from tests.simulation.ledger import MemoryLedger
from tests.simulation.loop import HostLoop
from tests.simulation.network import BlockingClient, RedisNet, SidecarRedis
from tests.simulation.world import Outcome, Process, World

DIRECTORY: Final = Path("journal")
RESTART_S: Final = (0.05, 1.0)
WATERMARK_S: Final = 1.5


class Limits(NamedTuple):
    """What a history's sidecars are set to."""

    journal_bytes_max: int
    segment_bytes: int
    hold_s: float


class DepthLock(AbstractContextManager[None]):
    """The journal's lock: threads hand over only where it is not held, so nobody ever waits for it."""

    held = 0

    def __enter__(self) -> None:
        self.held += 1

    def __exit__(self, *_: object) -> None:
        self.held -= 1


class SidecarHost:
    """A machine with a disk, on which a sidecar runs, dies and is started again."""

    def __init__(self, world: World, net: RedisNet, name: str, limits: Limits) -> None:
        self.world = world
        self.name = name
        self.limits = limits
        self.platter = Platter(world.rng)
        self.process = Process(world, name)
        self.process.alive = False
        self.ingest: Ingest | None = None
        self.refused: JournalError | None = None
        self.succeeding: Callable[[], None] = lambda: None  # a request is answered with success
        self.lost = False  # the machine never comes back
        self.skew_s = 0.0
        self._net = net
        self._loop: HostLoop | None = None
        self._lock = DepthLock()

    def start(self) -> None:
        """Starts the program, unless it runs."""
        if self.process.alive or self.lost:
            return
        self.process = Process(self.world, self.name)
        self.process.skew_s = self.skew_s
        self.process.at_end(lambda: self.world.log(f"{self.name} is dead"))
        self.ingest = None
        self._lock = DepthLock()
        self._loop = HostLoop.of(self.process)
        self._loop.begin(self._main())

    async def _main(self) -> None:
        process = self.process
        disk = MemoryDisk(self.platter, process, self._hand_over)
        limits = self.limits
        try:
            journal = Journal(
                DIRECTORY, bytes_max=limits.journal_bytes_max, segment_bytes=limits.segment_bytes, disk=disk
            )
            ingest = Ingest(
                cast("RedisServer", SidecarRedis(self._net, process)),
                journal,
                ack_deadline_s=1.0,
                dedupe_ttl_s=3600,
                hold_s=limits.hold_s,
                watermark_interval_s=WATERMARK_S,
                wall_us=lambda: int(process.wall_s() * 1_000_000),
            )
        except JournalError as error:
            self.refused = error
            self.world.log(f"{self.name} does not start: {error}")
            process.kill()
        except OSError as error:
            self.world.log(f"{self.name} can't start: {error}")
            process.kill()
        else:
            journal.lock = cast("RLock", self._lock)
            ingest.start()
            self.ingest = ingest
            self.world.log(f"{self.name} starts")

    def _hand_over(self) -> None:
        """Lets others run while a sync takes its time, where the journal's lock is not held."""
        if self.ingest is not None and getcurrent().parent is not None and not self._lock.held:
            self.world.sleep(self.process, self.world.rng.uniform(0.0, 0.01))

    def stop(self, ended: Callable[[], None]) -> None:
        """Stops the program gracefully."""
        ingest, loop, process = self.ingest, self._loop, self.process
        if ingest is None or loop is None or not process.alive:
            ended()
            return

        async def leave() -> None:
            await ingest.stop(leave=True)
            process.kill()
            ended()

        loop.begin(leave())

    def submit(
        self,
        make: Callable[[int], list[Event]],
        key: str | None,
        digest: bytes | None,
        answered: Callable[[Receipt | TaximeterError | None], None],
    ) -> None:
        """Brings a request to the sidecar. The answer is None when nobody knows what became of it."""
        ingest, loop, process = self.ingest, self._loop, self.process
        if ingest is None or loop is None or not process.alive:
            answered(None)
            return

        async def handle() -> Receipt:
            assigned_us = ingest.now_us()
            events = shares(make(assigned_us), len(ingest.lanes) or 1, key)
            return await ingest.submit(events, key, digest, assigned_us)

        def done(task: asyncio.Task[Receipt]) -> None:
            if not process.alive or task.cancelled():
                answered(None)
                return
            error = task.exception()
            if error is None:
                self.succeeding()
                answered(task.result())
            elif isinstance(error, TaximeterError):
                answered(error)
            else:
                loop.problems.append(f"a request failed: {error!r}")
                answered(None)

        loop.begin(handle()).add_done_callback(done)

    @property
    def problems(self) -> list[str]:
        """What went wrong inside that nobody caught."""
        return self._loop.problems if self._loop is not None else []

    def settled(self) -> bool:
        """Returns whether it runs, and Redis has all that its journal has."""
        ingest = self.ingest
        return self.lost or (
            self.process.alive
            and ingest is not None
            and ingest.unready() is None
            and all(lane.idle for lane in ingest.lanes)
            and all(sender.drained for sender in ingest.senders)
        )


class SimClock(Clock):
    """The clock of a process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def wall_s(self) -> float:
        return self._process.wall_s()

    def monotonic_s(self) -> float:
        return self._process.world.now_s


class FlusherHost:
    """A machine on which a flusher runs, dies and is started again."""

    def __init__(self, world: World, net: RedisNet, database: Database, name: str, interval_s: float) -> None:
        self.world = world
        self.name = name
        self.interval_s = interval_s
        self.process = Process(world, name)
        self.process.alive = False
        self.problems: list[str] = []
        self.starts = 0
        self._net = net
        self._database = database

    def start(self) -> None:
        """Starts the program, unless it runs."""
        if not self.process.alive:
            self.process = Process(self.world, self.name)
            self.process.at_end(lambda: self.world.log(f"{self.name} is dead"))
            self.world.log(f"{self.name} starts")
            self.world.soon(self.process, self.process.run, self._main, self._ended)

    def _main(self) -> None:
        process = self.process
        while True:
            try:
                source = Source(cast("Nodes", BlockingClient(self._net, process)))
                ledger = MemoryLedger(self._database, process)
                self.starts += 1  # nothing may hang on who has which setting
                keyed_rows = tuple(KeyedRows)[(self.starts + ord(self.name[-1])) % len(KeyedRows)]
                worker = Worker(source, ledger, clock=SimClock(process), keyed_rows=keyed_rows)
            except TryAgainError:
                self.world.sleep(process, 0.5)
            else:
                worker.run(self.interval_s, self._stopped)

    def _stopped(self, seconds: float) -> bool:
        self.world.sleep(self.process, seconds)
        return False

    def _ended(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.problems.append(f"{self.name} failed: {outcome.error!r}")
        self.process.kill()
