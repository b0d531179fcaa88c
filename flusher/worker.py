"""The flusher's loop: every cycle each shard is checked, sealed, drained and published."""

import logging
from collections.abc import Callable, Iterable
from typing import Final, Self

from flusher.clock import Clock
from flusher.database import check_schema, connect
from flusher.drain import Drain, Drained
from flusher.generation import Generations
from flusher.janitor import Janitor
from flusher.ledger import Ledger
from flusher.rebuild import Rebuild, Rebuilt
from flusher.registrar import QUIET_S, Registrar
from flusher.retention import Dropped, Keep, Retention
from flusher.source import EpochChanged, Source
from flusher.summed import KeyedRows
from flusher.watch import Seen, Watch
from sidecar.contract.codes import TaximeterError, TryAgainError

BACKOFF_MAX_S: Final = 5.0
CHANGES_MAX: Final = 10
REPLACING_S: Final = 5.0  # of a cycle, before it goes back to the shards that need nothing

_log = logging.getLogger(__name__)


class Observer:
    """Hears what a worker does, for metrics and readiness. This one does nothing with it."""

    def drained(self, drained: Drained) -> None:
        """A shard was drained."""

    def generation_opened(self, shard: int) -> None:
        """A shard's generation was replaced (rule 5)."""

    def looked(self, seen: Seen) -> None:
        """Redis was looked at, whether Postgres answers or not."""

    def cleaned(self, dropped: Dropped) -> None:
        """What is below the floors was looked at, and some of it dropped (rule 15)."""

    def cycle_ended(self, took_s: float) -> None:
        """All shards were looked at, without an error."""

    def failed(self, error: TaximeterError) -> None:
        """A cycle ended with an error; the next one tries again."""


class Worker:
    """One flusher: any number may run. Without `keep` it drops nothing, without `watch` it says nothing of Redis.

    `quiet_s`: see `Registrar`; `keyed_rows`: see `Drain`.

    Raises TryAgainError from its constructor when the ledger can't be read.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        observer: Observer | None = None,
        clock: Clock | None = None,
        keep: Keep | None = None,
        watch: Watch | None = None,
        quiet_s: int = QUIET_S,
        keyed_rows: KeyedRows = KeyedRows.SINGLE,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._observer = observer or Observer()
        self._clock = clock or Clock()
        with ledger.transaction():
            self._row = ledger.read()
        self._drain = Drain(source, ledger, keyed_rows)
        self._generations = Generations(source, ledger, self._row, self._drain, self._clock)
        self._registrar = Registrar(source, ledger, self._row, quiet_s)
        self._janitor = Janitor(source, self._clock)
        self._watch = watch
        self._retention = Retention(ledger, self._row.shards, keep, self._clock) if keep else None

    @classmethod
    def connect(
        cls,
        redis_url: str,
        database_url: str,
        observer: Observer | None = None,
        keep: Keep | None = None,
        quiet_s: int = QUIET_S,
        keyed_rows: KeyedRows = KeyedRows.SINGLE,
    ) -> Self:
        """Return a flusher of these servers. Raises TaximeterError when one of them can't be used."""
        with connect(database_url) as connection:
            check_schema(connection)
        source = Source.connect(redis_url)
        source.check_suitable()
        watch = Watch(source, Clock())
        return cls(source, Ledger(database_url), observer, None, keep, watch, quiet_s, keyed_rows)

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()
        self._source.close()

    def run_once(self, *, wait: bool = False) -> Drained:
        """Do one cycle over all shards and return what was drained. `wait` for other flushers that hold a shard."""
        started = self._clock.monotonic_s()
        seen = self._watch.look(range(self._row.shards)) if self._watch else None
        if seen is not None:
            self._observer.looked(seen)
        self._registrar.tell()
        self._registrar.answer()
        drained = Drained()
        unsound = [shard for shard in range(self._row.shards) if not self._take(shard, drained, wait=wait)]
        for shard in unsound:
            if not wait and self._clock.monotonic_s() - started > REPLACING_S:
                drained.again = True  # the sound shards are not left waiting for all of them
                break
            self._replace(shard, drained, wait=wait)
        with self._ledger.transaction():
            self._ledger.resolve_discrepancies()
        self._janitor.clean()
        if self._retention is not None:
            self._observer.cleaned(self._retention.clean())
        self._observer.cycle_ended(self._clock.monotonic_s() - started)
        return drained

    def _take(self, shard: int, drained: Drained, *, wait: bool) -> bool:
        """Drain a shard; return False, and do nothing, when its generation has to be replaced."""
        found = Drained()
        try:
            state, sound = self._generations.observe(shard)
            if not sound or state.generation is None:
                return False
            sealed = self._source.seal(shard, state.generation)
            if sealed is not None:
                found = self._drain.drain(shard, state.generation, sealed, wait=wait)
        except EpochChanged:
            found = Drained(again=True)  # another flusher was faster; the next cycle sees what it left
        self._observer.drained(found)
        drained.add(found)
        return True

    def _replace(self, shard: int, drained: Drained, *, wait: bool) -> None:
        """Open a new generation of a shard that still needs one, unless another flusher does."""
        found = Drained(again=True)
        try:
            state, sound = self._generations.observe(shard)
            if not sound:
                found, totals = self._generations.replace(shard, state, wait=wait)
                if totals is None:
                    _log.info("shard %d: another flusher holds it, or opens a generation", shard)
                else:
                    _log.warning("shard %d: Redis did not match; a generation of %d totals is open", shard, totals)
                    self._observer.generation_opened(shard)
        except EpochChanged:
            _log.info("shard %d: another flusher opened a generation", shard)
        self._observer.drained(found)
        drained.add(found)

    @property
    def shards(self) -> int:
        """How many shards the ledger has."""
        return self._row.shards

    def rebuild(self, shards: Iterable[int], staged: Callable[[int, int], object]) -> Rebuilt:
        """Restore Redis from Postgres; `staged` hears a shard and how many of its totals are written."""
        return Rebuild(self._source, self._registrar, self._generations, staged).run(shards)

    def flush(self) -> Drained:
        """Drain everything that Redis has when this is called, and return what that was.

        The first cycle takes an epoch that was sealed before, the second one all that was open.
        """
        drained = Drained()
        for _ in range(CHANGES_MAX):
            found = self.run_once(wait=True)
            drained.add(found)
            if not found.epochs and not found.again:
                break
        return drained

    def run(self, interval_s: float, stopped: Callable[[float], bool]) -> None:
        """Cycle until `stopped(seconds)`, which waits so long at most, returns True. Errors are logged and retried."""
        backoff_s = interval_s
        while True:
            started = self._clock.monotonic_s()
            try:
                self.run_once()
                backoff_s = interval_s
            except TryAgainError as error:
                self._observer.failed(error)
                _log.warning("%s; trying again", error)
                backoff_s = min(BACKOFF_MAX_S, max(backoff_s * 2, 0.1))
                self._reconnect()
            except TaximeterError as error:
                self._observer.failed(error)
                _log.error("%s", error)
                backoff_s = BACKOFF_MAX_S
            if stopped(max(0.0, backoff_s - (self._clock.monotonic_s() - started))):
                return

    def _reconnect(self) -> None:
        try:
            self._ledger.reconnect()
        except TryAgainError as error:
            _log.debug("%s", error)
