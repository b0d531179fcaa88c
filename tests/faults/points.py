"""The named points in the code: where a process can be killed, stopped, or lose the reply of what it just did.

The product knows nothing of them: `tests.faults.program` wraps the functions that stand here. A name whose function is
gone fails `test_every_point_is_a_function_of_the_product`.
"""

from typing import Final, Literal, NamedTuple

Error = Literal["connection", "redis", "postgres", "disk", "sync", "full"]
Moment = Literal["before", "after"]
Act = Literal["kill", "stop", "raise"]


class Point(NamedTuple):
    """A function, and what its caller gets where it fails. `caller`: only calls that this function makes count."""

    module: str
    attribute: str
    error: Error
    caller: str | None = None


SIDECAR: Final = {
    "request taken": Point("sidecar.ingest", "Ingest.submit", "full"),
    "answer decided": Point("sidecar.ingest", "Ingest._receipt", "full"),
    "journal loaded": Point("sidecar.chain", "ShardJournal.load", "disk"),
    "record written": Point("sidecar.disk", "Disk.write", "disk"),
    "record synced": Point("sidecar.disk", "Disk.sync", "sync", "_write"),
    "segment made": Point("sidecar.disk", "Disk.create", "disk"),
    "segment deleted": Point("sidecar.disk", "Disk.remove", "sync"),
    "manifest stored": Point("sidecar.disk", "Disk.replace", "disk"),
    "position confirmed": Point("sidecar.chain", "ShardJournal.confirm", "sync"),
    "chain renumbered": Point("sidecar.journal", "Journal.renumber", "disk"),
    "registration noted": Point("sidecar.journal", "Journal.note_registered", "disk"),
    "ledger bound": Point("sidecar.journal", "Journal.bind", "disk"),
    "registration asked": Point("sidecar.directory", "Directory._ask", "connection"),
    "meters adopted": Point("sidecar.directory", "Directory._adopt", "connection"),
    "proof answered": Point("sidecar.directory", "Directory._answer_proof", "connection"),
    "link made": Point("sidecar.link", "RedisServer.connect", "connection"),
    "position asked": Point("sidecar.sender", "Sender._resume", "connection"),
    "batch sent": Point("sidecar.link", "Link.send", "connection"),
    "reply received": Point("sidecar.link", "Link.receive", "connection"),
}

FLUSHER: Final = {
    "ledger told": Point("flusher.registrar", "Registrar.tell", "redis"),
    "asking read": Point("flusher.source", "Source.asking", "redis"),
    "producer registered": Point("flusher.ledger", "Ledger.register", "postgres"),
    "registration committed": Point("flusher.ledger", "Ledger.transaction", "postgres", "_register"),
    "hole noted": Point("flusher.ledger", "Ledger.note_missing", "postgres"),
    "position withdrawn": Point("flusher.source", "Source.deregister", "redis"),
    "producer let go": Point("flusher.ledger", "Ledger.let_go", "postgres"),
    "position opened": Point("flusher.source", "Source.register", "redis"),
    "state read": Point("flusher.source", "Source.state", "redis"),
    "epoch sealed": Point("flusher.source", "Source.seal", "redis"),
    "shard locked": Point("flusher.ledger", "Ledger.lock", "postgres"),
    "counters read": Point("flusher.source", "Source.counters", "redis"),
    "entries read": Point("flusher.source", "Source.entries", "redis"),
    "partition made": Point("flusher.store", "ensure_partitions", "postgres"),
    "events inserted": Point("flusher.ledger", "Ledger.insert", "postgres"),
    "claims stored": Point("flusher.ledger", "Ledger.store_claims", "postgres"),
    "usage added": Point("flusher.ledger", "Ledger.add_usage", "postgres"),
    "position advanced": Point("flusher.ledger", "Ledger.advance", "postgres"),
    "token stored": Point("flusher.ledger", "Ledger.store_token", "postgres"),
    "totals read": Point("flusher.ledger", "Ledger.totals", "postgres"),
    "epoch committed": Point("flusher.ledger", "Ledger.transaction", "postgres", "drain"),
    "epoch published": Point("flusher.source", "Source.publish", "redis"),
    "generation fenced": Point("flusher.source", "Source.fence", "redis"),
    "state staged": Point("flusher.source", "Source.stage_state", "redis"),
    "totals staged": Point("flusher.source", "Source.stage_totals", "redis"),
    "generation swapped": Point("flusher.source", "Source.swap", "redis"),
    "generation committed": Point("flusher.ledger", "Ledger.transaction", "postgres", "_open"),
    "reconnected": Point("flusher.ledger", "Ledger.reconnect", "redis"),
    "keys cleaned": Point("flusher.janitor", "Janitor.clean", "redis"),
}

POINTS: Final = {"sidecar": SIDECAR, "flusher": FLUSHER}
