"""What the journal may forget: only what Postgres has, along this journal's own chain; and what it may hold."""

import errno
import os
from pathlib import Path

import pytest

from sidecar.contract.codec import Position
from sidecar.disk import Disk
from sidecar.errors import JournalError, Unavailable
from sidecar.journal import Journal
from tests.sidecar.journals import LEDGER, contents, fill, framed_bytes, held, open_journal, record, segments

TWO = 2 * framed_bytes()


@pytest.fixture
def directory(server_dir: Path) -> Path:
    """Where a journal may be."""
    return server_dir / "journal"


def firsts(directory: Path, shard: int = 0) -> list[int]:
    """Returns the sequences that the segments of a shard begin with."""
    return [int(path.stem.partition("-")[2]) for path in segments(directory, shard)]


# -- segments


def test_a_full_segment_is_followed_by_another(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    steps = fill(journal.shards[0], 5)
    assert firsts(directory) == [1, 3, 5]
    assert journal.size == 5 * framed_bytes() == sum(path.stat().st_size for path in segments(directory))
    journal.close()
    assert held(directory) == steps


def test_a_record_larger_than_a_segment_has_one_of_its_own(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = [*fill(shard, 1), *fill(shard, 2, first=2, size=500), *fill(shard, 1, first=4)]
    assert firsts(directory) == [1, 2, 3, 4]
    journal.close()
    assert held(directory) == steps


class RefusingDisk(Disk):
    """A disk that makes a file and can't make its name durable."""

    refuses = False

    def sync_directory(self, directory: Path) -> None:
        """Fails when asked to."""
        if self.refuses:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_directory(directory)


def test_an_empty_file_of_a_segment_that_could_not_be_made_is_in_nobodys_way(directory: Path) -> None:
    # given a full segment, and a disk on which no other could be made, which a kill left behind
    disk = RefusingDisk()
    journal = Journal(directory, bytes_max=1 << 20, segment_bytes=TWO, disk=disk)
    journal.bind(LEDGER, 1)
    (shard,) = journal.shards
    steps = fill(shard, 1)
    disk.refuses = True
    with pytest.raises(Unavailable):
        fill(shard, 1, first=2, size=500)
    assert firsts(directory) == [1]
    segments(directory)[0].with_name("0000-0000000000000002.segment").touch(0o600)
    # when smaller records go into the old one, and larger ones into another
    disk.refuses = False
    steps += fill(shard, 1, first=2)
    steps += fill(shard, 2, first=3)
    journal.close()
    # then it opens again with everything
    assert firsts(directory) == [1, 2, 3]
    assert held(directory) == steps
    assert firsts(directory) == [1, 3]


def test_a_disk_that_can_not_be_read_is_said_in_one_line(directory: Path) -> None:
    directory.touch()
    with pytest.raises(JournalError, match="can't be used") as caught:
        open_journal(directory)
    assert caught.value.code == "journal_failed"


def test_a_large_record_that_could_not_be_written_takes_no_other_file_with_it(directory: Path) -> None:
    # given an empty segment that a record larger than a segment was to go to, and a write that failed
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 2)
    shard._rotate()
    # when it is written after all, in the same segment, and the one before is given up
    steps += fill(shard, 1, first=3, size=500)
    assert firsts(directory) == [1, 3]
    shard.confirm(steps[1].after, 0, 0)
    # then the record is still there
    assert firsts(directory) == [3]
    assert [step.record for step in shard.steps_after(2)] == [record(3, 500)]
    journal.close()
    assert held(directory) == steps[2:]


# -- giving up


def test_only_what_postgres_has_along_this_chain_is_given_up(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 7)
    before = contents(directory)
    # when positions are heard of that this chain does not have
    for foreign in (Position(6, bytes(16)), Position(6, steps[4].after.digest), Position(99, bytes(16))):
        shard.confirm(foreign, 0, 0)
    # then nothing is given up
    assert contents(directory) == before
    # and with one inside of the second segment, the first goes
    shard.confirm(steps[2].after, 0, 0)
    assert firsts(directory) == [3, 5, 7]
    # and a position before what it holds confirms nothing of it
    shard.confirm(steps[0].after, 0, 0)
    assert (firsts(directory), shard.committed) == ([3, 5, 7], steps[1].after)
    shard.confirm(steps[6].after, 0, 0)
    assert firsts(directory) == [7]
    journal.close()
    assert held(directory) == steps[6:]


def test_a_segment_is_held_for_a_while_after_postgres_has_it(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 5)
    # given that Postgres is seen past the first segment at 100 s, past the second at 110 s, and, when a standby took
    # over that lacks the last commits, past the second again at 130 s
    shard.confirm(steps[1].after, 100.0, 60.0)
    shard.confirm(steps[3].after, 110.0, 60.0)
    shard.confirm(steps[2].after, 120.0, 60.0)
    assert shard.committed == steps[2].after
    shard.confirm(steps[3].after, 130.0, 60.0)
    for now, left in ((159.9, [1, 3, 5]), (160.0, [3, 5]), (189.9, [3, 5]), (190.0, [5]), (1e9, [5])):
        shard.confirm(steps[3].after, now, 60.0)
        assert firsts(directory) == left
    journal.close()


def test_what_was_given_up_stays_so_when_it_is_opened_again(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 5)
    shard.confirm(steps[3].after, 0, 0)
    head = shard.head
    journal.close()
    again = open_journal(directory)
    assert again.shards[0].first.position == steps[3].after
    assert again.shards[0].first.running == steps[3].running
    assert again.shards[0].head == head
    assert again.shards[0].verify() == head
    again.close()


def test_a_crash_between_manifest_and_file_is_mended(directory: Path) -> None:
    # given a journal that was killed after it wrote the manifest and before it deleted the file
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 5)
    doomed = {path: path.read_bytes() for path in segments(directory)[:2]}
    shard.confirm(steps[3].after, 0, 0)
    journal.close()
    for path, content in doomed.items():
        path.write_bytes(content)
    # when it is opened again
    assert held(directory) == steps[4:]
    # then the files are gone
    assert firsts(directory) == [5]


def test_files_before_the_manifests_start_may_be_damaged(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 3)
    (first, _) = segments(directory)
    shard.confirm(steps[1].after, 0, 0)
    journal.close()
    first.write_bytes(b"half deleted")
    assert held(directory) == steps[2:]


def test_a_journal_that_lost_all_its_files_stops(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 3)
    shard.confirm(steps[1].after, 0, 0)
    journal.close()
    for path in segments(directory):
        path.unlink()
    with pytest.raises(JournalError, match="is missing") as caught:
        open_journal(directory)
    assert caught.value.code == "journal_corrupt"


def test_a_manifest_that_can_not_be_written_gives_nothing_up(directory: Path) -> None:
    journal = open_journal(directory, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 3)
    blocker = directory / "manifest.new"
    blocker.mkdir()  # in the way of the new manifest
    shard.confirm(steps[1].after, 0, 0)
    assert firsts(directory) == [1, 3]
    assert shard.first.position.sequence == 0
    # and with the way free it goes on
    blocker.rmdir()
    shard.confirm(steps[1].after, 0, 0)
    assert firsts(directory) == [3]
    journal.close()


# -- the bound


def test_a_full_journal_refuses_and_takes_again_once_postgres_has_something(directory: Path) -> None:
    # given a journal of four records, all of which Postgres lacks
    journal = open_journal(directory, bytes_max=2 * TWO, segment_bytes=TWO)
    (shard,) = journal.shards
    steps = fill(shard, 4)
    before = contents(directory)
    for _ in range(3):
        with pytest.raises(Unavailable, match="Postgres does not have") as caught:
            fill(shard, 1, first=5)
        assert caught.value.code == "journal_full"
    assert contents(directory) == before
    assert not shard.failed
    # when Postgres has the first two, and they would be held for an hour
    shard.confirm(steps[1].after, 0, 3600)
    # then the bound goes first
    assert [step.after.sequence for step in fill(shard, 2, first=5)] == [5, 6]
    assert firsts(directory) == [3, 5]
    with pytest.raises(Unavailable):
        fill(shard, 1, first=7)
    journal.close()


def test_what_was_passed_longest_ago_is_given_up_first_over_all_shards(directory: Path) -> None:
    journal = open_journal(directory, shards=2, bytes_max=4 * TWO, segment_bytes=TWO)
    one, two = journal.shards
    ones, twos = fill(one, 3), fill(two, 3)
    two.confirm(twos[1].after, 10.0, 3600)
    one.confirm(ones[1].after, 20.0, 3600)
    fill(one, 3, first=4)
    assert (firsts(directory, 0), firsts(directory, 1)) == ([1, 3, 5], [3])
    journal.close()


def test_a_journal_full_of_what_postgres_has_takes_more(directory: Path) -> None:
    # given more shards than segments fit in the bound, and Postgres has everything
    journal = open_journal(directory, shards=4, bytes_max=2 * TWO, segment_bytes=TWO)
    for shard in journal.shards:
        (step,) = fill(shard, 1)
        shard.confirm(step.after, 0, 3600)
    assert journal.size == journal.bytes_max
    # when more comes, then there is room
    for number in range(2, 9):
        for shard in journal.shards:
            (step,) = fill(shard, 1, first=number)
            shard.confirm(step.after, number, 3600)
    assert journal.size <= journal.bytes_max
    heads = [shard.head for shard in journal.shards]
    journal.close()
    again = open_journal(directory, shards=4)
    assert [shard.head for shard in again.shards] == heads
    again.close()


def test_a_record_larger_than_the_bound_is_refused(directory: Path) -> None:
    journal = open_journal(directory, bytes_max=TWO, segment_bytes=TWO)
    with pytest.raises(Unavailable) as caught:
        fill(journal.shards[0], 1, size=TWO)
    assert caught.value.code == "journal_full"
    # and it does no harm to an empty segment, which is what is left when Postgres has everything
    (shard,) = journal.shards
    (step, last) = fill(shard, 2)
    shard.confirm(last.after, 0, 3600)
    for _ in range(2):
        with pytest.raises(Unavailable):
            fill(shard, 1, first=3, size=TWO)
    assert [path.stat().st_size for path in segments(directory)] == [0]
    steps = fill(shard, 1, first=3)
    journal.close()
    assert held(directory) == steps
    assert steps[0].before == last.after != step.after


def test_nothing_stays_open_when_it_is_closed_or_can_not_be_opened(directory: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    journal = open_journal(directory)
    fill(journal.shards[0], 1)
    journal.close()
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(JournalError):
        Journal(directory, bytes_max=1, segment_bytes=1)
    assert descriptors() == before
