"""Passwords from files; what a program makes of its settings is tested beside each program."""

from pathlib import Path

import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import SECRET_VARIABLES, with_secrets


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_an_address_is_read_from_the_file_that_is_named(name: str, tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.write_text("redis://:password@host\n", encoding="utf-8")
    environment = {f"{name}_FILE": str(file), "HOME": "/nonexistent"}
    assert with_secrets(environment, Path.read_text) == environment | {name: "redis://:password@host"}


def test_an_empty_name_is_none() -> None:
    assert "REDIS_URL" not in with_secrets({"REDIS_URL_FILE": ""}, Path.read_text)


def test_two_ways_to_say_it_are_one_too_many() -> None:
    with pytest.raises(TaximeterError, match="config_invalid: REDIS_URL and REDIS_URL_FILE are both set"):
        with_secrets({"REDIS_URL": "redis://a", "REDIS_URL_FILE": "/b"}, Path.read_text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(TaximeterError, match=f"config_invalid: REDIS_URL_FILE: can't read {missing}"):
        with_secrets({"REDIS_URL_FILE": str(missing)}, Path.read_text)


def test_a_file_that_is_no_text_is_named_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.write_bytes(b"\xff\xfesecret")
    with pytest.raises(TaximeterError, match="REDIS_URL_FILE: can't read") as raised:
        with_secrets({"REDIS_URL_FILE": str(file)}, Path.read_text)
    assert "secret" not in raised.value.message
