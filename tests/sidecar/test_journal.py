"""The journal: what was acknowledged is there after any end, and damage is never skipped."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_start
from sidecar.errors import JournalError, Unavailable
from sidecar.journal import Journal
from sidecar.segment import Start, frame
from tests.meta.sources import ROOT
from tests.sidecar.journals import LEDGER, contents, fill, framed_bytes, held, open_journal, record, segments


@pytest.fixture
def directory(server_dir: Path) -> Path:
    """Where a journal may be."""
    return server_dir / "journal"


def test_what_was_appended_is_there_when_it_is_opened_again(directory: Path) -> None:
    journal = open_journal(directory)
    steps = fill(journal.shards[0], 5)
    head = journal.shards[0].head
    journal.close()
    # when it is opened again
    assert held(directory) == steps
    again = open_journal(directory)
    # then it goes on where it was
    assert again.shards[0].head == head == Start(steps[-1].after, Running(5, 15))
    assert again.shards[0].append(record(6), 1, 6).before == steps[-1].after
    assert [step.record for step in again.shards[0].steps_after(4)] == [record(5), record(6)]
    again.close()


def test_a_new_journal_has_a_producer_of_its_own_and_starts_its_chains_from_it(directory: Path) -> None:
    journal, other = open_journal(directory, shards=3), open_journal(directory.parent / "other", shards=3)
    assert journal.manifest is not None
    assert other.manifest is not None
    producer = journal.manifest.producer
    assert producer != other.manifest.producer
    assert [shard.head for shard in journal.shards] == [
        Start(Position(0, chain_start(LEDGER, producer, number)), Running(0, 0)) for number in range(3)
    ]
    assert not journal.manifest.registered
    # and it stays
    journal.note_registered()
    journal.close()
    other.close()
    again = open_journal(directory, shards=3)
    assert again.manifest is not None
    assert (again.manifest.producer, again.manifest.registered) == (producer, True)
    again.close()


def test_shards_have_chains_of_their_own(directory: Path) -> None:
    journal = open_journal(directory, shards=2)
    one, two = fill(journal.shards[0], 2), fill(journal.shards[1], 3)
    journal.close()
    again = open_journal(directory, shards=2)
    assert [list(shard.steps_after(0)) for shard in again.shards] == [one, two]
    assert one[0].after.digest != two[0].after.digest
    again.close()


def test_a_torn_tail_is_cut_off_and_the_rest_kept_wherever_it_tore(directory: Path) -> None:
    # given three records, the last of which is torn at any byte
    journal = open_journal(directory)
    steps = fill(journal.shards[0], 3)
    journal.close()
    (path,) = segments(directory)
    content = path.read_bytes()
    for cut in range(framed_bytes()):
        path.write_bytes(content[: 2 * framed_bytes() + cut])
        # when it is opened
        again = open_journal(directory)
        (shard,) = again.shards
        # then the two before are there, and the next one takes its place
        assert list(shard.steps_after(0)) == steps[:2]
        assert shard.append(record(9), 1, 9).after.sequence == 3
        assert shard.verify() == shard.head
        again.close()
        assert [step.record for step in held(directory)] == [record(1), record(2), record(9)]


def test_a_flipped_bit_in_the_middle_stops_and_changes_nothing(directory: Path) -> None:
    journal = open_journal(directory)
    fill(journal.shards[0], 3)
    journal.close()
    (path,) = segments(directory)
    content = path.read_bytes()
    for at in range(0, 2 * framed_bytes(), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        before = contents(directory)
        with pytest.raises(JournalError) as caught:
            open_journal(directory)
        assert caught.value.code == "journal_corrupt"
        assert contents(directory) == before
    # and with the file restored it opens
    path.write_bytes(content)
    assert len(held(directory)) == 3


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_stops(directory: Path, missing: int) -> None:
    journal = open_journal(directory, segment_bytes=framed_bytes())
    fill(journal.shards[0], 3)
    journal.close()
    assert len(segments(directory)) == 3
    segments(directory)[missing].unlink()
    before = contents(directory)
    with pytest.raises(JournalError, match=f"expected the segment that begins with record {missing + 1}") as caught:
        open_journal(directory)
    assert caught.value.code == "journal_corrupt"
    assert contents(directory) == before


def test_a_torn_record_in_an_older_segment_stops_and_changes_nothing(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=2 * framed_bytes())
    fill(journal.shards[0], 3)
    journal.close()
    os.truncate(segments(directory)[0], 2 * framed_bytes() - 1)
    before = contents(directory)
    with pytest.raises(JournalError) as caught:
        open_journal(directory)
    assert caught.value.code == "journal_corrupt"
    assert contents(directory) == before


def test_segments_without_a_manifest_stop(directory: Path) -> None:
    journal = open_journal(directory)
    fill(journal.shards[0], 1)
    journal.close()
    (directory / "manifest.json").unlink()
    with pytest.raises(JournalError, match="no manifest") as caught:
        open_journal(directory)
    assert caught.value.code == "journal_corrupt"


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"chains": []}, {"shards": 2}, {"surprise": 1}, {"producer": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_manifest_of_another_form_stops(directory: Path, change: dict[str, object]) -> None:
    open_journal(directory).close()
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(JournalError, match=r"manifest\.json") as caught:
        open_journal(directory)
    assert caught.value.code == "journal_corrupt"


@pytest.mark.parametrize(("ledger", "shards"), [("ledger-2", 1), (LEDGER, 2)])
def test_a_journal_of_another_ledger_or_shard_count_is_not_used(directory: Path, ledger: str, shards: int) -> None:
    open_journal(directory).close()
    journal = Journal(directory, bytes_max=1 << 20, segment_bytes=1 << 16)
    before = contents(directory)
    with pytest.raises(JournalError, match=LEDGER) as caught:
        journal.bind(ledger, shards)
    assert caught.value.code == "ledger_mismatch"
    assert contents(directory) == before
    journal.close()


def test_only_one_holder_at_a_time(directory: Path) -> None:
    journal = open_journal(directory)
    with pytest.raises(JournalError) as caught:
        open_journal(directory)
    assert caught.value.code == "journal_locked"
    assert str(directory) in caught.value.message
    journal.close()
    open_journal(directory).close()


def test_files_are_for_their_owner_alone(directory: Path) -> None:
    journal = open_journal(directory)
    fill(journal.shards[0], 1)
    journal.close()
    assert directory.stat().st_mode & 0o077 == 0
    assert segments(directory)[0].stat().st_mode & 0o077 == 0


# -- positions


def test_a_position_is_held_only_with_its_own_digest(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=2 * framed_bytes())
    (shard,) = journal.shards
    steps = fill(shard, 6)
    for step in steps:
        assert shard.holds(step.after)
        assert not shard.holds(Position(step.after.sequence, bytes(16)))
        assert shard.start_at(step.after.sequence) == Start(step.after, step.running)
    assert shard.holds(steps[0].before)
    assert not shard.holds(Position(7, steps[-1].after.digest))
    assert shard.start_at(7) is None
    # and after a restart, when digests are read from disk
    journal.close()
    again = open_journal(directory)
    assert all(again.shards[0].holds(step.after) for step in steps)
    # and not before what it still holds
    again.shards[0].confirm(steps[3].after, 0, 0)
    assert again.shards[0].first.position == steps[3].after
    assert again.shards[0].start_at(2) is None
    assert not again.shards[0].holds(steps[1].after)
    assert again.shards[0].holds(steps[3].after)
    again.close()


# -- damage while it is open


def damage(content: bytes, at: int) -> bytes:
    """Returns content with one bit flipped."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("place", range(4))
