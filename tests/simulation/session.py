"""Sessions and transactions of the ledger in memory: each statement lets others run, and may find the session gone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from flusher.ledger import Ledger, Result
from flusher.revisions import Revisions
from sidecar.contract.codes import TryAgainError
from tests.simulation.database import Database, Session, Transaction
from tests.simulation.world import Killed, Process

LATENCY_S: Final = (0.0002, 0.003)
LOCK_TIMEOUT_S: Final = 100.0
LOCK_POLL_S: Final = 0.02


class LedgerSession(Ledger):
    """A session of a process with the in-memory Postgres."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self._process = process
        self._revisions = Revisions(self.revisions)
        self._session = Session(database, process)

    def _statement(self) -> Session:
        """Lets others run, and fails when the server or the session is gone."""
        world = self._database.world
        world.sleep(self._process, world.rng.uniform(*LATENCY_S))
        return self._alive()

    def _alive(self) -> Session:
        """Fails when the server or the session is gone."""
        database, world = self._database, self._database.world
        if not self._process.alive:
            raise Killed
        if database.drop and world.rng.random() < database.drop:
            world.counts["postgres: session broken"] += 1
            self._session.end()
        if database.down:
            self._session.end()
        if not self._session.open:
            raise TryAgainError("database_unavailable", "PostgreSQL: the connection is gone")
        return self._session

    def close(self) -> None:
        """Ends the session."""
        self._session.end()

    def reconnect(self) -> None:
        """Connects anew if the session is gone."""
        if not self._session.open:
            if self._database.down:
                raise TryAgainError("database_unavailable", "PostgreSQL does not answer")
            self._session = Session(self._database, self._process)

    def start(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Does it at once: whoever else is under way runs at each of its statements."""
        result = work()
        return lambda: result

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits what happens inside, or nothing of it."""
        session = self._alive()
        session.transaction = Transaction()
        try:
            yield
        except BaseException:
            if self._process.alive:
                session.transaction = None
                self._database.release(session)
            raise
        self._commit(session)

    def _commit(self, session: Session) -> None:
        database, world = self._database, self._database.world
        self._statement()
        lost = database.lose_commits and world.rng.random() < database.lose_commits
        if lost and world.rng.random() < 0.5:
            world.counts["postgres: commit lost"] += 1
            session.end()
            raise TryAgainError("database_unavailable", "PostgreSQL: the commit was lost")
        if session.transaction is not None:
            transaction, session.transaction = session.transaction, None
            database.commit(session, transaction)
        world.sleep(self._process, world.rng.uniform(*LATENCY_S))
        if lost:
            world.counts["postgres: commit's reply lost"] += 1
            session.end()
            raise TryAgainError("database_unavailable", "PostgreSQL: the reply to the commit was lost")

    @contextmanager
    def savepoint(self, *, undo: bool = False) -> Iterator[None]:
        """Keeps what happens inside, unless it fails or `undo`."""
        session = self._statement()
        mark = len(session.transaction.log) if session.transaction is not None else 0
        try:
            yield
        except BaseException:
            session.undo_to(mark)
            raise
        if undo:
            session.undo_to(mark)

    def _hold(self, what: Any, *, wait: bool) -> bool:
        """Locks something until the transaction ends; False where another one has it and not `wait`."""
        session, world = self._statement(), self._database.world
        deadline_s = world.now_s + LOCK_TIMEOUT_S
        while not self._database.try_hold(what, session):
            if not wait:
                return False
            if world.now_s > deadline_s:
                raise TryAgainError("database_unavailable", "PostgreSQL: lock timeout")
            world.sleep(self._process, LOCK_POLL_S)
            if not session.open:
                raise TryAgainError("database_unavailable", "PostgreSQL: the connection is gone")
        return True
