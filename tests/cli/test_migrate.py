"""`taximeter migrate`: the schema, once, with the shards that a ledger keeps."""

import json
from collections.abc import Callable

import pytest

from flusher.cli.main import main
from flusher.sql import migrations

MakeDatabase = Callable[..., str]


def test_an_empty_database_gets_every_migration_once(
    make_database: MakeDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    # given an empty database
    url = make_database(migrated=False)
    # when it is migrated
    assert main(["migrate", "--json", "--shards", "3", "--database-url", url]) == 0
    first = json.loads(capsys.readouterr().out)
    # then every migration was applied, in order, and the ledger has the shards
    assert first["applied"] == [{"number": step.number, "name": step.name} for step in migrations()]
    assert (first["shards"], len(first["ledger"])) == (3, 16)
    # and a second time there is nothing to do, and the ledger is the same
    assert main(["migrate", "--json", "--database-url", url]) == 0
    assert json.loads(capsys.readouterr().out) == {**first, "applied": []}


def test_a_person_is_told_what_was_applied(make_database: MakeDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    url = make_database(migrated=False)
    assert main(["migrate", "--database-url", url]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "applied migration 1 (core)"
    assert said.out.splitlines()[-1].startswith("the schema is up to date; ledger ")
    assert "database: " in said.err


def test_a_ledger_keeps_its_shards(make_database: MakeDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    url = make_database(shards=2)
    assert main(["migrate", "--shards", "2", "--database-url", url]) == 0
    assert main(["migrate", "--shards", "4", "--database-url", url]) == 1
    assert "error: ledger_mismatch: --shards: the ledger has 2 and keeps them, got 4" in capsys.readouterr().err


@pytest.mark.parametrize("shards", ["0", "-1", "1.5", "many", "1025", "", "٣", "99999999999999999999"])
def test_a_number_of_shards_that_makes_no_sense_is_refused(
    shards: str, make_database: MakeDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_database(migrated=False)
    assert main(["migrate", f"--shards={shards}", "--database-url", url]) == 2
    assert f"--shards: expected a number from 1 to 1024, got {shards!r}" in capsys.readouterr().err


def test_no_server_means_try_again(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    url = f"postgresql://nobody@/nothing?host={tmp_path}"
    assert main(["migrate", "--database-url", url]) == 75
    assert "error: database_unavailable: PostgreSQL does not answer" in capsys.readouterr().err


def test_an_address_that_cannot_be_read_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--database-url", "postgresql://host/x?nonsense=1"]) == 1
    assert "error: config_invalid: PostgreSQL's address can't be read: invalid URI query parameter: \"nonsense\"" in (
        capsys.readouterr().err
    )
