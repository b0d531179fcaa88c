"""One history: a seed makes machines, clients and faults; then all heals, it drains, and the oracle judges."""

import logging
import secrets
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from sidecar import chain, segment
from tests.simulation.clients import Clients
from tests.simulation.database import Database
from tests.simulation.faults import PROFILES, Faults
from tests.simulation.machines import FlusherHost, Limits, SidecarHost
from tests.simulation.mini_redis import MiniRedis
from tests.simulation.network import RedisNet
from tests.simulation.oracle import Oracle
from tests.simulation.world import WALL_BASE_S, Stuck, World

HEAL_S: Final = 40.0
PROBLEMS_MAX: Final = 6  # that a report lists
METERS: Final = (
    '[{"name":"api_call","event_type":"api_call"},{"name":"calls","event_type":"api_call","aggregation":"count"}]'
)
DETAILED: Final = METERS.replace('"count"', '"count","detailed":true')  # its events are kept one by one


@dataclass
class Outcome:
    """What came of a history."""

    seed: int
    profile: str
    problems: list[str]
    faults: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    events: int = 0
    counted: int = 0

    def report(self) -> str:
        """Returns what a person needs to go on."""
        problems = "\n  ".join([*dict.fromkeys(self.problems)][:PROBLEMS_MAX])
        return (
            f"history {self.seed} ({self.profile}) went wrong:\n  {problems}\nfaults: {', '.join(self.faults)}\n"
            f"replay: python -m tests.simulation {self.seed} --profile {self.profile} --trace"
        )


@contextmanager
def _seeded(world: World, oracle: Callable[[], Oracle]) -> Iterator[None]:
    """Makes what is random in the product come from the seed, and lets the oracle see every step of a chain."""
    link = segment.link

    def noted(start: Any, record: bytes, events: int, nanos: int) -> Any:
        oracle().links.note(start.position, record)
        return link(start, record, events, nanos)

    def hexadecimal(count: int) -> str:
        return world.rng.randbytes(count).hex()

    def urlsafe(count: int) -> str:
        return urlsafe_b64encode(world.rng.randbytes(count)).decode().rstrip("=")

    before = logging.root.manager.disable
    if world.quiet:
        logging.disable(logging.CRITICAL)
    with (
        patch.object(secrets, "token_hex", hexadecimal),
        patch.object(secrets, "token_urlsafe", urlsafe),
        patch.object(segment, "link", noted),
        patch.object(chain, "link", noted),
    ):
        try:
            yield
        finally:
            logging.disable(before)


