"""The embedded Valkey: durable by default, private, and clear about why it does not start."""

import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from flusher.embedded.valkey import ValkeyServer
from sidecar.contract.codes import TaximeterError


def test_it_appends_to_a_file_every_second_never_evicts_and_opens_no_port(
    start_valkey: Callable[..., ValkeyServer],
) -> None:
    server = start_valkey()
    with redis.Redis.from_url(server.url) as client:
        settings = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "port")
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
    }
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("restart", [ValkeyServer.restart, lambda server: (server.kill(), server.start())])
def test_data_come_back_after_a_stop_and_after_a_crash(
    restart: Callable[[ValkeyServer], object], start_valkey: Callable[..., ValkeyServer]
) -> None:
    # Given a value that the append-only file has
    server = start_valkey(appendfsync="always")
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    # When the server restarts
    restart(server)
    # Then it is there
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_without_the_file_a_restart_is_a_wipe(start_valkey: Callable[..., ValkeyServer]) -> None:
    server = start_valkey(appendonly="no")
    with redis.Redis.from_url(server.url) as client:
        client.set("lost", "yes")
    server.restart()
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0


def test_it_can_go_back_to_an_older_copy_of_its_directory(
    start_valkey: Callable[..., ValkeyServer], server_dir: Path
) -> None:
    # Given a copy of the data taken while the value was old
    server = start_valkey(appendfsync="always")
    with redis.Redis.from_url(server.url) as client:
        client.set("value", "old")
        shutil.copytree(server.data_dir / "appendonlydir", server_dir / "copy")
        client.set("value", "new")
    # When the server is killed and started on the copy
    server.kill()
    shutil.rmtree(server.data_dir / "appendonlydir")
    shutil.copytree(server_dir / "copy", server.data_dir / "appendonlydir")
    server.start()
    # Then it is back in time
    with redis.Redis.from_url(server.url) as client:
        assert client.get("value") == b"old"


def test_a_long_data_directory_gets_a_short_socket(server_dir: Path) -> None:
    # Given a directory whose path no socket can have
    server = ValkeyServer(server_dir / ("long" * 30))
    server.start()
    # Then it answers on a socket elsewhere, whose directory is private and gone after the stop
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    elsewhere = server.socket.parent
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    server.stop()
    assert not elsewhere.exists()


def test_a_port_is_opened_on_loopback_when_asked_for(start_valkey: Callable[..., ValkeyServer]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    start_valkey(tcp_port=port)
    with redis.Redis(host="127.0.0.1", port=port) as client:
        assert client.ping()


def test_a_second_server_on_the_same_directory_is_refused(
    start_valkey: Callable[..., ValkeyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_valkey()
    monkeypatch.setattr("flusher.embedded.valkey.LOCK_DEADLINE_S", 0.2)
    with pytest.raises(TaximeterError, match="in use by another running server") as raised:
        ValkeyServer(first.data_dir).start()
    assert raised.value.code == "server_failed"
    with redis.Redis.from_url(first.url) as client:
        assert client.ping()


def test_a_server_that_does_not_start_shows_its_log(server_dir: Path) -> None:
    server = ValkeyServer(server_dir / "valkey", options={"maxmemory-policy": "nonsense"})
    with pytest.raises(TaximeterError, match="nonsense") as raised:
        server.start()
    assert raised.value.code == "server_failed"


def test_a_server_that_is_not_ready_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a program that never answers
    program = tmp_path / "never-ready"
    program.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=9.1.2 || exec sleep 600\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    server = ValkeyServer(tmp_path / "valkey", program="never-ready")
    # When it is started
    with pytest.raises(TaximeterError, match=r"not ready within 0.2 s and was killed"):
        server.start(deadline_s=0.2)
    # Then it does not linger
    assert server.pid is None
