"""What the sidecars are told and what they ask: the ledger, the meters, and their registration (rules 6 and 17)."""

import hashlib

import msgspec

from flusher.ledger import Ledger, LedgerRow
from flusher.source import Source
from sidecar.contract.codec import Position
from sidecar.contract.identity import chain_start


class Registrar:
    """Registers producers and keeps what Redis says of the ledger true."""

    def __init__(self, source: Source, ledger: Ledger, row: LedgerRow) -> None:
        self._source = source
        self._ledger = ledger
        self._row = row

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

    def register(self) -> int:
        """Register every producer that asks; return how many.

        Its zero positions are committed before any Redis knows of it, so a period never closes over a producer that
        Postgres has not heard of.
        """
        registered = 0
        for producer, said in self._source.asking().items():
            if said.get("ledger") != self._row.id:
                self._source.answered(producer)  # its journal belongs to another ledger; its own log says so
                continue
            zeros = [Position(0, chain_start(self._row.id, producer, shard)) for shard in range(self._row.shards)]
            with self._ledger.transaction():
                new = self._ledger.register(producer, said.get("host", "")[:256], zeros)
            if new:
                for shard, zero in enumerate(zeros):
                    generation = self._source.state(shard).generation
                    if generation is not None:
                        self._source.register(shard, generation, producer, zero)
            self._source.answered(producer)
            registered += new
        return registered
