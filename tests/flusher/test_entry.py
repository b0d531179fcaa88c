"""Stream entries: read back as ingest wrote them, and judged by their place in the chain (rule 2)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.entry import Entry, Verdict, decode_entry, judge
from sidecar.contract.codec import Position, Running
from sidecar.contract.identity import chain_next, chain_start

START = Position(0, chain_start("ledger-1", "producer-1", 0))


def chain(records: list[bytes], start: Position = START) -> list[Entry]:
    """Returns the entries of a chain of records."""
    entries: list[Entry] = []
    for record in records:
        after = Position(start.sequence + 1, chain_next(start.digest, record))
        running = Running(after.sequence, after.sequence)
        entries.append(Entry(f"{after.sequence}-0", "producer-1", start, after, running, (), (), record))
        start = after
    return entries


def flat(entry: Entry, **changed: bytes) -> list[bytes]:
    """Returns the fields of an entry as Redis gives them."""
    fields = {
        "p": entry.producer.encode(),
        "a": entry.before.encode().encode(),
        "z": entry.after.encode().encode(),
        "n": entry.running.encode().encode(),
        "t": b"",
        "b": entry.record,
    }
    return [part for name, value in (fields | changed).items() for part in (name.encode(), value)]


ENTRIES = chain([b"one", b"two", b"three", b"four"])


def decoded(fields: list[bytes]) -> Entry:
    entry = decode_entry(b"7-1", fields)
    assert entry is not None
    return entry


def test_an_entry_is_read_as_it_was_written() -> None:
    for entry in ENTRIES:
        assert decode_entry(entry.identifier.encode(), flat(entry)) == entry
    repeats = decoded(flat(ENTRIES[0], t=b"d3,c5,d12"))
    assert (repeats.identifier, repeats.duplicates, repeats.conflicts) == ("7-1", (3, 12), (5,))
    assert decoded(flat(ENTRIES[0], n=b"12 -0.5")).running == Running(12, -500_000_000)
    assert decoded(flat(ENTRIES[0], b=bytes(range(256)))).record == bytes(range(256))


def test_the_order_of_fields_does_not_matter_and_later_versions_may_add_some() -> None:
    fields = flat(ENTRIES[0])
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    shuffled = [part for pair in [*reversed(pairs), (b"new", b"?")] for part in pair]
    assert decode_entry(b"1-0", shuffled) == ENTRIES[0]


@pytest.mark.parametrize("field", ["p", "a", "z", "n", "t", "b"])
def test_an_entry_without_a_field_is_refused(field: str) -> None:
    fields = flat(ENTRIES[0])
    at = fields.index(field.encode())
    assert decode_entry(b"1-0", fields[:at] + fields[at + 2 :]) is None


@pytest.mark.parametrize(
    ("field", "value"), [("a", b"0"), ("z", b"one:ff"), ("n", b"3"), ("t", b"d"), ("t", b"dx"), ("n", b"x 1")]
)
def test_an_entry_that_ingest_did_not_write_is_refused(field: str, value: bytes) -> None:
    assert decode_entry(b"1-0", flat(ENTRIES[0], **{field: value})) is None


# -- the verdict


def test_what_follows_is_taken_what_postgres_has_is_skipped() -> None:
    committed = START
    for entry in ENTRIES:
        assert judge(entry, committed) is Verdict.TAKE
        committed = entry.after
        for earlier in ENTRIES[: entry.after.sequence]:
            assert judge(earlier, committed) is Verdict.SKIP


def test_what_jumps_is_left_out() -> None:
    assert judge(ENTRIES[2], START) is Verdict.LEAVE_OUT
    assert judge(ENTRIES[3], ENTRIES[1].after) is Verdict.LEAVE_OUT


def test_what_is_of_another_chain_is_left_out() -> None:
    other = chain([b"another", b"history"])
    assert judge(other[1], ENTRIES[0].after) is Verdict.LEAVE_OUT
    assert judge(other[0], START) is Verdict.TAKE


def test_what_nobody_registered_is_left_out() -> None:
    assert judge(ENTRIES[0], None) is Verdict.LEAVE_OUT


@pytest.mark.parametrize(
    "forged",
    [
        ENTRIES[1]._replace(record=b"other"),
        ENTRIES[1]._replace(after=Position(2, bytes(16))),
        ENTRIES[1]._replace(after=Position(3, ENTRIES[1].after.digest)),
        ENTRIES[1]._replace(before=Position(1, bytes(16))),
        ENTRIES[1]._replace(before=Position(0, ENTRIES[1].before.digest)),
    ],
    ids=["record", "digest after", "sequence after", "digest before", "sequence before"],
)
def test_an_entry_whose_parts_do_not_fit_is_left_out(forged: Entry) -> None:
    assert judge(forged, ENTRIES[0].after) is Verdict.LEAVE_OUT


@given(st.lists(st.integers(0, 3), max_size=30))
@settings(deadline=None)
def test_whatever_order_entries_come_in_positions_move_along_the_chain_without_a_jump(order: list[int]) -> None:
    committed, taken = START, []
    for number in order:
        entry = ENTRIES[number]
        verdict = judge(entry, committed)
        assert (verdict is Verdict.SKIP) == (entry.after.sequence <= committed.sequence)
        if verdict is Verdict.TAKE:
            taken.append(entry.record)
            committed = entry.after
    assert taken == [entry.record for entry in ENTRIES[: len(taken)]]
    assert committed == (ENTRIES[len(taken) - 1].after if taken else START)
