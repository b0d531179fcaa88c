"""`taximeter up`: ready when it says so, mended when a part dies, drained when it stops, gone when it is killed."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flusher.embedded.process import wait_until
from flusher.embedded.system import Address, free_address
from sidecar.contract.codes import TaximeterError
from tests.cli.running import Up
from tests.embedded.support import gone_within, is_gone

EVENT: dict[str, object] = {"user_id": "cus_1", "event_type": "api_call", "units": 5}


@pytest.fixture
def start_up(server_dir: Path) -> Iterator[Callable[..., Up]]:
    """Starts `up` on one directory of this test, as often as it wants."""
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(server_dir / "data", *arguments))
        return started[-1]

    yield start
    last = [up.children for up in started[-1:] if (up.data_dir / "endpoints.json").exists()]
    for up in started:
        up.close()
    assert gone_within([pid for children in last for pid in children], deadline_s=60)


def _units(up: Up) -> list[str]:
    return [row["units"] for row in up.command("usage", "--customer", "cus_1")["usage"]]


def test_it_says_how_to_reach_it_once_it_accepts_events(start_up: Callable[..., Up]) -> None:
    # When it is ready
    up = start_up()
    # Then the file tells everything, is private, and the sidecar takes events on both ways
    endpoints = up.endpoints
    assert set(endpoints) == {"http", "socket", "stream", "redis", "database", "pids"}
    assert set(endpoints["pids"]) >= {"sidecar", "flusher", "redis", "postgres"}
    assert not any(is_gone(pid) for pid in endpoints["pids"].values())
    assert stat.S_IMODE((up.data_dir / "endpoints.json").stat().st_mode) == 0o600
    assert up.request("GET", "/readyz")[0] == 200
    assert up.send(EVENT)["accepted"] == 1
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(endpoints["socket"])
    # And the person at the terminal is told an address, a curl to copy and what comes next
    said = up.output()
    assert f"curl {endpoints['http']}/v1/events" in said
    assert "taximeter usage" in said


def test_an_interrupt_drains_before_it_stops_and_the_data_come_back(start_up: Callable[..., Up]) -> None:
    # Given an event that was only just accepted
    up = start_up()
    up.send(EVENT)
    children = up.children
    # When Ctrl-C is pressed (a SIGTERM, as from systemd, means the same)
    assert up.interrupt() == 0, up.output()
    # Then everything has ended and the file is gone
    assert all(is_gone(pid) for pid in children)
    assert not (up.data_dir / "endpoints.json").exists()
    # And the event is in PostgreSQL, even with everything in Redis lost
    for file in (up.data_dir / "valkey" / "appendonlydir").iterdir():
        file.unlink()
    assert _units(start_up()) == ["5"]


def test_a_second_interrupt_ends_at_once_and_loses_nothing(start_up: Callable[..., Up]) -> None:
    # Given an event that was only just accepted
    up = start_up()
    up.send(EVENT)
    children = up.children
    # When Ctrl-C is pressed twice
    up.process.send_signal(signal.SIGINT)
    assert wait_until(lambda: "stopping" in up.output(), deadline_s=60)
    assert up.interrupt() == 130
    # Then nothing is left running, and the next one has the event
    assert gone_within(children, deadline_s=60)
    again = start_up()
    again.command("flush")
    assert _units(again) == ["5"]


@pytest.mark.parametrize("part", ["sidecar", "flusher", "redis", "postgres"])
def test_a_part_that_dies_is_started_again(part: str, start_up: Callable[..., Up]) -> None:
    # Given an event that was accepted
    up = start_up()
    up.send(EVENT)
    before = up.endpoints["pids"]
    # When a part is killed
    os.kill(before[part], signal.SIGKILL)
    # Then it comes back, the file is true, the other parts were left alone
    assert wait_until(lambda: up.endpoints["pids"].get(part) != before[part], deadline_s=30)
    after = up.endpoints["pids"]
    assert {name for name in before if before[name] != after[name]} == {part}
    assert not is_gone(after[part])
    # And events are taken and counted once
    assert wait_until(lambda: _accepts(up), deadline_s=30)
    up.send(EVENT)
    up.command("flush")
    assert _units(up) == ["10"]


def _accepts(up: Up) -> bool:
    try:
        return up.request("GET", "/readyz")[0] == 200
    except OSError:
        return False


def test_everything_ends_when_it_is_killed_and_comes_back_as_it_was(start_up: Callable[..., Up]) -> None:
    # Given accepted events
    up = start_up()
    up.send(EVENT, EVENT)
    children = up.children
    # When `up` is killed outright
    up.kill()
    # Then nothing of it is left
    assert gone_within(children, deadline_s=60)
    # And the next one has the events, and takes more
    again = start_up()
    again.send(EVENT)
    again.command("flush")
    assert _units(again) == ["15"]


def test_a_second_one_on_the_same_directory_is_refused(start_up: Callable[..., Up]) -> None:
    up = start_up()
    second = _run_up(up.data_dir)
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: server_failed: a `taximeter up` is already running on {up.data_dir}")
    assert up.request("GET", "/readyz")[0] == 200
    assert (up.data_dir / "endpoints.json").exists()


def test_an_address_that_is_taken_is_named(server_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = _run_up(server_dir / "data", "--http", address)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: config_invalid: can't listen on {address}: Address already in use; choose another with --http\n"
    )


def test_a_catalog_is_applied_at_the_start(start_up: Callable[..., Up], tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[[meters]]\nname = "calls"\nevent_type = "api_call"\naggregation = "count"\n', encoding="utf-8")
    up = start_up("--catalog", str(catalog))
    up.send(EVENT)
    up.command("flush")
    assert [row["meter"] for row in up.command("usage", "--customer", "cus_1")["usage"]] == ["calls"]


def test_a_catalog_with_a_mistake_stops_the_start_and_leaves_nothing_running(server_dir: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("[[metres]]\n", encoding="utf-8")
    refused = _run_up(server_dir / "data", "--catalog", str(catalog), "--http", free_address().text)
    assert refused.returncode == 1
    assert "metres" in refused.stderr
    assert not (server_dir / "data" / "endpoints.json").exists()
    assert list((server_dir / "data").rglob("*.sock")) == []
    assert not (server_dir / "data" / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--catalog", "missing.toml"], "--catalog: expected a file, got 'missing.toml'"),
        (["--http", "8130"], "--http: expected HOST:PORT with a port from 1 to 65535, got '8130'"),
        (["--http", "localhost:70000"], "--http: expected HOST:PORT with a port from 1 to 65535"),
    ],
)
def test_wrong_use_is_refused_before_anything_starts(arguments: list[str], said: str, tmp_path: Path) -> None:
    refused = _run_up(tmp_path / "data", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (tmp_path / "data").exists()


def _run_up(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flusher", "up", "--data-dir", str(data_dir), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "host", "port", "reachable"),
    [
        ("127.0.0.1:8130", "127.0.0.1", 8130, "127.0.0.1"),
        ("0.0.0.0:1", "0.0.0.0", 1, "127.0.0.1"),
        ("[::]:65535", "::", 65535, "::1"),
        ("localhost:80", "localhost", 80, "localhost"),
    ],
)
def test_addresses_are_read_and_written_back(text: str, host: str, port: int, reachable: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.reachable_host, address.text) == (host, port, reachable, text)


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:0", "host:x", "host:99999", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(TaximeterError, match="expected HOST:PORT"):
        Address.parse(text)
