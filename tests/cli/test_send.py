"""`taximeter send`: every event once, whatever happens on the way and however often it is repeated."""

import io
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flusher.cli.main import main
from flusher.database import connect
from flusher.embedded.process import wait_until
from flusher.embedded.system import free_address
from flusher.usage import Range, read_usage
from flusher.worker import Worker
from tests.cli.faulty import Fault, Request, faulty_way
from tests.cli.running import Up

EVER = Range(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

Send = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def customer() -> str:
    return f"cus_{uuid4().hex[:8]}"


@pytest.fixture
def send(capsys: pytest.CaptureFixture[str]) -> Send:
    """Runs the command, checks the exit status, and returns its report."""

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["send", "--json", *arguments]) == status
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    return run


def _file(tmp_path: Path, customer: str, count: int, **fields: str) -> str:
    path = tmp_path / "events.ndjson"
    event = {"user_id": customer, "event_type": "api_call", "units": "0.1", **fields}
    path.write_text("".join(json.dumps(event) + "\n" for _ in range(count)))
    return str(path)


def _counts(report: dict[str, Any]) -> tuple[int, ...]:
    return tuple(report[name] for name in ("sent", "accepted", "duplicates", "conflicts", "rejected"))


def _usage(up: Up, customer: str, span: Range = EVER) -> list[tuple[Decimal, int]]:
    with closing(Worker.connect(up.endpoints["redis"], up.endpoints["database"])) as worker:
        worker.flush()
    with connect(up.endpoints["database"]) as connection:
        return [(row.units, row.events) for row in read_usage(connection, span, users=[customer])]


def test_a_file_sent_twice_is_counted_once(up: Up, send: Send, tmp_path: Path, customer: str) -> None:
    # Given a file whose events have neither an id nor a time
    name = _file(tmp_path, customer, 2500)
    # When it is sent, and sent again
    assert _counts(send(name, "--data-dir", str(up.data_dir))) == (2500, 2500, 0, 0, 0)
    assert _counts(send(name, "--data-dir", str(up.data_dir))) == (2500, 0, 2500, 0, 0)
    # Then every event of it counts once
    assert _usage(up, customer) == [(Decimal("250.0"), 2500)]


def test_a_copy_and_a_pipe_are_the_same_file_over_the_socket_too(
    up: Up, send: Send, tmp_path: Path, customer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _file(tmp_path, customer, 3)
    send(name, "--data-dir", str(up.data_dir))
    copy = tmp_path / "copy"
    copy.write_bytes(Path(name).read_bytes())
    assert _counts(send(str(copy), "--socket", up.endpoints["socket"])) == (3, 0, 3, 0, 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(copy.read_bytes())))
    assert _counts(send("-", "--data-dir", str(up.data_dir))) == (3, 0, 3, 0, 0)


def test_csv_is_sent_by_the_name_of_the_file(up: Up, send: Send, tmp_path: Path, customer: str) -> None:
    path = tmp_path / "events.CSV"
    path.write_text(f"user_id,event_type,units\n{customer},gb,0.000000001\n{customer},gb,2\n")
    assert _counts(send(str(path), "--data-dir", str(up.data_dir))) == (2, 2, 0, 0, 0)
    assert _usage(up, customer) == [(Decimal("2.000000001"), 2)]


def test_bad_events_are_named_by_their_lines_and_spoil_no_neighbour(
    up: Up, send: Send, tmp_path: Path, customer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a file with an event that is fine, three that are not, and one whose id was used otherwise
    good = {"user_id": customer, "event_type": "x", "timestamp": "2025-07-01T00:00:00Z"}
    lines = [
        json.dumps(good | {"id": "e-1"}),
        "",
        "{broken",
        json.dumps(good | {"units": "ten"}),
        json.dumps(good | {"user_id": ""}),
        json.dumps(good | {"id": "e-1", "units": 2}),
    ]
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(lines))
    # When it is sent
    report = send(str(path), "--data-dir", str(up.data_dir), status=1)
    # Then each is named by its line
    assert _counts(report) == (5, 1, 0, 1, 3)
    assert [(problem["line"], problem["code"]) for problem in report["problems"]] == [
        (3, "event_invalid"),
        (4, "units_invalid"),
        (5, "user_id_invalid"),
        (6, "conflict"),
    ]
    assert report["problems"][1]["message"] == 'units: expected a decimal below 10^15, got "ten"'
    # And for a person too, with the way on
    assert main(["send", str(path), "--data-dir", str(up.data_dir)]) == 1
    shown = capsys.readouterr().out
    assert "line 4: units_invalid: units: expected a decimal" in shown
    assert "Send the mended lines in a file of their own" in shown


def test_a_given_time_is_that_of_events_without_one(up: Up, send: Send, tmp_path: Path, customer: str) -> None:
    name = _file(tmp_path, customer, 2)
    send(name, "--data-dir", str(up.data_dir), "--timestamp", "2025-03-01T00:07:00Z")
    window = Range(datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 1, 0, 15, tzinfo=UTC))
    assert _usage(up, customer, window) == [(Decimal("0.2"), 2)]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("fault", ["lose_request", "lose_answer", "busy"])
