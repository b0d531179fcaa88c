"""A Postgres in memory, as far as the drain needs one: tables, transactions, the lock of a shard's row, commits.

Every commit is kept with what it replaced, so that a failover can take the last ones back.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tests.simulation.world import WALL_BASE_S, Process, World

Key = tuple[Any, ...]
TABLES: Final = (
    "ledger", "shards", "producers", "positions", "revisions", "events", "claims", "usage", "event_conflicts",
    "quarantine", "discrepancies", "holes", "voids", "usage_values",
)  # fmt: skip
GONE: Final = object()


class Change(NamedTuple):
    """A row before and after a commit; `GONE` where there is none."""

    table: str
    key: Key
    before: Any
    after: Any


class Commit(NamedTuple):
    """What one transaction changed, and when."""

    at_s: float
    changes: list[Change]


class Transaction:
    """What a session wrote and nobody else sees."""

    def __init__(self) -> None:
        self.writes: dict[tuple[str, Key], Any] = {}
        self.log: list[tuple[tuple[str, Key], Any]] = []  # what each write replaced, for savepoints


class Database:
    """The server. `committed` hears of every commit, before anybody else can see another one."""

    def __init__(self, world: World, ledger: str, shards: int) -> None:
        self.world = world
        self.tables: dict[str, dict[Key, Any]] = {name: {} for name in TABLES}
        self.down = False
        self.lose_commits = 0.0  # chance that the reply to a commit is lost
        self.drop = 0.0  # chance that the connection breaks at a statement
        self.commits: list[Commit] = []
        self.committed: Callable[[Session, Commit], None] = lambda session, commit: None
        self.serial = 0
        self._holders: dict[Any, Session] = {}
        self.sessions: list[Session] = []
        self.tables["ledger"][()] = (ledger, shards)
        self.tables["revisions"][0,] = "[]"
        for shard in range(shards):
            self.tables["shards"][shard,] = "new"

    def now_us(self) -> int:
        """Returns the server's time, microseconds since the epoch."""
        return int((WALL_BASE_S + self.world.now_s) * 1_000_000)

    def next_serial(self) -> int:
        """Returns a number that no row has."""
        self.serial += 1
        return self.serial

    def try_hold(self, what: Any, session: "Session") -> bool:
        """Locks something for a transaction; False while another one has it."""
        holder = self._holders.setdefault(what, session)
        if holder is session and session.transaction is not None:
            session.held_since_s = self.world.now_s
        return holder is session

    def release(self, session: "Session") -> None:
        """Lets go of what a session holds."""
        for what in [what for what, holder in self._holders.items() if holder is session]:
            del self._holders[what]

    def commit(self, session: "Session", transaction: Transaction) -> None:
        """Makes a transaction's writes everybody's."""
        changes = []
        for (table, key), after in transaction.writes.items():
            rows = self.tables[table]
            before = rows.get(key, GONE)
            if after is GONE:
                rows.pop(key, None)
            else:
                rows[key] = after
            changes.append(Change(table, key, before, after))
        self.release(session)
        if changes:
            commit = Commit(self.world.now_s, changes)
            self.commits.append(commit)
            self.committed(session, commit)

    def terminate(self) -> None:
        """Ends every session, and what it had not committed."""
        for session in list(self.sessions):
            session.end()

    def fail_over(self, since_s: float) -> int:
        """Goes on with a standby that lacks the commits since a moment; returns how many those are."""
        self.terminate()
        lost = 0
        while self.commits and self.commits[-1].at_s >= since_s:
            for table, key, before, _ in reversed(self.commits.pop().changes):
                if before is GONE:
                    self.tables[table].pop(key, None)
                else:
                    self.tables[table][key] = before
            lost += 1
        return lost


class Session:
    """One connection. It is gone when `open` is False; its transaction was rolled back then."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.open = True
        self.transaction: Transaction | None = None
        self.held_since_s = 0.0  # when it last locked something
        database.sessions.append(self)
        process.at_end(self._orphaned)

    def _orphaned(self) -> None:
        """The client died: the server notices some time."""
        self.database.world.after(self.database.world.rng.uniform(0.0, 0.5), None, self.end)

    def end(self) -> None:
        """Ends the session; what it had not committed is undone."""
        if self.open:
            self.open = False
            self.transaction = None
            self.database.release(self)
            self.database.sessions.remove(self)

    # -- rows, as the transaction sees them

    def get(self, table: str, key: Key) -> Any:
        """Returns a row, None where there is none."""
        if self.transaction is not None and (table, key) in self.transaction.writes:
            found = self.transaction.writes[table, key]
            return None if found is GONE else found
        return self.database.tables[table].get(key)

    def rows(self, table: str) -> Iterator[tuple[Key, Any]]:
        """Yields keys and rows."""
        writes = self.transaction.writes if self.transaction is not None else {}
        for key, row in list(self.database.tables[table].items()):
            if (table, key) not in writes:
                yield key, row
        for (name, key), row in list(writes.items()):
            if name == table and row is not GONE:
                yield key, row

    def put(self, table: str, key: Key, row: Any) -> None:
        """Writes a row."""
        transaction = self.transaction
        if transaction is None:
            raise RuntimeError("a write outside a transaction")
        place = (table, key)
        transaction.log.append((place, transaction.writes.get(place, _UNTOUCHED)))
        transaction.writes[place] = row

    def undo_to(self, mark: int) -> None:
        """Takes back the writes behind a savepoint."""
        transaction = self.transaction
        if transaction is None:
            return
        while len(transaction.log) > mark:
            place, before = transaction.log.pop()
            if before is _UNTOUCHED:
                del transaction.writes[place]
            else:
                transaction.writes[place] = before


_UNTOUCHED: Final = object()
