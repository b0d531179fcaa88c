"""The rows: each has a name of its own, and the short form has one for every goal."""

import pytest

from flusher.bench.rows import all_rows, chosen
from sidecar.contract.codes import TaximeterError


def test_every_row_has_a_name_of_its_own() -> None:
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names)


def test_the_short_form_has_a_row_for_every_goal() -> None:
    assert [row.name for row in chosen([], quick=True)] == [
        *("http-json-500", "http-json-500-key", "http-json-1", "client-stream", "latency"),
        *("drain", "together", "together-key", "billable", "redis-memory", "sidecar-memory"),
    ]


def test_every_way_in_and_every_encoding_is_measured_in_every_size() -> None:
    names = {row.name for row in all_rows()}
    for size in (1, 10, 100, 500, 1000):
        ways = ("http-json", "http-ndjson", "http-msgpack", "unix-json", "stream-msgpack")
        assert {f"{way}-{size}" for way in ways} <= names
    assert {"http-json-500-memory", "http-json-500-key-memory", "stream-msgpack-500-key", "client-unix"} <= names


def test_named_rows_come_in_the_order_of_the_table_and_a_wrong_name_is_refused() -> None:
    assert [row.name for row in chosen(["drain", "http-json-500"], quick=True)] == ["http-json-500", "drain"]
    with pytest.raises(TaximeterError, match="expected one of http-json-500, "):
        chosen(["drain", "nothing"], quick=False)
