"""Bugs planted in what a sidecar does, and in its script."""

from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from sidecar import chain, segment
from sidecar import manifest as manifests
from sidecar.contract import keys
from sidecar.contract.codec import Position
from sidecar.contract.columns import Columns
from sidecar.contract.event import Identity
from sidecar.directory import Directory
from sidecar.disk import Disk
from sidecar.ingest import Ingest, Receipt
from sidecar.reading import Reading
from sidecar.sender import Sender
from tests.simulation.planted.table import bug, changed_script

# -- rule 1: the chain


@bug("1", "redis", "redis_flaky", "flusher_killed")
def a_batch_is_applied_whatever_it_follows() -> Iterator[None]:
    """And so is one that is repeated after its reply was lost."""
    with changed_script("ingest", (b"if state[6] ~= ARGV[5] then return {'position', state[6]} end", b"")):
        yield


@bug("1, 7", "journal", "journal_tail_lost", "journal_restored", "journal_cloned")
def the_digest_is_not_checked_at_resume() -> Iterator[None]:
    """A position is believed by its number."""
    with patch.object(
        chain.ShardJournal, "holds", lambda self, position: position.sequence <= self.head.position.sequence
    ):
        yield


@bug("1, 7", "journal", "journal_tail_lost", "journal_restored", "journal_cloned")
def a_broken_chain_goes_on_at_its_head() -> Iterator[None]:
    """What Redis does not know is skipped, so that sending goes on."""
    resume = Sender._go_on_behind

    def skip(self: Sender, position: Position) -> None:
        resume(self, position if self._chain.digest_at(position.sequence) == position.digest else self._chain.head[0])

    with (
        patch.object(chain.ShardJournal, "holds", lambda self, position: True),
        patch.object(Sender, "_go_on_behind", skip),
    ):
        yield


# -- rules 7 and 8: the journal


@bug("7", "journal", "journal_cloned", "disk_sync_fails", "redis_down")
def records_are_renumbered_from_the_wrong_place() -> Iterator[None]:
    """From behind the head, as if Redis had what it does not go along with."""

    def wrong(self: Any, ledger: str, producer: str) -> Any:
        shift = self._shift + self.head.position.sequence
        return manifests.chain(manifests.zero(ledger, producer, self.shard), shift)

    with patch.object(chain.ShardJournal, "renumbered", wrong):
        yield


@bug("8", "redis", "machine_crashed", "sidecar_killed_at_disk")
def a_torn_tail_is_left_in_place() -> Iterator[None]:
    """The next record is written behind it."""
    with patch.object(segment, "_cut", lambda disk, path, size: None):
        yield


@bug("8", "redis", "machine_crashed", "redis_down")
def an_answer_does_not_wait_for_the_sync() -> Iterator[None]:
    """A crash of the machine takes what was acknowledged."""
    write = chain.ShardJournal._write

    class Hasty(Disk):
        def __init__(self, disk: Disk) -> None:
            self._disk = disk

        def write(self, descriptor: int, content: bytes) -> None:
            self._disk.write(descriptor, content)

        def sync(self, descriptor: int) -> None:
            """Later, perhaps."""

    def hasty(self: Any, part: Any, framed: bytes) -> None:
        disk, self._disk = self._disk, Hasty(self._disk)
        try:
            write(self, part, framed)
        finally:
            self._disk = disk

    with patch.object(chain.ShardJournal, "_write", hasty):
        yield


# -- rule 10: watermarks


@bug("10", "machine", "redis_slow", "redis_flaky")
def a_watermark_overtakes_requests_that_are_not_journaled() -> Iterator[None]:
    """A period may close over an event that is still on its way."""
    with patch.object(Ingest, "_watermark_us", lambda self: self.now_us()):
        yield


# -- rule 12: deleting segments


@bug("12", "redis", "postgres_down", "flusher_stopped_at_call")
def a_segment_goes_when_redis_has_it() -> Iterator[None]:
    """Postgres may still lack it when Redis is wiped."""
    fields = Directory.fields

    async def applied(self: Directory, key: str, *names: str) -> list[bytes | None]:
        found = await fields(self, key, *names)
        return [found[0], found[0]] if len(names) == 2 and names[1].startswith("c:") else found

    with patch.object(Directory, "fields", applied):
        yield


@bug("12", "journal", "journal_cloned", "journal_restored")
def a_segment_goes_on_a_position_of_another_chain() -> Iterator[None]:
    """Postgres is that far, but with other records: they are taken for ours, and not held until that shows."""

    def confirm(self: Any, committed: Position, now_s: float, hold_s: float) -> None:
        held_s = hold_s if self.holds(committed) else 0.0
        with self._shelf.lock:
            self._confirm(committed, now_s, held_s)

    with patch.object(chain.ShardJournal, "confirm", confirm):
        yield


@bug("12", "redis", "sidecar_killed")
def a_segment_is_not_held() -> Iterator[None]:
    """A standby that lacks the last commits takes over, and nobody can send them again."""
    confirm = chain.ShardJournal._confirm

    def at_once(self: Any, committed: Position, now_s: float, hold_s: float) -> None:
        confirm(self, committed, now_s, 0.0)

    with patch.object(chain.ShardJournal, "_confirm", at_once):
        yield


# -- a classic


@bug("classic", "redis", "sidecar_killed", "sidecar_killed_at_disk", "disk_full")
def a_key_is_claimed_in_a_step_before_the_batch() -> Iterator[None]:
    """Whoever dies between the two leaves an event that is taken for counted."""
    submit = Ingest.submit

    async def claimed(
        self: Ingest,
        shares: Mapping[int, Columns],
        key: str | None = None,
        digest: bytes | None = None,
        assigned_us: int | None = None,
    ) -> Receipt:
        events = [(shard, event) for shard, share in shares.items() for event in Reading({shard: share}, []).events]
        for home, event in events:
            name = self.senders[home].generation if self.senders else None
            if event.identity > Identity.CLAIMED or name is None:
                continue
            marker = b"claimed:" + keys.identity_prefix(home, name) + event.key
            redis = await self.redis.at(marker)
            if await redis.set(marker, event.fingerprint, nx=True, get=True, ex=3600) is not None:
                return Receipt(applied=True, duplicates=tuple(range(len(events))))
        return await submit(self, shares, key, digest, assigned_us)

    with patch.object(Ingest, "submit", claimed):
        yield
