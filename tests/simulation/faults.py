"""Everything that goes wrong, one method a kind. `PROFILES` says which kinds may meet in one history.

Two copies of an event are never destroyed together where the promise does not cover it: a journal and Redis, or a
journal and the last commits of Postgres.
"""

from collections.abc import Callable, Sequence
from typing import Final

from tests.simulation.database import Database
from tests.simulation.machines import FlusherHost, SidecarHost
from tests.simulation.network import RedisNet
from tests.simulation.oracle import Oracle
from tests.simulation.world import World

PROGRAMS: Final = (
    "sidecar_killed", "sidecar_killed_at_disk", "sidecar_restarted", "sidecar_stopped", "machine_crashed",
    "flusher_killed", "flusher_killed_at_call", "flusher_stopped_at_call", "flusher_added",
)  # fmt: skip
WAYS: Final = ("redis_flaky", "redis_slow", "redis_down", "redis_unreachable", "redis_restarted", "redis_full")
POSTGRES: Final = ("postgres_down", "postgres_flaky", "postgres_commits_lost", "postgres_terminated")
DISKS: Final = ("disk_full", "disk_sync_fails")
REDIS_LOSES: Final = ("redis_wiped", "redis_back", "redis_evicted", "redis_junk")
CLOCKS: Final = ("clock_ahead",)
COMMON: Final = PROGRAMS + WAYS + POSTGRES + DISKS + CLOCKS
PROFILES: Final[dict[str, Sequence[str]]] = {
    "redis": COMMON + 2 * REDIS_LOSES,
    "failover": COMMON + REDIS_LOSES + 6 * ("postgres_failed_over",),
    "machine": COMMON + 3 * ("machine_lost",),
    "journal": COMMON + 3 * ("journal_cloned", "journal_restored", "journal_tail_lost"),
}


