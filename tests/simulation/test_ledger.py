"""The ledger in memory is held to the one on PostgreSQL: the same operations, the same answers."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from flusher.entry import Entry
from flusher.law import Case, ClaimState, Court, Tally, tally
from flusher.ledger import Advance, Ledger, Mark
from sidecar.contract.asking import Asking, Missing
from sidecar.contract.codec import Position, Running
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.event import Event
from sidecar.contract.meters import Amount, Counter
from sidecar.contract.units import NANO
from tests.contract.values import a_batch, an_event
from tests.simulation.database import Database
from tests.simulation.ledger import MemoryLedger
from tests.simulation.world import Killed, Process, World

SHARDS = 2
NOT_OURS = {"connection"}  # for statements that a flusher of the simulation never makes
SINCE = datetime(2025, 1, 1, tzinfo=UTC)


class Undone(Exception):
    """Takes a transaction back."""


class Both:
    """A ledger on PostgreSQL and one in memory. What is asked of both has to be answered alike."""

    def __init__(self, url: str) -> None:
        self.real = Ledger(url)
        with self.real.transaction():
            self.id = self.real.read().id
        world = World(1)
        self.database = Database(world, self.id, SHARDS)
        self.process = Process(world, "test")
        self.memory = MemoryLedger(self.database, self.process)

    def close(self) -> None:
        self.real.close()

    def do(self, work: Callable[[Ledger], Any]) -> Any:
        """Does something in a transaction on both and returns what the real one answered."""
        real = _outcome(self.real, work)
        found: list[Any] = []
        world = self.process.world
        self.process.run(lambda: _outcome(self.memory, work), lambda outcome: found.append(outcome))
        world.run(world.now_s + 1_000.0, done=lambda: bool(found))
        assert found[0].error is None
        assert found[0].result == real
        return real


def _outcome(ledger: Ledger, work: Callable[[Ledger], Any]) -> Any:
    """Returns what came of a transaction: its answer, or the code of its error."""
    answer: list[Any] = []
    try:
        with ledger.transaction():
            answer.append(work(ledger))
    except TaximeterError as error:
        return error.code
    except Undone:
        return "undone", answer
    return answer[0]


@pytest.fixture
def both(make_database: Callable[..., str]) -> Iterator[Both]:
    made = Both(make_database(shards=SHARDS))
    with closing(made):
        yield made


class Play:
    """What a drain, a registrar and a generation ask of a ledger, in any order."""

    def __init__(self, both: Both, rng: Random) -> None:
        self.both = both
        self.rng = rng
        self.producers: list[str] = []
        self.sequence = 0

    def _position(self) -> Position:
        self.sequence += 1
        return Position(self.sequence, self.rng.randbytes(16))

    def _counters(self, shard: int) -> dict[Counter, Amount]:
        return {
            Counter(
                f"cus_{shard}_{self.rng.randint(0, 2)}", "calls", 1_955_000 + self.rng.randint(0, 200), "{}"
            ): Amount(self.rng.choice([NANO, 5, -NANO]), 1)
            for _ in range(self.rng.randint(0, 4))
        }

    def register(self) -> None:
        name = self.rng.choice([*self.producers, f"producer-{len(self.producers)}"])
        asking = Asking("host", self.both.id, tuple(self.producers[:2]), watermark_us=self.rng.choice([None, 5]))
        zeros = [Position(0, self.rng.randbytes(16)) for _ in range(SHARDS)]
        self.both.do(lambda ledger: ledger.register(name, asking, zeros))
        if name not in self.producers:
            self.producers.append(name)

    def let_go(self) -> None:
        if self.producers:
            name = self.rng.choice(self.producers)
            self.both.do(lambda ledger: ledger.let_go(name))
            self.both.do(lambda ledger: sorted(ledger.quiet_predecessors(-1_000_000_000)))

    def missing(self) -> None:
        if self.producers:
            name, last = self.rng.choice(self.producers), self.rng.randint(1, 40)
            gone = Missing(name, self.rng.randrange(SHARDS), 1, last, self.rng.choice([None, 30]), "ab" * 16)
            self.both.do(lambda ledger: ledger.note_missing(gone))
            self.both.do(lambda ledger: ledger.hole_ends(gone.shard))
            if self.rng.random() < 0.3:
                self.both.do(lambda ledger: ledger.fill_hole(gone.producer, gone.shard, last))

    def drain(self) -> None:
        """Inserts, claims, counts and advances, as one transaction that may be undone in the end."""
        rng, shard = self.rng, self.rng.randrange(SHARDS)
        producer = rng.choice(self.producers) if self.producers else "nobody"
        events = [self._event() for _ in range(rng.randint(0, 4))]
        counters, token, undone = self._counters(shard), f"{rng.getrandbits(64):016x}", rng.random() < 0.2
        position, adds_up = self._position(), rng.random() < 0.9

        def work(ledger: Ledger) -> Any:
            held = ledger.lock(shard, wait=False)
            mark = ledger.marks(shard).get(producer)
            there = ledger.insert(shard, [case := _case(producer, position, events)])
            court = Court({}, cases=[case])
            court.settle(there)
            tallies: dict[str, Tally] = {}
            tally([case], tallies)
            if mark is not None:
                nanos = sum(event.nanos for event in events)
                running = Running(mark.running.events + len(events), mark.running.nanos + nanos + (not adds_up))
                ledger.advance(
                    shard, [Advance(producer, Mark(position, running), tallies[producer], position.sequence)]
                )
            ledger.add_usage(shard, counters)
            ledger.store_token(shard, token)
            if undone:
                raise Undone
            return held and "held", there, sorted(ledger.totals(counters).items())

        self.both.do(work)

    def _event(self) -> Event:
        name = f"e-{self.rng.randint(0, 9)}"
        return an_event(name, nanos=self.rng.choice([1, NANO]), time_us=1_760_000_000_000_000)

    def claim(self) -> None:
        key, undone = bytes([self.rng.randint(0, 5)]) * 16, self.rng.random() < 0.2
        covered = self.rng.choice([None, {0}, {0, 1, 5}])

        def work(ledger: Ledger) -> Any:
            before = ledger.claims([key])
            if key not in before:
                ledger.store_claims({key: ClaimState(key, covered, 7, set(covered or ()) - {0})})
            elif before[key].covered is not None:
                ledger.store_claims({key: ClaimState(key, {*(before[key].covered or ()), 9}, 8)})
            with ledger.savepoint(undo=undone):
                ledger.store_claims({b"s" * 16: ClaimState(key, {1}, 7)})
            return ledger.claims([key, b"s" * 16, b"n" * 16])

        self.both.do(work)

    def look(self) -> None:
        for shard in range(SHARDS):
            self._look_at(shard)
        self.both.do(lambda ledger: (ledger.revisions(), ledger.users_of_other_customers(), ledger.read().shards))

    def _look_at(self, shard: int) -> None:
        self.both.do(lambda ledger: sorted(ledger.open_positions(shard)))
        self.both.do(lambda ledger: sorted(ledger.marks(shard)))
        self.both.do(lambda ledger: _days(ledger, shard))
        self.both.do(lambda ledger: [ledger.position(name, shard) for name in self.producers])


def _days(ledger: Ledger, shard: int) -> Sequence[Any]:
    return sorted((day.user_id, day.day, day.fields) for days in ledger.each_day(shard, SINCE) for day in days)


def _case(producer: str, position: Position, events: Sequence[Event]) -> Case:
    duplicates = (len(events) - 1,) if len(events) > 2 else ()  # whatever Redis says
    return Case(Entry("1-1", producer, position, position, Running(0, 0), duplicates, (), b""), a_batch(events))


@pytest.mark.parametrize("seed", range(4))
def test_any_operations_are_answered_as_by_postgres(both: Both, seed: int) -> None:
    rng = Random(seed)
    play = Play(both, rng)
    play.register()
    for _ in range(40):
        rng.choice([play.register, play.drain, play.drain, play.claim, play.let_go, play.missing, play.look])()
    play.look()


def test_every_method_of_the_ledger_is_here_with_the_same_parameters() -> None:
    ours = [kind for kind in MemoryLedger.__mro__ if not issubclass(Ledger, kind)]
    for name, method in inspect.getmembers(Ledger):
        if name.startswith("_") or name in NOT_OURS:
            continue
        mine = inspect.getattr_static(MemoryLedger, name)
        assert any(name in vars(kind) for kind in ours), f"{name} would ask a PostgreSQL that is not there"
        assert inspect.signature(mine) == inspect.signature(method), name


def test_a_shard_that_is_held_is_left_or_waited_for() -> None:
    # given a transaction that holds a shard
    world = World(1)
    database = Database(world, "ledger-0001", 1)
    first, second = Process(world, "first"), Process(world, "second")
    seen: list[Any] = []

    def hold() -> None:
        ledger = MemoryLedger(database, first)
        with ledger.transaction():
            seen.append(("first", ledger.lock(0, wait=False)))
            world.sleep(first, 5.0)

    def ask() -> None:
        ledger = MemoryLedger(database, second)
        with ledger.transaction():
            seen.append(("second", ledger.lock(0, wait=False)))
        with ledger.transaction():
            seen.append(("second", ledger.lock(0, wait=True), world.now_s > 5.0))

    first.run(hold, lambda _: None)
    world.after(1.0, second, second.run, ask, lambda _: None)
    world.run(20.0)
    # then another one goes without it, or waits for it
    assert seen == [("first", "new"), ("second", None), ("second", "new", True)]


def test_what_a_killed_process_had_not_committed_is_undone() -> None:
    # given a process that is killed inside a transaction
    world = World(1)
    database = Database(world, "ledger-0001", 1)
    process = Process(world, "doomed")
    endings: list[BaseException] = []

    def work() -> None:
        ledger = MemoryLedger(database, process)
        try:
            with ledger.transaction():
                ledger.lock(0, wait=False)
                ledger.store_token(0, "never")
                world.sleep(process, 100.0)
        except Killed as error:
            endings.append(error)
            raise

    process.run(work, lambda _: None)
    world.at(1.0, None, process.kill)
    world.run(10.0)
    # then nothing of it is there, and the shard is free
    assert len(endings) == 1
    assert database.tables["shards"][0,] == "new"
    other = Process(world, "other")
    tokens: list[str | None] = []

    def look() -> None:
        ledger = MemoryLedger(database, other)
        with ledger.transaction():
            tokens.append(ledger.lock(0, wait=False))

    other.run(look, lambda _: None)
    world.run(20.0)
    assert tokens == ["new"]


def test_a_failover_takes_the_last_commits_back() -> None:
    # given commits over some time
    world = World(1)
    database = Database(world, "ledger-0001", 1)
    process = Process(world, "flusher")
    errors: list[str] = []

    def work() -> None:
        ledger = MemoryLedger(database, process)
        for number in range(5):
            with ledger.transaction():
                ledger.store_token(0, f"token-{number}")
            world.sleep(process, 1.0)
        try:
            with ledger.transaction():
                ledger.token(0)
        except TryAgainError as error:
            errors.append(error.code)

    process.run(work, lambda _: None)
    world.at(4.9, None, database.fail_over, 2.5)
    world.run(30.0)
    # then the standby has the first ones, and the session is gone
    assert database.tables["shards"][0,] == "token-2"
    assert errors == ["database_unavailable"]
