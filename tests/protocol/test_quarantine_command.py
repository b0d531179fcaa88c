"""`taximeter quarantine`: what could not be counted is listed, counted after all, or discarded; the proof shows it."""

import asyncio
import json
from decimal import Decimal
from typing import LiteralString

import msgspec
import pytest

from flusher.cli.main import main
from flusher.database import connect
from flusher.proof import Proof, verify
from sidecar.contract.codec import Batch, decode_batch
from sidecar.contract.units import NANO
from tests.protocol.system import JULY_US, System, an_event, indexed

DAY_US = 86_400_000_000


def _quarantine(system: System, *arguments: str) -> int:
    return main(["quarantine", *arguments, "--database-url", system.database_url])


async def _prove(system: System) -> Proof:
    proof = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert proof.ok, proof.as_json()
    return proof


def _trace(proof: Proof) -> str:
    return next(check.detail for check in proof.checks if check.name == "quarantine")


def _execute(system: System, text: LiteralString) -> None:
    with connect(system.database_url) as connection:
        connection.execute(text)


def _raise_floor(system: System) -> None:
    """Lets everything of July be too old."""
    _execute(system, "UPDATE ledger SET event_floor = '2025-08-01'")


def _lower_floor(system: System) -> None:
    _execute(system, "UPDATE ledger SET event_floor = '-infinity'")


def _ids(system: System) -> list[str]:
    return [str(number) for (number,) in system.rows("SELECT quarantined FROM quarantine ORDER BY units")]


async def _one_of_two_is_too_old(system: System) -> str:
    """Quarantines an event of 5 units that stands behind another one in its batch; returns its id."""
    _raise_floor(system)
    await system.send([an_event("new", time_us=JULY_US + 30 * DAY_US), an_event("old", nanos=5 * NANO)])
    await system.flush()
    (identifier,) = _ids(system)
    return identifier


def test_an_empty_quarantine_is_said_in_a_line(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "--database-url", database_url]) == 0
    assert capsys.readouterr().out == "nothing is in quarantine\n"