def test_verify_finds_a_flipped_bit_on_disk(directory: Path, place: int) -> None:
    journal = open_journal(directory, segment_bytes=2 * framed_bytes())
    (shard,) = journal.shards
    fill(shard, 4)
    assert shard.verify() == shard.head
    path = segments(directory)[place // 2]
    path.write_bytes(damage(path.read_bytes(), place % 2 * framed_bytes() + 40))
    with pytest.raises(JournalError) as caught:
        shard.verify()
    assert caught.value.code == "journal_corrupt"
    # and whoever reads on is stopped there
    with pytest.raises(JournalError):
        list(shard.steps_after(0))
    journal.close()


@pytest.mark.parametrize("place", range(2), ids=["an older segment", "the last segment"])
@pytest.mark.parametrize(
    "forged",
    [frame(record(9), 1, 1), frame(record(1), 2, 1), frame(record(1), 1, 2)],
    ids=["record", "events", "units"],
)
def test_verify_finds_a_record_that_was_replaced_with_its_checksum(directory: Path, place: int, forged: bytes) -> None:
    journal = open_journal(directory, segment_bytes=2 * framed_bytes())
    (shard,) = journal.shards
    for _ in range(4):
        shard.append(record(1), 1, 1)
    path = segments(directory)[place]
    path.write_bytes(forged + path.read_bytes()[framed_bytes() :])
    with pytest.raises(JournalError) as caught:
        shard.verify()
    assert caught.value.code == "journal_corrupt"
    journal.close()


@pytest.mark.parametrize("cut", [1, framed_bytes(), framed_bytes() + 1, 2 * framed_bytes()])
def test_verify_finds_a_file_that_was_cut(directory: Path, cut: int) -> None:
    journal = open_journal(directory)
    (shard,) = journal.shards
    fill(shard, 2)
    (path,) = segments(directory)
    os.truncate(path, 2 * framed_bytes() - cut)
    with pytest.raises(JournalError) as caught:
        shard.verify()
    assert caught.value.code == "journal_corrupt"
    journal.close()


# -- writes that fail


def test_a_failed_sync_ends_it_until_it_is_opened_again(directory: Path) -> None:
    # given a descriptor that can be written to and not synced: a pipe
    journal = open_journal(directory)
    (shard,) = journal.shards
    steps = fill(shard, 2)
    head = shard.head
    reading, writing = os.pipe()
    os.dup2(writing, shard._descriptor)
    # when a record is appended
    with pytest.raises(Unavailable, match="synced") as caught:
        shard.append(record(3), 1, 3)
    # then it was not acknowledged, and nothing more is
    assert caught.value.code == "journal_failed"
    assert shard.failed
    assert shard.head == head
    with pytest.raises(Unavailable, match="being mended") as caught:
        shard.append(record(4), 1, 4)
    assert caught.value.code == "journal_failed"
    for descriptor in (reading, writing):
        os.close(descriptor)
    journal.close()
    assert held(directory) == steps


def test_a_full_disk_is_said_to_be_one(directory: Path) -> None:
    journal = open_journal(directory)
    (shard,) = journal.shards
    steps = fill(shard, 2)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, shard._descriptor)
    with pytest.raises(Unavailable) as caught:
        shard.append(record(3), 1, 3)
    assert (caught.value.code, caught.value.retry_after_s) == ("journal_full", 5)
    os.close(full)
    journal.close()
    assert held(directory) == steps


