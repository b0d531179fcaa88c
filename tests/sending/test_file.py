"""A file of events: its digest, its lines, pipes, and the time that is remembered for it."""

import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flusher.sending import file as files
from flusher.sending.file import open_events
from flusher.sending.memory import memory_directory, remembered_time
from flusher.sending.records import LINE_BYTES_MAX
from sidecar.contract.codes import TaximeterError

NOON = datetime(2026, 1, 1, 12, 0, 0, 123, tzinfo=UTC)


def _later() -> datetime:
    raise AssertionError("the time was remembered")


def test_the_digest_is_of_the_bytes_and_the_lines_are_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"one\n\ntwo\r\nthree")
    with open_events(str(path)) as file:
        assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        assert list(file.lines()) == [b"one\n", b"\n", b"two\r\n", b"three"]
        assert file.read == file.size == 15


def test_what_is_appended_while_it_is_read_is_not_of_this_file(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"one\ntwo")
    with open_events(str(path)) as file:
        with path.open("ab") as writer:
            writer.write(b" and more\nthree\n")
        assert list(file.lines()) == [b"one\n", b"two"]


def test_of_a_very_long_line_only_the_beginning_is_held(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"x" * (3 * LINE_BYTES_MAX) + b"\nnext\n")
    with open_events(str(path)) as file:
        first, second = file.lines()
    assert (len(first), second) == (LINE_BYTES_MAX + 1, b"next\n")


def test_a_pipe_has_the_digest_of_a_file_with_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"one\ntwo\n",))
    writer.start()
    with open_events(str(path)) as file:
        assert file.digest == hashlib.sha256(b"one\ntwo\n").hexdigest()[:32]
        assert list(file.lines()) == [b"one\n", b"two\n"]
    writer.join()


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SPOOL_BYTES_MAX", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x" * 11)))
    with pytest.raises(TaximeterError, match="write the events to a file first"), open_events("-"):
        pass


@pytest.mark.parametrize("name", ["missing", ""])
def test_what_cant_be_read_is_wrong_use(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(TaximeterError, match="FILE: expected a file that can be read") as raised,
        open_events(str(tmp_path / name)),
    ):
        pass
    assert raised.value.code == "usage_invalid"


def test_the_time_of_a_file_is_that_of_its_first_sending(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "taximeter" / "sent"
    assert remembered_time(directory, "d1", lambda: NOON) == "2026-01-01T12:00:00Z"
    assert remembered_time(directory, "d1", _later) == "2026-01-01T12:00:00Z"
    assert [path.name for path in directory.iterdir()] == ["d1"]


def test_all_that_begin_at_once_get_the_same_time(tmp_path: Path) -> None:
    def one(second: int) -> str:
        return remembered_time(tmp_path, "d1", lambda: NOON.replace(second=second))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(32)))) == 1


def test_a_time_that_cant_be_remembered_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaximeterError, match="give --timestamp"):
        remembered_time(tmp_path / "file" / "sent", "d1", lambda: NOON)


def test_times_are_remembered_where_the_user_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert memory_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/taximeter/sent")
    assert memory_directory({}) == Path("/home/u/.local/state/taximeter/sent")
    assert memory_directory({"XDG_STATE_HOME": "relative"}) == Path("/home/u/.local/state/taximeter/sent")