async def test_what_is_quarantined_is_listed_with_its_place_in_the_record(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = await _one_of_two_is_too_old(system)
    capsys.readouterr()
    assert _quarantine(system, "--json", "--limit", "10") == 0
    (listed,) = json.loads(capsys.readouterr().out)["quarantine"]
    assert (str(listed["id"]), listed["place"], listed["reason"], listed["events"]) == (identifier, 1, "too_old", 1)
    assert Decimal(listed["units"]) == 5
    assert listed["resolved_as"] is None
    assert _quarantine(system) == 0
    assert "too_old" in capsys.readouterr().out


async def test_what_is_too_old_stays_refused(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    identifier = await _one_of_two_is_too_old(system)
    before = system.rows("SELECT * FROM positions")
    assert _quarantine(system, "retry", identifier) == 1
    said = capsys.readouterr().err
    assert f"error: still_refused: {identifier} (too_old) stays in quarantine: it is older than what is kept" in (
        said.replace("still kept", "kept")
    )
    assert system.rows("SELECT * FROM positions") == before
    assert _ids(system) == [identifier]
    await _prove(system)


async def test_what_can_be_counted_by_now_counts_once_everywhere(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given an event that was refused, and what refused it is gone
    identifier = await _one_of_two_is_too_old(system)
    _lower_floor(system)
    capsys.readouterr()
    # when it is retried, twice
    assert _quarantine(system, "retry", identifier, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "retried": int(identifier),
        "inserted": 1,
        "duplicate": 0,
        "conflict": 0,
        "quarantined": 0,
    }
    assert _quarantine(system, "retry", identifier) == 1
    assert "error: already_decided: " in capsys.readouterr().err
    # then it is billed once, the position adds up, and the proof shows it, after the cycle that publishes it
    await system.flush()
    assert system.usage() == {("cus_1", "api_call"): (Decimal(6), 2)}
    assert system.rows("SELECT inserted_events, quarantined_events, quarantined_units FROM positions") == [(2, 0, 0)]
    await system.sidecar()
    proof = await _prove(system)
    assert (proof.postgres.events, proof.quarantined.events) == (2, 0)
    assert _trace(proof).endswith("; of what was in quarantine 0 were discarded and 1 retried")
    # and a repeat of it is a duplicate
    await system.send([an_event("old", nanos=5 * NANO)])
    assert (await system.flush()).duplicates == 1
    await _prove(system)


async def test_what_was_counted_meanwhile_is_a_duplicate(system: System) -> None:
    # given two sidecars that sent the same event below the floor, both in quarantine
    _raise_floor(system)
    await system.send([an_event("old")], to="a")
    await system.send([an_event("old")], to="b")
    await system.flush()
    first, second = _ids(system)
    _lower_floor(system)
    # when both are retried
    assert _quarantine(system, "retry", first) == 0
    assert _quarantine(system, "retry", second) == 0
    await system.flush()
    # then it counts once
    assert system.usage() == {("cus_1", "api_call"): (Decimal(1), 1)}
    await system.sidecar("a")
    await system.sidecar("b")
    proof = await _prove(system)
    assert (proof.postgres.events, proof.duplicates.events, proof.quarantined.events) == (1, 1, 0)


async def test_an_event_under_an_idempotency_key_is_not_taken_for_its_own_repeat(system: System) -> None:
    # given a request of two events, of which one was too old although its index was covered
    _raise_floor(system)
    events = indexed([an_event(time_us=JULY_US + 30 * DAY_US), an_event(nanos=5 * NANO)], "k")
    await system.send(events, key="k", digest=b"1" * 16)
    await system.flush()
    (identifier,) = _ids(system)
    _lower_floor(system)
    # when it is retried and the request is repeated
    assert _quarantine(system, "retry", identifier) == 0
    await system.flush()
    await system.sidecar()
    await system.send(events, key="k", digest=b"1" * 16)
    await system.flush()
    # then both count once
    assert system.usage() == {("cus_1", "api_call"): (Decimal(6), 2)}
    proof = await _prove(system)
    assert (proof.postgres.events, proof.duplicates.events) == (2, 2)


async def _unreadable_record(system: System, monkeypatch: pytest.MonkeyPatch) -> str:
    """Quarantines a whole record of three events, as a program would that can't read it; returns its id."""

    def unreadable(record: bytes) -> Batch:
        if decode_batch(record).events:
            raise msgspec.DecodeError("a newer form")
        return decode_batch(record)

    await system.sidecar()
    with monkeypatch.context() as patch:
        patch.setattr("flusher.drain.decode_batch", unreadable)
        await system.send([an_event("e-1"), an_event("e-2", nanos=2 * NANO), an_event("e-1", time_us=None)])
        await system.flush()
    (identifier,) = _ids(system)
    return identifier


async def test_a_record_that_a_newer_program_can_read_is_counted_whole(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await _unreadable_record(system, monkeypatch)
    assert system.rows("SELECT events, place FROM quarantine") == [(3, None)]
    assert _quarantine(system, "retry", identifier) == 0
    await system.flush()
    await system.sidecar()
    proof = await _prove(system)
    assert (proof.postgres.events, proof.quarantined.events) == (3, 0)


async def test_of_a_record_what_is_still_refused_stays_in_quarantine_by_itself(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a record of which two events are too old by now
    identifier = await _unreadable_record(system, monkeypatch)
    _raise_floor(system)
    capsys.readouterr()
    # when it is retried
    assert _quarantine(system, "retry", identifier) == 0
    assert capsys.readouterr().out == (
        f"{identifier} is out of quarantine; of its events 1 count now, 2 are in quarantine again\n"
    )
    # then those two are there with their places, and everything adds up
    rows = system.rows("SELECT place, reason, events FROM quarantine WHERE resolved_at IS NULL ORDER BY place")
    assert rows == [(0, "too_old", 1), (1, "too_old", 1)]
    await system.flush()
    await system.sidecar()
    proof = await _prove(system)
    assert (proof.postgres.events, proof.quarantined.events) == (1, 2)


async def test_a_record_that_nobody_can_read_stays(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    await _one_of_two_is_too_old(system)
    _execute(system, r"UPDATE quarantine SET record = '\x00', reason = 'record_invalid', place = NULL")
    assert _quarantine(system, "retry", _ids(system)[0]) == 1
    assert "this program can't read the record either" in capsys.readouterr().err


async def test_a_row_that_does_not_say_which_event_it_is_stays(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = await _one_of_two_is_too_old(system)
    _execute(system, "UPDATE quarantine SET place = NULL")
    assert _quarantine(system, "retry", identifier) == 1
    assert "the record reads as 2 events, and 1 were quarantined" in capsys.readouterr().err


async def test_what_is_discarded_stays_in_the_proof_with_its_reason(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = await _one_of_two_is_too_old(system)
    capsys.readouterr()
    # when it is discarded, twice
    assert _quarantine(system, "discard", identifier, "--reason", "a test of ours") == 0
    assert capsys.readouterr().out == f"{identifier} is discarded: 1 events, 5 units: a test of ours\n"
    assert _quarantine(system, "discard", identifier, "--reason", "another") == 1
    # then the proof holds with it, and says so
    proof = await _prove(system)
    assert (proof.quarantined.events, proof.quarantined.nanos) == (1, 5 * NANO)
    assert _trace(proof).endswith("; of what was in quarantine 1 were discarded and 0 retried")
    # and the list shows it only when asked
    capsys.readouterr()
    assert _quarantine(system) == 0
    assert capsys.readouterr().out == "nothing is in quarantine\n"
    assert _quarantine(system, "--all", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["quarantine"]
    assert (listed["resolved_as"], listed["resolution"]) == ("discarded", "a test of ours")
    # and its loss would be noticed
    _execute(system, "DELETE FROM quarantine")
    broken = await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)
    assert [check.name for check in broken.checks if check.ok is False] == ["quarantine"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["retry", "7"], 1, "quarantine_unknown: nothing in quarantine is 7"),
        (["discard", "7", "--reason", "why"], 1, "quarantine_unknown: nothing in quarantine is 7"),
        (["discard", "7"], 2, "--reason"),
        (["retry", "x"], 2, "expected a number from 1, got 'x'"),
        (["--limit", "0"], 2, "expected a number from 1, got '0'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str], status: int, said: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["quarantine", *arguments, "--database-url", database_url])
    except SystemExit as ended:
        found = int(ended.code or 0)
    assert found == status
    assert said in capsys.readouterr().err
