"""`taximeter journal send`: bring what a journal holds into Postgres when its own sidecar is gone (rule 14)."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from sidecar import manifest as manifests
from sidecar.contract.codes import TryAgainError
from sidecar.errors import JournalError
from sidecar.ingest import Ingest
from sidecar.journal import Journal
from sidecar.link import RedisServer

POLL_S: Final = 0.1
DEDUPE_TTL_S: Final = 86_400
SEGMENT_BYTES: Final = 1 << 26
_NEVER_S: Final = 1e9


class Progress(NamedTuple):
    """How many records and events the journal holds, and how many of the records Postgres lacks."""

    producer: str
    records: int
    events: int
    waiting: int


async def send(redis_url: str, directory: Path, *, deadline_s: float, tell: Callable[[Progress], object]) -> Progress:
    """Send everything in the journal and wait until Postgres has it; then its producer is let go.

    Nothing is added to it and nothing is deleted. `tell` hears of the progress. Raises JournalError when the journal
    can't be used, and TryAgainError `journal_waiting` when Postgres does not have it within `deadline_s`.
    """
    journal = _open(directory)
    ingest = Ingest(
        RedisServer(redis_url),
        journal,
        ack_deadline_s=1.0,
        dedupe_ttl_s=DEDUPE_TTL_S,
        hold_s=_NEVER_S,
        watermark_interval_s=_NEVER_S,
    )
    ingest.start()
    try:
        return await _wait(ingest, asyncio.get_running_loop().time() + deadline_s, tell)
    finally:
        await ingest.stop(leave=True)


def _open(directory: Path) -> Journal:
    if not (directory / manifests.NAME).is_file():
        raise JournalError("journal_corrupt", f"{directory}: no journal with a manifest")
    return Journal(directory, bytes_max=sys.maxsize, segment_bytes=SEGMENT_BYTES)


async def _wait(ingest: Ingest, deadline_s: float, tell: Callable[[Progress], object]) -> Progress:
    while True:
        progress = _progress(ingest.journal)
        tell(progress)
        fault = ingest.fault or ingest.directory.problem
        if fault is not None:
            raise fault
        if not progress.waiting and ingest.unready() is None:
            return progress
        if asyncio.get_running_loop().time() > deadline_s:
            raise TryAgainError(
                "journal_waiting",
                f"Postgres lacks {progress.waiting} of {progress.records} records; Redis and a flusher have to run. "
                "What was sent is safe; repeat the command",
            )
        await asyncio.sleep(POLL_S)


def _progress(journal: Journal) -> Progress:
    producer = journal.manifest.producer if journal.manifest is not None else ""
    spans = [(shard.first, shard.committed, shard.head) for shard in journal.shards]
    return Progress(
        producer,
        sum(head.position.sequence - first.position.sequence for first, _, head in spans),
        sum(head.running.events - first.running.events for first, _, head in spans),
        sum(head.position.sequence - committed.sequence for _, committed, head in spans),
    )
