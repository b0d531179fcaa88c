"""`taximeter apply`: the file, the target, what is said and the exit status."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flusher.catalog_store import load_catalog
from flusher.cli.main import main
from flusher.database import connect
from tests.catalog.support import FULL, METER, PLAN, catalog


@pytest.fixture(autouse=True)
def _no_system_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TAXIMETER_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.toml"
    path.write_text(FULL)
    return path


def test_a_file_is_applied_and_what_changed_is_shown(
    file: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", str(file), "--database-url", database_url]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "+ meter api_call",
        "+ plan pro",
        "+ customer cus_123456",
        "+ subscription cus_123456/pro",
        "4 added, 0 changed",
    ]
    assert "database:" in shown.err
    # And again it says that there is nothing to do
    assert main(["apply", str(file), "--database-url", database_url]) == 0
    assert capsys.readouterr().out == "nothing to change: the catalog is as the file says\n"


def test_a_change_is_shown_key_by_key(file: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["apply", str(file), "--database-url", database_url])
    capsys.readouterr()
    file.write_text(FULL.replace('"0.01"', '"0.02"'))
    main(["apply", str(file), "--database-url", database_url])
    assert capsys.readouterr().out.splitlines() == [
        "~ plan pro (version 2, for periods that begin from now on)",
        "    prices[0].tiers[1].unit_price: 0.01 -> 0.02",
        "0 added, 1 changed",
    ]


def test_a_dry_run_changes_nothing(file: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(file), "--dry-run", "--json", "--database-url", database_url]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["applied"], report["dry_run"], report["revision"]) == (False, True, 1)
    with connect(database_url) as connection:
        assert load_catalog(connection) == catalog("")


def test_json_tells_each_entry_before_and_after(
    file: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["apply", str(file), "--json", "--database-url", database_url])
    report = json.loads(capsys.readouterr().out)
    assert report["applied"] is True
    subscription = report["changes"][3]
    assert subscription == {
        "section": "subscriptions",
        "name": "cus_123456/pro",
        "action": "add",
        "version": None,
        "note": None,
        "before": None,
        "after": {
            "id": "cus_123456/pro",
            "customer": "cus_123456",
            "plan": "pro",
            "start": "2025-07-01T00:00:00Z",
        },
    }
    assert report["changes"][1]["version"] == 1


def test_a_bad_file_shows_every_problem_and_fails(
    file: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(METER + PLAN.replace('"0.01"', "0.01") + "[[customers]]\n")
    assert main(["apply", str(file), "--json", "--database-url", database_url]) == 1
    shown = capsys.readouterr()
    assert "error: catalog_invalid: 2 problems, nothing was applied:" in shown.err
    assert "plans[0].prices[0].unit_price: expected" in shown.err
    report = json.loads(shown.out)
    assert report["applied"] is False
    assert [problem["path"] for problem in report["problems"]] == ["plans[0].prices[0].unit_price", "customers[0].id"]


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [(b"\xef\xbb\xbf# a byte order mark is fine\n", 0, ""), (b"a = 1\n\xff\n", 1, "line 2: expected UTF-8")],
)
def test_a_file_is_utf_8(
    file: Path, database_url: str, capsys: pytest.CaptureFixture[str], content: bytes, status: int, says: str
) -> None:
    file.write_bytes(content)
    assert main(["apply", str(file), "--database-url", database_url]) == status
    assert says in capsys.readouterr().err


def test_a_file_that_is_not_there_is_wrong_use(
    tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", str(tmp_path / "none.toml"), "--database-url", database_url]) == 2
    assert "FILE: expected a catalog file that can be read" in capsys.readouterr().err
    assert main(["apply", str(tmp_path), "--database-url", database_url]) == 2


def test_a_file_that_is_too_large_is_not_read_whole(
    file: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with file.open("wb") as out:
        out.truncate(16 * 1024 * 1024 + 1)
    assert main(["apply", str(file), "--database-url", database_url]) == 1
    assert "at most 16,777,216 bytes" in capsys.readouterr().err


def test_without_a_database_it_says_how_to_name_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(file)]) == 1
    assert "--database-url" in capsys.readouterr().err


def test_an_old_schema_is_named(
    file: Path, make_database: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", str(file), "--database-url", make_database(migrated=False)]) == 1
    assert "taximeter migrate" in capsys.readouterr().err


def test_a_moment_is_said_with_effective(file: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["apply", str(file), "--database-url", database_url])
    file.write_text(FULL.replace('"0.01"', '"0.02"'))
    arguments = ["apply", str(file), "--database-url", database_url]
    capsys.readouterr()
    assert main([*arguments, "--effective", "2025-07-10T15:00:00+02:00"]) == 0
    assert "~ plan pro (version 2, from 2025-07-10T13:00:00Z on)" in capsys.readouterr().out
    # And without it there is nothing to reach back to
    assert main([*arguments, "--into-closed"]) == 2
    assert "expected --effective T with it" in capsys.readouterr().err
