"""What a sidecar says of itself when it asks to be registered."""

from pathlib import Path

import msgspec

from sidecar.contract import keys
from sidecar.contract.asking import Asking
from sidecar.contract.codec import encode_batch
from sidecar.contract.columns import Columns
from sidecar.contract.event import Identity
from sidecar.directory import Directory
from sidecar.journal import Journal
from sidecar.link import RedisServer
from sidecar.memory import MemoryWatch
from tests.contract.values import JULY_US, an_event


async def test_it_says_since_when_its_journal_has_times_that_it_gave(redis_url: str, tmp_path: Path) -> None:
    # given a journal with an event of long ago, by its own time, and one that was given its time before the watermark
    journal = Journal(tmp_path, bytes_max=1 << 20, segment_bytes=1 << 16)
    journal.bind("ledger-1", 1)
    events = [
        an_event("e-1", time_us=JULY_US - 10**12),
        an_event("e-2", time_us=JULY_US - 5, identity=Identity.CLAIMED),
    ]
    batch = Columns.of(events).batch(0, 0, JULY_US, JULY_US - 2)
    journal.shards[0].append(encode_batch(batch), batch.count, batch.nanos)
    redis = RedisServer(redis_url).clients()
    directory = Directory(
        redis, journal, hold_s=0.0, wall_us=lambda: JULY_US, bound=lambda: None, memory=MemoryWatch(1.0, lambda: None)
    )
    manifest = journal.manifest
    assert manifest is not None
    # when it asks
    await directory._ask(manifest, None)
    # then no period may close before that time without it (rule 10)
    asked = await (await redis.at(keys.ASKING)).hget(keys.ASKING, manifest.producer)
    assert asked is not None
    assert msgspec.json.decode(asked, type=Asking).watermark_us == JULY_US - 5
    await redis.aclose()
    journal.close()


async def test_a_sidecar_that_accepted_already_says_since_when_it_runs(redis_url: str, tmp_path: Path) -> None:
    # given a sidecar that is registered, as far as it knows, and has nothing in its journal
    journal = Journal(tmp_path, bytes_max=1 << 20, segment_bytes=1 << 16)
    journal.bind("ledger-1", 1)
    journal.note_registered()
    clock = iter([JULY_US, JULY_US + 60])
    redis = RedisServer(redis_url).clients()
    directory = Directory(
        redis,
        journal,
        hold_s=0.0,
        wall_us=lambda: next(clock),
        bound=lambda: None,
        memory=MemoryWatch(1.0, lambda: None),
    )
    manifest = journal.manifest
    assert manifest is not None
    # when Postgres has lost its registration and it asks again
    await directory._ask(manifest, None)
    # then what it was given and is not journaled yet is not before its watermark
    asked = await (await redis.at(keys.ASKING)).hget(keys.ASKING, manifest.producer)
    assert asked is not None
    assert msgspec.json.decode(asked, type=Asking).watermark_us == JULY_US
    await redis.aclose()
    journal.close()