class History:
    """A seed's world."""

    def __init__(
        self,
        seed: int,
        *,
        profile: str | None = None,
        kinds: Sequence[str] = (),
        trace: Callable[[str], None] | None = None,
    ) -> None:
        """Makes the world of a seed. `kinds` are the faults that may happen, by default those of the profile."""
        self.seed = seed
        self.world = World(seed, trace)
        rng = self.world.rng
        drawn = rng.choice(list(PROFILES))  # always: a replay that names the profile throws the same dice
        self.profile = profile or drawn
        self.shards = rng.choice((1, 1, 2, 3))
        self.duration_s = rng.uniform(2.5, 6.0)
        self.server = MiniRedis(lambda: WALL_BASE_S + self.world.now_s)
        self.net = RedisNet(self.world, self.server)
        self.database = Database(self.world, "ledger-0001", self.shards)
        self.sidecars: list[SidecarHost] = []
        self.flushers: list[FlusherHost] = []
        hold_s = 30.0 if self.profile == "failover" else rng.choice((0.5, 2.0, 30.0))
        full = rng.random() < 0.15 and self.profile != "failover"
        self._limits = Limits(4_000 if full else 1 << 20, rng.choice((300, 1_000, 4_000)), hold_s)
        self._interval_s = rng.choice((0.2, 0.5, 1.0))
        for _ in range(rng.choice((1, 2, 2, 3)) + (self.profile == "machine")):
            self.sidecars.append(self._make_sidecar())
        self.clients = Clients(self.world, self.sidecars, self.shards)
        self.oracle = Oracle(self.world, self.database, self.server, self.clients)
        for sidecar in self.sidecars:
            self._watch(sidecar)
        self.database.committed = self.oracle.committed
        self.server.giving_up = self.oracle.giving_up
        for _ in range(rng.choice((1, 1, 2))):
            self.flushers.append(self._make_flusher())
        self.faults = Faults(
            self.world, self.net, self.database, self.oracle, self.sidecars, self.flushers, self._make_flusher,
            lambda: self._watch(self._make_sidecar()),
        )  # fmt: skip
        self.planned = sorted(
            (rng.uniform(0.2, self.duration_s), rng.choice(kinds or PROFILES[self.profile]))
            for _ in range(rng.randint(1, 7))
        )

    def _make_sidecar(self) -> SidecarHost:
        return SidecarHost(self.world, self.net, f"sidecar-{len(self.sidecars)}", self._limits)

    def _watch(self, sidecar: SidecarHost) -> SidecarHost:
        sidecar.platter.removing = lambda path, content: self.oracle.removing(sidecar, path, content)
        sidecar.succeeding = lambda: self.oracle.answered(sidecar)
        return sidecar

    def _make_flusher(self) -> FlusherHost:
        return FlusherHost(self.world, self.net, self.database, f"flusher-{len(self.flushers)}", self._interval_s)

    def run(self) -> Outcome:
        """Lets it happen and returns what came of it."""
        with _seeded(self.world, lambda: self.oracle):
            try:
                self._run()
            except Stuck as error:
                self.oracle.violation(str(error))
        counted = len(self.database.tables["events"])
        names = [name for _, name in self.planned]
        problems = self.oracle.problems
        return Outcome(self.seed, self.profile, problems, names, self.world.counts, len(self.clients.payloads), counted)

    def _run(self) -> None:
        world, rng = self.world, self.world.rng
        world.log(f"profile {self.profile}, {self.shards} shards, faults {self.planned}, {self._limits}")
        for machine in self.faults.machines:
            world.at(rng.uniform(0.0, 0.3), None, machine.start)
        for _ in range(rng.randint(8, 25)):
            world.at(rng.uniform(0.3, self.duration_s), None, self.clients.new_request)
        for at_s, kind in self.planned:
            self.faults.plan(kind, at_s)
        if rng.random() < 0.3:
            world.at(rng.uniform(0.2, self.duration_s), None, self._change_meters)
        world.run(self.duration_s)
        world.log("everything heals")
        self.faults.heal()
        self._wait_until_drained()
        self.oracle.finish(self.sidecars)
        for flusher in self.flushers:
            for problem in flusher.problems:
                self.oracle.violation(problem)
        for machine in self.faults.machines:
            machine.process.kill()
        world.run(world.now_s)
        world.log(f"the dice end at {rng.random()}")

    def _change_meters(self) -> None:
        self.database.tables["revisions"][1,] = DETAILED if self.seed % 2 else METERS

    def _wait_until_drained(self) -> None:
        deadline_s = self.world.now_s + HEAL_S
        while self.world.now_s < deadline_s:
            self.world.run(self.world.now_s + self.world.rng.uniform(0.3, 0.7))
            for machine in self.faults.machines:
                machine.start()  # what a supervisor does
            if self._waits_for() is None:
                return
        self.oracle.violation(f"not drained {HEAL_S} s after everything healed: {self._waits_for()}")

    def _waits_for(self) -> str | None:
        """Returns what is not done yet."""
        if self.clients.open:
            return f"{self.clients.open} requests are under way"
        positions = {key: row.position for key, row in self.database.tables["positions"].items()}
        for host in self.sidecars:
            if not host.settled():
                unready = host.ingest.unready() if host.ingest else host.refused
                return f"{host.name} is not settled: {unready}"
            ingest = host.ingest
            if host.lost or ingest is None or ingest.journal.manifest is None:
                continue
            for shard in ingest.journal.shards:
                if positions.get((ingest.journal.manifest.producer, shard.shard)) != shard.head.position:
                    return f"Postgres is not at the head of {host.name}, shard {shard.shard}"
        for number in range(self.shards):
            state = self.server.data.get(b"{t1:%d}" % number, {})
            token = self.database.tables["shards"][number,]
            if b"sealed" in state or b"fence" in state or state.get(b"token") != token.encode():
                return f"shard {number} is not published: {state}"
            stem = b"{t1:%d}%s:" % (number, state[b"generation"])
            if self.server.data.get(stem + b"stream"):
                return f"shard {number} has an open epoch"
        return None