def test_whatever_is_lost_on_the_way_every_event_counts_once(
    fault: Fault, up: Up, send: Send, tmp_path: Path, customer: str
) -> None:
    # Given a way on which two requests of three come to grief
    def of(request: Request) -> Fault:
        return "none" if request.number % 3 == 2 else fault

    name = _file(tmp_path, customer, 4200)
    with faulty_way(up.endpoints["http"], of) as (url, way):
        # When a file is sent
        report = send(name, "--http", url)
    # Then everything arrived, and nothing twice
    assert len(way.requests) > 5
    assert (report["sent"], report["accepted"] + report["duplicates"]) == (4200, 4200)
    assert _usage(up, customer) == [(Decimal("420.0"), 4200)]


def test_batches_that_are_too_large_for_the_sidecar_go_in_parts(
    up: Up, send: Send, tmp_path: Path, customer: str
) -> None:
    def of(request: Request) -> Fault:
        return "too_large" if request.events > 100 else "none"

    name = _file(tmp_path, customer, 1001)
    with faulty_way(up.endpoints["http"], of) as (url, way):
        assert _counts(send(name, "--http", url)) == (1001, 1001, 0, 0, 0)
    assert all(request.events <= 1000 for request in way.requests)
    assert _usage(up, customer) == [(Decimal("100.1"), 1001)]


def test_one_that_was_interrupted_is_sent_again_and_goes_on(
    up: Up, send: Send, tmp_path: Path, customer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a way that ends after two batches
    def of(request: Request) -> Fault:
        return "none" if request.number < 2 else "busy"

    name = _file(tmp_path, customer, 5000)
    with faulty_way(up.endpoints["http"], of) as (url, _):
        # When a file is sent over it
        assert main(["send", name, "--http", url, "--wait", "3"]) == 75
    # Then it says how far it came, why it stopped and what to do
    said = capsys.readouterr().err
    assert "stopped after 2,000 events; send the same file again to go on" in said
    assert "sidecar_unavailable" in said
    assert "journal_full: busy" in said
    # And sent again, all is there once
    assert _counts(send(name, "--data-dir", str(up.data_dir))) == (5000, 3000, 2000, 0, 0)
    assert _usage(up, customer) == [(Decimal("500.0"), 5000)]


def test_while_redis_is_away_events_are_journaled_and_counted_later(
    up: Up, send: Send, tmp_path: Path, customer: str
) -> None:
    # Given a Redis that does not answer
    redis_pid = up.endpoints["pids"]["redis"]
    os.kill(redis_pid, signal.SIGSTOP)
    try:
        # When a file is sent
        report = send(_file(tmp_path, customer, 1500), "--data-dir", str(up.data_dir))
    finally:
        os.kill(redis_pid, signal.SIGCONT)
    # Then its events are safe, but not known to be no repeats
    assert _counts(report) == (1500, 1500, 0, 0, 0)
    assert report["journaled"] == 1500
    # And they count when it is back
    assert wait_until(lambda: _usage(up, customer) == [(Decimal(150), 1500)], deadline_s=30)


def test_what_is_no_sidecar_is_an_error_at_once(
    up: Up, tmp_path: Path, customer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with faulty_way(up.endpoints["http"], lambda _: "not_a_sidecar") as (url, _):
        assert main(["send", _file(tmp_path, customer, 1), "--http", url]) == 1
    assert "answered 404: the answer is not from a sidecar" in capsys.readouterr().err


def test_where_nobody_listens_is_said_soon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = _file(tmp_path, "cus", 1)
    assert main(["send", name, "--http", free_address().text, "--wait", "0.2"]) == 75
    assert "sidecar_unavailable" in capsys.readouterr().err
    assert main(["send", name, "--socket", str(tmp_path / "none.sock"), "--wait", "0.2"]) == 75


def test_a_token_authorises(up: Up, send: Send, tmp_path: Path, customer: str) -> None:
    token = tmp_path / "token"
    token.write_text("\n  abcdefghijklmnopqrstuvwxyz0123456789 \nother\n")
    send(_file(tmp_path, customer, 1), "--data-dir", str(up.data_dir), "--token-file", str(token))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.ndjson"], "FILE: expected a file that can be read, got 'missing.ndjson'"),
        (["e.ndjson", "--token-file", "none"], "--token-file: expected a file that can be read"),
        (["e.ndjson", "--token-file", "empty"], "--token-file: expected a token, empty is empty"),
    ],
)
def test_what_cant_be_used_is_wrong_use(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.ndjson").write_text("")
    (tmp_path / "empty").write_text(" \n")
    assert main(["send", *arguments, "--http", "127.0.0.1:1"]) == 2
    assert said in capsys.readouterr().err


def test_an_empty_file_is_nothing_to_send(up: Up, send: Send, tmp_path: Path) -> None:
    (tmp_path / "e.ndjson").write_text("\n\n")
    assert _counts(send("e.ndjson", "--data-dir", str(up.data_dir))) == (0, 0, 0, 0, 0)
