"""`taximeter flush`: everything that Redis has, into PostgreSQL, and said in figures."""

import asyncio
import json
from pathlib import Path

import pytest

from flusher.cli.main import main
from sidecar.contract.units import NANO
from tests.protocol.system import System, an_event


async def _flush(system: System, *arguments: str) -> int:
    target = ("--redis-url", system.redis_url, "--database-url", system.database_url)
    return await asyncio.to_thread(main, ["flush", *target, *arguments])


async def test_flush_says_what_became_of_everything(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    # given three events, one of them twice, one with another payload
    await system.send([an_event("e-1"), an_event("e-2"), an_event("e-3")])
    await system.send([an_event("e-1")])
    await system.send([an_event("e-2", nanos=5 * NANO)])
    capsys.readouterr()
    # when everything is flushed
    assert await _flush(system, "--json") == 0
    # then the figures add up, on standard output alone
    said = capsys.readouterr()
    assert {key: value for key, value in json.loads(said.out).items() if key != "epochs"} == {
        "events": 3,
        "duplicates": 1,
        "conflicts": 1,
        "quarantined": 0,
        "discrepancies": 0,
        "voided": 0,
    }
    assert json.loads(said.out)["epochs"] >= 1
    assert "redis: " in said.err
    assert "database: " in said.err
    # and a second time there is nothing left
    assert await _flush(system) == 0
    assert capsys.readouterr().out == "nothing to flush: PostgreSQL has everything that was in Redis\n"


async def test_flush_tells_a_person_what_was_not_counted(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    await system.send([an_event(f"e-{number}") for number in range(1200)])
    await system.send([an_event("e-1"), an_event("e-2")])
    capsys.readouterr()
    assert await _flush(system) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1,200 new events in PostgreSQL, from ")
    assert lines[1:] == ["2 duplicates, not counted"]


def test_flush_says_try_again_when_a_server_is_away(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"unix://{tmp_path}/nobody.sock"
    assert main(["flush", "--redis-url", nobody, "--database-url", database_url]) == 75
    assert "error: redis_unavailable: Redis does not answer" in capsys.readouterr().err


def test_flush_asks_for_a_schema(make_database: object, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(make_database)
    assert main(["flush", "--redis-url", redis_url, "--database-url", make_database(migrated=False)]) == 1
    assert "run `taximeter migrate`" in capsys.readouterr().err
