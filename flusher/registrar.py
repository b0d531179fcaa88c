"""What sidecars are told and what they ask for: ledger and meters, to be registered and let go (rules 6, 7, 14, 17)."""

import hashlib
import logging
from typing import Final

import msgspec

from flusher.ledger import Ledger, LedgerRow
from flusher.source import Source
from sidecar.contract.asking import Asking
from sidecar.contract.codec import Position
from sidecar.contract.identity import chain_start

QUIET_S: Final = 3_600

_log = logging.getLogger(__name__)


class Registrar:
    """Registers producers and lets them go, and keeps what Redis says of the ledger true.

    `quiet_s`: a producer whose records go on under another id is let go when nothing was heard of it for so long.
    """

    def __init__(self, source: Source, ledger: Ledger, row: LedgerRow, quiet_s: int = QUIET_S) -> None:
        self._source = source
        self._ledger = ledger
        self._row = row
        self._quiet_s = quiet_s

    def tell(self, *, anew: bool = False) -> None:
        """Tell the sidecars of the ledger where Redis does not say it, or says what is no longer so; or `anew`."""
        with self._ledger.transaction():
            floor_us = self._ledger.read().told_floor_us
            revisions = self._ledger.revisions()
            users = self._ledger.users_of_other_customers()
        wanted = {
            "ledger": self._row.id,
            "shards": str(self._row.shards),
            "revision": str(max(revisions)),
            "event_floor_us": str(floor_us),
            "users": hashlib.sha256(msgspec.json.encode(sorted(users.items()))).hexdigest()[:16],
        }
        if anew or self._source.ledger_fields() != wanted:
            self._source.tell_ledger(wanted, revisions, users)

    def answer(self) -> None:
        """Do what the sidecars ask for, and let go those that others go on for."""
        for producer, asking in self._source.asking().items():
            # What can't be read, and a journal of another ledger, is answered with nothing: its own log says why.
            if asking is None or asking.ledger != self._row.id:
                self._source.answered(producer)
            elif not asking.leaving:
                self._register(producer, asking)
                self._source.answered(producer)
            elif self._let_go(producer):
                self._source.answered(producer)
        with self._ledger.transaction():
            quiet = self._ledger.quiet_predecessors(self._quiet_s)
        for producer in quiet:
            self._let_go(producer)

    def _register(self, producer: str, asking: Asking) -> None:
        """Register a producer, or reinstate it.

        Its positions are committed before any Redis knows of it, so a period never closes over a producer that
        Postgres has not heard of.
        """
        zeros = [Position(0, chain_start(self._row.id, producer, shard)) for shard in range(self._row.shards)]
        with self._ledger.transaction():
            new = self._ledger.register(producer, asking, zeros)
            for missing in asking.missing:
                self._ledger.note_missing(missing)
            positions = [self._ledger.position(producer, shard) for shard in range(self._row.shards)]
        if not new:
            return
        _log.info("registered %s on %s", producer, asking.host)
        for shard, position in enumerate(positions):
            generation = self._source.state(shard).generation
            if generation is not None and position is not None:
                self._source.register(shard, generation, producer, position)

    def _let_go(self, producer: str) -> bool:
        """Retire a producer of which Redis has nothing that Postgres lacks; False where it has, or can't say now.

        Its positions leave Redis first: whatever it sends from then on is refused until it has registered anew. No
        flusher sees the shards without it before that is committed, as they are held meanwhile.
        """
        shards = range(self._row.shards)
        with self._ledger.transaction():
            if any(self._ledger.lock(shard, wait=False) is None for shard in shards):
                return False
            positions = [self._ledger.position(producer, shard) for shard in shards]
            gone: list[tuple[int, str, Position]] = []
            for shard, position in enumerate(positions):
                generation = self._source.state(shard).generation
                if position is None or generation is None:
                    continue
                if not self._source.deregister(shard, generation, producer, position):
                    for taken in gone:
                        self._source.register(taken[0], taken[1], producer, taken[2])
                    return False
                gone.append((shard, generation, position))
            self._ledger.let_go(producer)
        _log.info("let %s go: Postgres has all of it", producer)
        return True
