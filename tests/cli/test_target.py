"""Which system a command works on."""

import argparse
import io
import json
import os
from pathlib import Path

import pytest

from flusher.cli.target import Target, add_target_arguments, find_target, without_password
from flusher.endpoints import Endpoints, read_endpoints, remove_endpoints, write_endpoints
from sidecar.contract.codes import TaximeterError

FILE = Endpoints(
    http="http://127.0.0.1:8130",
    socket="/run/t.sock",
    redis="unix:///file",
    database="postgresql://file/",
    pids={"up": os.getpid()},
)
ENVIRONMENT = {
    "TAXIMETER_REDIS_URL": "redis://ours",
    "REDIS_URL": "redis://general",
    "DATABASE_URL": "postgresql://general/",
}


def _find(arguments: list[str], environment: dict[str, str]) -> Target:
    parser = argparse.ArgumentParser()
    add_target_arguments(parser, "redis", "database", "http")
    return find_target(parser.parse_args(arguments), environment)


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory whose .taximeter says that a system runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".taximeter").mkdir()
    write_endpoints(tmp_path / ".taximeter", FILE)
    return tmp_path


@pytest.mark.usefixtures("_here")
def test_flags_go_before_the_environment_and_that_before_the_file() -> None:
    assert _find(["--redis-url", "redis://flag"], ENVIRONMENT).redis == "redis://flag"
    assert _find([], ENVIRONMENT).redis == "redis://ours"
    assert _find([], ENVIRONMENT | {"TAXIMETER_REDIS_URL": ""}).redis == "redis://general"
    assert _find([], {}).redis == "unix:///file"
    assert _find([], ENVIRONMENT).database == "postgresql://general/"
    assert _find([], ENVIRONMENT).http == "http://127.0.0.1:8130"
    assert _find([], {"TAXIMETER_HTTP": "host:1"}).http == "http://host:1"


def test_a_named_directory_goes_before_the_environment(tmp_path: Path) -> None:
    write_endpoints(tmp_path, FILE)
    assert _find(["--data-dir", str(tmp_path)], ENVIRONMENT).redis == "unix:///file"
    assert _find(["--data-dir", str(tmp_path), "--redis-url", "redis://flag"], ENVIRONMENT).redis == "redis://flag"


def test_a_named_directory_in_which_nothing_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaximeterError, match="no `taximeter up` is running on") as raised:
        _find(["--data-dir", str(tmp_path)], ENVIRONMENT)
    assert raised.value.code == "target_missing"


def test_what_nothing_names_is_an_error_that_says_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = _find([], {})
    for need, variable in (
        (target.need_redis, "TAXIMETER_REDIS_URL or REDIS_URL"),
        (target.need_database, "TAXIMETER_DATABASE_URL or DATABASE_URL"),
        (target.need_http, "TAXIMETER_HTTP"),
    ):
        with pytest.raises(TaximeterError, match=variable) as raised:
            need()
        assert raised.value.code == "target_missing"


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--redis-url", "http://x", "redis://... or rediss://... or unix://..."),
        ("--database-url", "mysql://u:secret@x/", "postgresql://... or postgres://..."),
        ("--http", "ftp://x", "http://... or https://..."),
        ("--http", "localhost:many", "http://... or https://..."),
        ("--redis-url", "redis://:secret@[::1", "redis://... or rediss://... or unix://..."),
        ("--redis-url", "redis://:secret@a:6379,b:many", "redis://... or rediss://... or unix://..."),
        ("--database-url", "postgresql://u:secret@[::1/x", "postgresql://... or postgres://..."),
    ],
)
def test_an_address_of_another_kind_is_refused(flag: str, value: str, expected: str) -> None:
    with pytest.raises(TaximeterError) as raised:
        _find([flag, value], {})
    assert raised.value.code == "config_invalid"
    assert raised.value.message.startswith(f"{flag}: expected {expected}, got ")
    assert "secret" not in raised.value.message


def test_the_target_is_named_with_where_it_comes_from_and_without_passwords() -> None:
    said = io.StringIO()
    target = _find(["--redis-url", "redis://user:secret@host:1/0"], {"DATABASE_URL": "host=db password=secret"})
    target.announce("redis", "database", stream=said)
    assert said.getvalue() == (
        "redis: redis://user:***@host:1/0 (from --redis-url)\ndatabase: host=db password=*** (from DATABASE_URL)\n"
    )


def test_a_cluster_is_named_by_several_hosts() -> None:
    named = "redis://u:p@a:6379,b:6379"
    assert _find(["--redis-url", named], {}).redis == named


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:p@host", "redis://:***@host"),
        (
            "postgresql://u:p%40:x@h/db?password=q&sslmode=require",
            "postgresql://u:***@h/db?password=***&sslmode=require",
        ),
        ("host=h password='a b' user=u", "host=h password=*** user=u"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("redis://u:p@a:6379,b:6379", "redis://u:***@a:6379,b:6379"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
    ],
)
def test_passwords_are_hidden_in_every_form(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_the_file_is_private_whole_and_removable(tmp_path: Path) -> None:
    write_endpoints(tmp_path, FILE)
    path = tmp_path / "endpoints.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text(encoding="utf-8"))["pids"] == {"up": os.getpid()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["endpoints.json"]
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert read_endpoints(tmp_path) is None


def test_a_file_that_a_killed_system_left_behind_does_not_count(tmp_path: Path) -> None:
    write_endpoints(tmp_path, Endpoints("", "", "unix:///gone", "", pids={"up": 2**22 + 1}))
    assert read_endpoints(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"http": 1}', "\xff"])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(text, encoding="latin-1")
    with pytest.raises(TaximeterError, match=r"endpoints\.json is not what `taximeter up` writes"):
        read_endpoints(tmp_path)
