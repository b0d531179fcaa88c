"""The flusher's loop: every cycle each shard is checked, sealed, drained and published."""

import logging
import time
from collections.abc import Callable
from typing import Final

from flusher.database import check_schema, connect
from flusher.drain import Drain, Drained
from flusher.generation import Generations
from flusher.janitor import Janitor
from flusher.ledger import Ledger
from flusher.registrar import Registrar
from flusher.source import EpochChanged, Source
from sidecar.contract.codes import TaximeterError, TryAgainError

BACKOFF_MAX_S: Final = 5.0
CHANGES_MAX: Final = 10

_log = logging.getLogger(__name__)


class Observer:
    """Hears what a worker does, for metrics and readiness. This one does nothing with it."""

    def drained(self, drained: Drained) -> None:
        """A shard was drained."""

    def generation_opened(self, shard: int) -> None:
        """A shard's generation was replaced (rule 5)."""

    def cycle_ended(self, took_s: float) -> None:
        """All shards were looked at, without an error."""

    def failed(self, error: TaximeterError) -> None:
        """A cycle ended with an error; the next one tries again."""


class Worker:
    """One flusher: any number may run. Raises TaximeterError from its constructor when a server can't be used."""

    def __init__(self, redis_url: str, database_url: str, observer: Observer | None = None) -> None:
        self._observer = observer or Observer()
        with connect(database_url) as connection:
            check_schema(connection)
        self._source = Source(redis_url)
        self._source.check_suitable()
        self._ledger = Ledger(database_url)
        with self._ledger.transaction():
            self._row = self._ledger.read()
        self._drain = Drain(self._source, self._ledger)
        self._generations = Generations(self._source, self._ledger, self._row, self._drain)
        self._registrar = Registrar(self._source, self._ledger, self._row)
        self._janitor = Janitor(self._source)

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()
        self._source.close()

    def run_once(self, *, wait: bool = False) -> Drained:
        """Do one cycle over all shards and return what was drained. `wait` for other flushers that hold a shard."""
        started = time.monotonic()
        self._registrar.tell()
        self._registrar.register()
        drained = Drained()
        for shard in range(self._row.shards):
            found = self._cycle(shard, wait=wait)
            self._observer.drained(found)
            drained.add(found)
        with self._ledger.transaction():
            self._ledger.resolve_discrepancies()
        self._janitor.clean()
        self._observer.cycle_ended(time.monotonic() - started)
        return drained

    def _cycle(self, shard: int, *, wait: bool) -> Drained:
        try:
            state = self._source.state(shard)
            if not self._generations.is_sound(shard, state):
                _log.warning("shard %d: Redis does not match the ledger; opening a new generation", shard)
                replaced = self._generations.replace(shard, state)
                self._observer.generation_opened(shard)
                return replaced
            if state.generation is None:
                return Drained()
            sealed = self._source.seal(shard, state.generation)
            if sealed is None:
                return Drained()
            return self._drain.drain(shard, state.generation, sealed, wait=wait)
        except EpochChanged:
            return Drained(again=True)  # another flusher was faster; the next cycle sees what it left

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
            started = time.monotonic()
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
            if stopped(max(0.0, backoff_s - (time.monotonic() - started))):
                return

    def _reconnect(self) -> None:
        try:
            self._ledger.reconnect()
        except TryAgainError as error:
            _log.debug("%s", error)
