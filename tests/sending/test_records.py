"""Lines of a file as events: what is filled in, what is left alone, what is refused and where."""

import json
from typing import Any

import pytest

from flusher.sending.records import LINE_BYTES_MAX, Filling, Record, Refused, csv_records, ndjson_records
from sidecar.contract.codes import TaximeterError

TIME = "2026-01-02T03:04:05Z"
DIGEST = "0123456789abcdef0123456789abcdef"
FULL = b'{"user_id": "a", "event_type": "x", "units": 1.10, "id": "e", "timestamp": "2025-07-01T00:00:00Z"}'


def _time() -> str:
    return TIME


FILLING = Filling(DIGEST, _time)


def _ndjson(*lines: bytes) -> list[Record | Refused]:
    return list(ndjson_records([line + b"\n" for line in lines], FILLING))


def _csv(text: str) -> list[Record | Refused]:
    return list(csv_records(text.encode().splitlines(keepends=True), FILLING))


def _event(found: Record | Refused) -> dict[str, Any]:
    assert isinstance(found, Record), found
    event: dict[str, Any] = json.loads(found.event)
    return event


def test_a_complete_event_is_sent_as_it_is_written() -> None:
    assert _ndjson(FULL) == [Record(1, FULL)]


def test_what_is_missing_is_filled_in_and_the_rest_keeps_its_text() -> None:
    (found,) = _ndjson(b'{"user_id": "a", "event_type": "x", "units": 1.10, "properties": {"n": 0.1000}}')
    assert isinstance(found, Record)
    event = _event(found)
    assert (event["id"], event["timestamp"]) == (f"file-{DIGEST}-1", TIME)
    assert b"1.10" in found.event
    assert b"0.1000" in found.event


@pytest.mark.parametrize("field", ["id", "timestamp"])
def test_what_is_there_is_left_alone_even_when_it_is_wrong(field: str) -> None:
    (found,) = _ndjson(f'{{"user_id": "a", "event_type": "x", "{field}": null}}'.encode())
    assert _event(found)[field] is None


def test_the_time_is_not_asked_for_unless_an_event_lacks_one() -> None:
    def never() -> str:
        raise AssertionError("no time was needed")

    assert list(ndjson_records([FULL], Filling(DIGEST, never))) == [Record(1, FULL)]


def test_lines_are_counted_as_an_editor_does() -> None:
    found = _ndjson(b"", b"  ", FULL, b"", b'{"user_id": "a", "event_type": "x"}')
    assert [record.line for record in found] == [3, 5]
    assert _event(found[1])["id"] == f"file-{DIGEST}-5"


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert _ndjson(b"\xef\xbb\xbf" + FULL) == [Record(1, FULL)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"user_id": "a"', "truncated"),
        (b'"text"', "Expected `object`, got `str`"),
        (b"[" + FULL + b"]", "jq -c"),
        (b'{"user_id": "\\ud800", "event_type": "x"}', "malformed"),
        (b"[" * 10_000, "expected a JSON object on the line"),
    ],
)
def test_a_line_that_is_no_object_is_refused_and_its_neighbours_are_not(line: bytes, said: str) -> None:
    before, refused, after = _ndjson(FULL, line, FULL)
    assert (before, after) == (Record(1, FULL), Record(3, FULL))
    assert isinstance(refused, Refused)
    assert (refused.line, refused.code) == (2, "event_invalid")
    assert said in refused.message


def test_a_line_that_is_too_long_is_refused() -> None:
    (found,) = ndjson_records([b"{" + b" " * LINE_BYTES_MAX], FILLING)
    assert found == Refused(1, "event_too_large", f"expected a line of at most {LINE_BYTES_MAX} bytes")


def test_a_row_of_csv_is_an_event_by_the_names_of_its_columns() -> None:
    text = (
        "user_id, event_type,units,timestamp,id,source,properties.region,properties.bytes\n"
        'a,"x, y",1.10,2025-07-01T00:00:00Z,e-1,s,eu,12.5\n'
    )
    (found,) = _csv(text)
    assert isinstance(found, Record)
    assert found.line == 2
    assert json.loads(found.event, parse_float=str) == {
        "user_id": "a",
        "event_type": "x, y",
        "units": "1.10",
        "timestamp": "2025-07-01T00:00:00Z",
        "id": "e-1",
        "source": "s",
        "properties": {"region": "eu", "bytes": "12.5"},
    }
    assert b'"bytes":12.5' in found.event  # a number, so that a meter can sum it


def test_an_empty_cell_is_an_absent_field() -> None:
    (found,) = _csv("user_id,event_type,units,id,properties.region\na,x,,,\n")
    assert _event(found) == {"user_id": "a", "event_type": "x", "id": f"file-{DIGEST}-2", "timestamp": TIME}


@pytest.mark.parametrize("cell", ["007", "1e5", "0.10", "+1", ".5", "1,5", "NaN", "true", "\u0661", "-", "-0.0", "-0"])
def test_a_property_that_would_not_read_back_as_it_is_written_stays_text(cell: str) -> None:
    (found,) = _csv(f'user_id,event_type,properties.p\na,x,"{cell}"\n')
    assert _event(found)["properties"] == {"p": cell}


def test_a_row_over_several_lines_is_named_by_its_first() -> None:
    found = _csv('user_id,event_type,properties.p\na,x,"one\ntwo"\n\nb,x,\n')
    assert [record.line for record in found] == [2, 5]


def test_bad_rows_are_refused_and_their_neighbours_are_not() -> None:
    found = _csv('user_id,event_type\na,x\nb\nc,"x"y\nd,x,z\ne,x\n')
    assert [(one.line, isinstance(one, Record)) for one in found] == [
        (2, True),
        (3, False),
        (4, False),
        (5, False),
        (6, True),
    ]
    assert found[1] == Refused(3, "event_invalid", "expected 2 columns as in the first row, got 1")


def test_a_row_that_is_not_utf8_is_refused() -> None:
    lines = [b"user_id,event_type\n", b"a,\xff\n", b"b,x\n"]
    refused, taken = csv_records(lines, FILLING)
    assert isinstance(refused, Refused)
    assert "UTF-8" in refused.message
    assert _event(taken)["user_id"] == "b"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "column user_id is missing"),
        ("user_id\n", "column event_type is missing"),
        ("user_id,event_type,region\n", "column 3: expected user_id, .* or properties.<name>, got 'region'"),
        ("user_id,event_type,properties.\n", "column 3: expected"),
        ("user_id,event_type,user_id\n", "column 3: 'user_id' is there twice"),
        ("user_id,event_type" + "".join(f",properties.p{n}" for n in range(33)) + "\n", "at most 32 columns"),
        ('"user_id\n', "expected the names of columns"),
    ],
)
def test_columns_that_cant_be_are_refused_before_anything_is_sent(header: str, said: str) -> None:
    with pytest.raises(TaximeterError, match=said) as raised:
        _csv(header)
    assert raised.value.code == "file_invalid"