class Faults:
    """Causes faults, and takes back those that last."""

    def __init__(
        self,
        world: World,
        net: RedisNet,
        database: Database,
        oracle: Oracle,
        sidecars: list[SidecarHost],
        flushers: list[FlusherHost],
        make_flusher: Callable[[], FlusherHost],
        make_sidecar: Callable[[], SidecarHost],
    ) -> None:
        self.world = world
        self.net = net
        self.database = database
        self.oracle = oracle
        self.sidecars = sidecars
        self.flushers = flushers
        self._make_flusher = make_flusher
        self._make_sidecar = make_sidecar
        self._healed = False

    @property
    def machines(self) -> list[SidecarHost | FlusherHost]:
        """Everything that can be started."""
        return [*self.sidecars, *self.flushers]

    def plan(self, kind: str, at_s: float) -> None:
        """Has a fault happen at a moment."""
        self.world.at(at_s, None, self._cause, kind)

    def _cause(self, kind: str) -> None:
        self.world.counts[kind] += 1
        self.world.log(f"FAULT {kind}")
        getattr(self, f"_{kind}")()

    def heal(self) -> None:
        """Ends all that lasts; whatever died is started again."""
        self._healed = True
        self.net.weather.clear()
        self.net.server.full = False
        self.database.down, self.database.drop, self.database.lose_commits = False, 0.0, 0.0
        for sidecar in self.sidecars:
            sidecar.platter.full, sidecar.platter.failing_syncs = False, 0
        for machine in self.machines:
            machine.process.fuse = -1
            machine.process.go_on()
            machine.start()

    def _for_a_while(self, end: Callable[[], None], low_s: float = 0.3, high_s: float = 3.0) -> None:
        self.world.after(self.world.rng.uniform(low_s, high_s), None, end)

    def _restart(self, machine: SidecarHost | FlusherHost) -> None:
        self.world.after(self.world.rng.uniform(0.05, 1.5), None, machine.start)

    # -- sidecars and their machines

    def _sidecar(self) -> SidecarHost:
        return self.world.rng.choice(self.sidecars)

    def _sidecar_killed(self) -> None:
        host = self._sidecar()
        host.process.kill()
        self._restart(host)

    def _sidecar_killed_at_disk(self) -> None:
        host = self._sidecar()
        process = host.process

        def blow() -> None:
            process.kill()
            if self.world.rng.random() < 0.5:
                self.world.soon(None, host.platter.crash)
            self._restart(host)

        process.blow, process.fuse = blow, self.world.rng.randint(0, 40)

    def _machine_crashed(self) -> None:
        host = self._sidecar()
        host.process.kill()
        host.platter.crash()
        self._restart(host)

    def _sidecar_restarted(self) -> None:
        host = self._sidecar()
        host.stop(lambda: self._restart(host))

    def _sidecar_stopped(self) -> None:
        process = self._sidecar().process
        process.stopped = True
        self._for_a_while(process.go_on, 0.2, 8.0)

    def _clock_ahead(self) -> None:
        host = self._sidecar()
        host.skew_s = host.process.skew_s = self.world.rng.choice((2.0, 600.0, 3600.0))

    def _machine_lost(self) -> None:
        alive = [host for host in self.sidecars if not host.lost]
        if len(alive) > 1 and not self.oracle.disks_lost:
            host = self.world.rng.choice(alive)
            host.lost = True
            host.process.kill()
            self.oracle.disks_lost[host.name] = self.world.now_s

    def _disk_full(self) -> None:
        platter = self._sidecar().platter
        platter.full = True
        self._for_a_while(lambda: setattr(platter, "full", False))

    def _disk_sync_fails(self) -> None:
        self._sidecar().platter.failing_syncs += self.world.rng.randint(1, 2)

    # -- journals that are not what they were (rule 7)

    def _journal_cloned(self) -> None:
        host, other = self._sidecar(), self._make_sidecar()
        self.oracle.times_unsure = True  # two machines speak for one producer, and its watermark for one of them
        other.platter.restore(host.platter.copy())
        other.platter.crash()
        self.sidecars.append(other)
        other.start()

    def _journal_restored(self) -> None:
        host = self._sidecar()
        copy = host.platter.copy()

        def restore() -> None:
            host.process.kill()
            host.platter.restore(copy)
            host.platter.locked.clear()
            self.oracle.disks_lost[host.name] = self.world.now_s
            self._restart(host)

        if not self._healed:
            self._for_a_while(restore, 0.1, 2.0)

    def _journal_tail_lost(self) -> None:
        host = self._sidecar()
        host.process.kill()
        host.platter.crash(keeps_synced=False)
        self.oracle.disks_lost[host.name] = self.world.now_s
        self._restart(host)

    # -- flushers

    def _flusher(self) -> FlusherHost:
        return self.world.rng.choice(self.flushers)

    def _flusher_killed(self) -> None:
        machine = self._flusher()
        machine.process.kill()
        self._restart(machine)

    def _flusher_killed_at_call(self) -> None:
        machine = self._flusher()
        process = machine.process

        def blow() -> None:
            process.kill()
            self._restart(machine)

        process.blow, process.fuse = blow, self.world.rng.randint(0, 80)

    def _flusher_stopped_at_call(self) -> None:
        process = self._flusher().process

        def blow() -> None:
            process.stopped = True
            if self.world.rng.random() < 0.4:
                self.world.after(0.1, None, self.database.terminate)
            self._for_a_while(process.go_on, 0.5, 10.0)

        process.blow, process.fuse = blow, self.world.rng.randint(0, 80)

    def _flusher_added(self) -> None:
        if len(self.flushers) < 3:
            self.flushers.append(self._make_flusher())
            self.flushers[-1].start()

    # -- Redis and the ways to it

    def _redis_flaky(self) -> None:
        weather = self.net.weather
        weather.lose = self.world.rng.choice((0.02, 0.1, 0.3))
        self._for_a_while(lambda: setattr(weather, "lose", 0.0))

    def _redis_slow(self) -> None:
        weather = self.net.weather
        weather.slow = self.world.rng.choice((0.05, 0.3))
        self._for_a_while(lambda: setattr(weather, "slow", 0.0))

    def _redis_down(self) -> None:
        weather = self.net.weather
        weather.down = True
        self.net.cuts += 1
        self._for_a_while(lambda: setattr(weather, "down", False))

    def _redis_unreachable(self) -> None:
        name = self.world.rng.choice(self.machines).name
        self.net.weather.unreachable.add(name)
        self._for_a_while(lambda: self.net.weather.unreachable.discard(name))

    def _redis_restarted(self) -> None:
        self.net.cuts += 1
        self.net.server.restart()

    def _redis_full(self) -> None:
        server = self.net.server
        server.full = True
        self._for_a_while(lambda: setattr(server, "full", False))

    def _redis_lost(self) -> None:
        self.oracle.redis_lost_at_s = self.world.now_s

    def _redis_wiped(self) -> None:
        self._redis_lost()
        if self.world.rng.random() < 0.5:
            self._redis_restarted()
        self.net.server.wipe()

    def _redis_back(self) -> None:
        snapshot = self.net.server.snapshot()

        def back() -> None:
            if not self._healed:
                self._redis_lost()
                self._redis_restarted()
                self.net.server.restore(snapshot)

        self._for_a_while(back, 0.01, 2.0)

    def _redis_evicted(self) -> None:
        for _ in range(self.world.rng.randint(1, 3)):
            kinds = (b"}", b":stream", b":counters", b":index", b"")  # of most there are few, and many of the last
            kind = self.world.rng.choice(kinds)
            names = [name for name in self.net.server.data if name.endswith(kind)]
            if names:
                name = self.world.rng.choice(names)
                self.world.log(f"evicts {name!r}")
                self.oracle.totals_evicted |= b":totals:" in name
                self._redis_lost()
                self.net.server.evict(name)

    def _redis_junk(self) -> None:
        """Somebody else writes into an open epoch."""
        rng, server = self.world.rng, self.net.server
        counters = [name for name, value in server.data.items() if name.endswith(b":counters") and value != b"junk"]
        if counters:
            name = rng.choice(counters)
            self._redis_lost()
            if rng.random() < 0.3:
                server.data[name] = b"junk"
            else:
                field = rng.choice(list(server.data[name]))
                server.data[name][field] = b"junk"
            self.world.log(f"junk in {name!r}")

    # -- Postgres

    def _postgres_down(self) -> None:
        database = self.database
        database.down = True
        database.terminate()
        self._for_a_while(lambda: setattr(database, "down", False))

    def _postgres_flaky(self) -> None:
        database = self.database
        database.drop = self.world.rng.choice((0.02, 0.1))
        self._for_a_while(lambda: setattr(database, "drop", 0.0))

    def _postgres_commits_lost(self) -> None:
        database = self.database
        database.lose_commits = 0.5
        self._for_a_while(lambda: setattr(database, "lose_commits", 0.0))

    def _postgres_terminated(self) -> None:
        self.database.terminate()

    def _postgres_failed_over(self) -> None:
        since_s = self.world.now_s - self.world.rng.uniform(0.0, 1.5)
        self.oracle.failed_over(since_s)
        lost = self.database.fail_over(since_s)
        self.world.log(f"Postgres lost {lost} commits")
