"""`taximeter holes`: what is missing is listed, and fails the proof until an operator accepts it."""

import asyncio
import json

import pytest

from flusher.cli.main import main
from flusher.database import connect
from flusher.proof import verify
from tests.protocol.system import System, an_event


def _holes(database_url: str, *arguments: str) -> int:
    return main(["holes", *arguments, "--database-url", database_url])


@pytest.fixture
def hole(database_url: str) -> str:
    """A hole of three records, in the database."""
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO holes (producer, shard, first_sequence, last_sequence, events) VALUES ('gone/1', 0, 5, 7, 12)"
        )
    return "gone/1/0/5"


def test_no_holes_is_said_in_a_line(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _holes(database_url) == 0
    assert capsys.readouterr().out == "no holes: no record is known to be missing\n"


def test_a_hole_is_listed_for_people_and_programs(
    database_url: str, hole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _holes(database_url) == 0
    assert hole in capsys.readouterr().out
    assert _holes(database_url, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["holes"]
    assert (listed["id"], listed["from"], listed["to"], listed["events"]) == (hole, 5, 7, 12)
    assert listed["accepted_at"] is None


async def test_the_proof_fails_until_the_hole_is_accepted_and_shows_it_from_then_on(
    system: System, hole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a hole beside events that are drained
    await system.send([an_event("e-1")])
    await system.flush()
    before = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert [check.name for check in before.checks if check.ok is False] == ["holes"]
    # when an operator accepts it
    assert _holes(system.database_url, "accept", hole, "--reason", "disk lost with the host") == 0
    # then the proof holds and names it
    after = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert after.ok, after.as_json()
    found = {check.name: check.detail for check in after.checks}
    assert found["holes"] == "0 not accepted, 1 accepted by an operator"
    # and the reason stays
    capsys.readouterr()
    assert _holes(system.database_url, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["holes"]
    assert listed["reason"] == "disk lost with the host"
    assert listed["accepted_at"]


def test_a_hole_is_accepted_once(database_url: str, hole: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _holes(database_url, "accept", hole, "--reason", "first") == 0
    assert _holes(database_url, "accept", hole, "--reason", "second") == 1
    assert "error: already_decided: hole gone/1/0/5 was accepted at " in capsys.readouterr().err
    with connect(database_url) as connection:
        assert connection.execute("SELECT reason FROM holes").fetchall() == [("first",)]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["accept", "gone/1/0/6", "--reason", "why"], 1, "hole_unknown: no hole gone/1/0/6"),
        (["accept", "nonsense", "--reason", "why"], 2, "expected PRODUCER/SHARD/FIRST, got 'nonsense'"),
        (["accept", "gone/1/0/5"], 2, "--reason"),
        (["accept", "gone/1/0/5", "--reason", " "], 2, "expected a line of 1 to 2000 characters"),
    ],
)
def test_what_cannot_be_accepted_is_refused(
    arguments: list[str], status: int, said: str, database_url: str, hole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hole
    try:
        found = _holes(database_url, *arguments)
    except SystemExit as ended:
        found = int(ended.code or 0)
    assert found == status
    assert said in capsys.readouterr().err
    with connect(database_url) as connection:
        assert connection.execute("SELECT accepted_at FROM holes").fetchall() == [(None,)]