LIMITED = """
    import resource, sys
    from pathlib import Path
    from sidecar.errors import Unavailable
    from tests.sidecar.journals import fill, open_journal, record
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    journal = open_journal(Path(sys.argv[1]), segment_bytes=1 << 16)
    (shard,) = journal.shards
    acknowledged, refused = 0, 0
    for number in range(1, 12):
        try:
            fill(shard, 1, first=number, size=20 if number % 3 else 200)
        except Unavailable as error:
            refused += 1
        else:
            acknowledged += 1
    print(acknowledged, refused, shard.failed, shard.head.position.sequence)
"""


@pytest.mark.parametrize("limit", range(600, 900, 37))
def test_a_write_that_fails_halfway_leaves_exactly_what_was_acknowledged(directory: Path, limit: int) -> None:
    # given a process whose files may not grow beyond a limit, which tears writes anywhere
    program = textwrap.dedent(LIMITED)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(directory), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    acknowledged, refused, failed, head = ran.stdout.split()
    assert (int(refused) > 0, failed, head) == (True, "False", acknowledged)
    # when the journal is opened again, then it holds exactly what was acknowledged, small records behind a refused one
    (path,) = segments(directory)
    assert path.stat().st_size <= limit
    size = path.stat().st_size
    steps = held(directory)
    assert len(steps) == int(acknowledged)
    assert path.stat().st_size == size
    assert len({step.record for step in steps}) == len(steps)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit
