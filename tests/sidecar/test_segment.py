"""A segment: whole records are read, a torn end is cut off, damage in the middle stops."""

import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_next, chain_start
from sidecar.disk import Disk
from sidecar.errors import JournalError
from sidecar.segment import HEADER_BYTES, MAGIC, RECORD_BYTES_MAX, Cursor, Start, frame, link, scan

START = Start(Position(0, chain_start("ledger-1", "producer-1", 0)), Running(0, 0))
RECORDS = [b"first record", b"", b"the third one, MAGIC: TMJ1 and on", b"last"]


def written(path: Path, records: list[bytes], start: Start = START) -> Start:
    """Writes a segment of records, each of one event and as many nanos as it has bytes; returns what is behind it."""
    with path.open("wb") as file:
        for record in records:
            file.write(frame(record, 1, len(record)))
            step = link(start, record, 1, len(record))
            start = Start(step.after, step.running)
    return start


@pytest.fixture
def path(server_dir: Path) -> Path:
    """Where a segment may be."""
    return server_dir / "0000-0000000000000001.segment"


def test_records_are_read_in_order_with_their_place_in_the_chain(path: Path) -> None:
    end = written(path, RECORDS)
    steps = list(Cursor(Disk(), path, START).steps())
    assert [step.record for step in steps] == RECORDS
    assert [step.after.sequence for step in steps] == [1, 2, 3, 4]
    assert [step.before for step in steps[1:]] == [step.after for step in steps[:-1]]
    assert steps[0].before == START.position
    assert steps[0].after.digest == chain_next(START.position.digest, RECORDS[0])
    assert (steps[-1].after, steps[-1].running) == end
    assert end.running == Running(4, sum(map(len, RECORDS)))


def test_a_large_segment_is_read_in_pieces(path: Path) -> None:
    written(path, RECORDS)
    cursor, found = Cursor(Disk(), path, START), []
    while steps := list(cursor.steps(most_bytes=1)):
        assert len(steps) == 1
        found.append(steps[0].record)
    assert found == RECORDS
    assert cursor.offset == path.stat().st_size


@given(
    st.lists(
        st.tuples(st.binary(max_size=50), st.integers(0, 2**32 - 1), st.integers(-(2**127), 2**127 - 1)), max_size=5
    )
)
@settings(max_examples=50, deadline=None)
def test_any_record_survives_its_frame(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bytes, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.segment"
    path.write_bytes(b"".join(frame(*row) for row in rows))
    steps = list(Cursor(Disk(), path, START).steps())
    assert [step.record for step in steps] == [record for record, _, _ in rows]
    assert [step.running.events for step in steps] == [sum(row[1] for row in rows[: at + 1]) for at in range(len(rows))]
    assert [step.running.nanos for step in steps] == [sum(row[2] for row in rows[: at + 1]) for at in range(len(rows))]


@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b"garbage", MAGIC], ids=["cut", "zeros", "garbage", "magic"])
def test_a_torn_last_record_is_cut_off_wherever_it_tore(path: Path, tail: bytes) -> None:
    # given a last record that was written up to any byte, with nothing or anything else behind
    before = written(path, RECORDS[:-1])
    whole = path.read_bytes()
    last = frame(RECORDS[-1], 1, 4)
    for cut in range(len(last)):
        path.write_bytes(whole + last[:cut] + tail)
        # when the segment is checked
        assert scan(Disk(), path, START, last=True) == before
        # then it ends behind the record before
        assert path.read_bytes() == whole


def test_a_torn_record_is_damage_in_a_segment_that_is_not_the_last(path: Path) -> None:
    written(path, RECORDS)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(JournalError, match="sequence 4") as caught:
        scan(Disk(), path, START, last=False)
    assert caught.value.code == "journal_corrupt"
    assert path.read_bytes() == content[:-1]


def test_any_flipped_bit_with_a_whole_record_behind_it_is_damage_and_nothing_is_changed(path: Path) -> None:
    # given a segment whose last record is whole
    written(path, RECORDS)
    content = path.read_bytes()
    for at in range(len(content) - len(frame(RECORDS[-1], 1, 4))):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        # when it is checked, then it stops, at every byte before the last record
        with pytest.raises(JournalError) as caught:
            scan(Disk(), path, START, last=True)
        assert caught.value.code == "journal_corrupt"
        assert "journal repair" in caught.value.message
        assert path.read_bytes() == bytes(damaged)


def test_a_length_beyond_the_limit_is_not_read(path: Path) -> None:
    rest = b"\0" * 20
    header = MAGIC + (RECORD_BYTES_MAX + 1).to_bytes(4, "big") + zlib.crc32(rest).to_bytes(4, "big") + rest
    assert len(header) == HEADER_BYTES
    path.write_bytes(header + b"x" * 100)
    assert list(Cursor(Disk(), path, START).steps()) == []


def test_another_order_of_the_same_records_is_another_chain(path: Path) -> None:
    end = written(path, RECORDS)
    other = written(path, RECORDS[::-1])
    assert other.position.sequence == end.position.sequence
    assert other.position.digest != end.position.digest
    assert other.running == end.running
