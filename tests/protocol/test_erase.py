"""`taximeter erase`: nothing leads back to who a customer was, and everything that was counted and billed stays."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from flusher import erasure
from flusher.catalog_store import apply_catalog
from flusher.cli.main import main
from flusher.database import connect
from flusher.erasure import Eraser
from flusher.invoicing.late import list_held
from flusher.invoicing.run import Options, make_invoices
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.identity import shard_of
from tests.protocol.erasing import (
    CATALOG,
    CUSTOMER,
    OTHER,
    SHARDS,
    USERS,
    an_eraser,
    calls,
    counted,
    database,
    erase,
    execute,
    history,
    live_through,
    money,
    named_tables,
    quarantined,
    traces,
)
from tests.protocol.system import System, an_event
from tests.protocol.test_proof import failed, prove
from tests.protocol.voiding import a_void


class Killed(BaseException):
    pass


class Terminal(io.StringIO):
    """A person at standard input."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
async def system(redis_url: str, make_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, make_database(shards=SHARDS), tmp_path)
    with connect(made.database_url, autocommit=True) as connection:
        apply_catalog(connection, CATALOG)
    yield made
    await made.close()


@pytest.mark.parametrize("many_events", [erasure.MANY_EVENTS, 0])
async def test_nothing_of_the_customer_is_left_and_everything_counted_and_billed_stays(
    system: System, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, many_events: int
) -> None:
    monkeypatch.setattr(erasure, "MANY_EVENTS", many_events)
    # given a customer that left traces in every table and in Redis
    await live_through(system)
    before = traces(system)
    assert named_tables(system) <= set(before)
    assert {"totals", "users"} <= {word for trace in before for word in ("totals", "users") if f":{word}" in trace}
    billed, usage = money(system), counted(system)
    capsys.readouterr()

    # when it is erased
    assert await erase(system, "--json") == 0

    # then no name of it is anywhere, and all figures are what they were
    assert traces(system) == []
    assert money(system) == billed
    assert counted(system) == usage
    report = json.loads(capsys.readouterr().out)
    assert report["users"] == 3
    assert (report["changed"]["events"], report["changed"]["quarantine"]) == (5, 2)

    # and the tokens are one customer with its users, on the shards where their events are
    assert system.rows("SELECT customer FROM customer_users") == [(report["token"],)] * 2
    tokens = system.rows("SELECT DISTINCT shard, user_id FROM events WHERE user_id LIKE 'erased%'")
    assert len(tokens) == 2
    assert all(shard_of(user, SHARDS) == shard for shard, user in tokens)


async def test_the_proof_holds_and_a_repeat_of_an_erased_event_is_still_one(system: System) -> None:
    await live_through(system)
    await erase(system)
    assert (await prove(system)).ok
    usage = counted(system)

    # when everything comes again, from another sidecar, also where Redis has forgotten it
    receipt = await system.send(history(), to="b")
    await system.flush()
    with redis.Redis.from_url(system.redis_url) as client:
        client.flushall()
    await system.send(history(), to="c")
    await system.flush()

    # then nothing is counted again
    assert receipt.applied
    proof = await prove(system)
    assert proof.ok, proof.as_json()
    assert proof.duplicates.events == 10
    assert counted(system) == usage


async def test_usage_of_erased_users_that_is_tampered_with_fails_the_proof(system: System) -> None:
    await live_through(system)
    await erase(system)
    execute(system, "UPDATE usage SET units = units + 1 WHERE user_id LIKE 'erased%' AND meter = 'calls'")
    assert "erased" in failed(await prove(system))


async def test_an_erasure_that_is_killed_anywhere_goes_on_where_it_was(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a customer, and a program that dies at its first statement, then at the second, ...
    await live_through(system)
    billed, usage = money(system), counted(system)
    run = Eraser._run
    left = [0]

    def dying(self: Eraser, name: str, **values: Any) -> int:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return run(self, name, **values)

    monkeypatch.setattr(Eraser, "_run", dying)
    deaths = 0
    while True:
        left[0] = deaths
        try:
            with an_eraser(system) as eraser:
                await asyncio.to_thread(eraser.run)
            break
        except Killed:
            deaths += 1
    monkeypatch.undo()

    # then it is done all the same, once
    assert deaths > 12
    assert traces(system) == []
    assert money(system) == billed
    assert counted(system) == usage
    assert len(system.rows("SELECT DISTINCT user_id FROM events")) == 3
    assert (await prove(system)).ok


async def test_an_erased_event_can_not_be_cancelled_any_more(system: System) -> None:
    await live_through(system)
    await erase(system)
    usage = counted(system)
    await system.send([a_void(event) for event in history()[:2]], to="b")
    await system.flush()
    assert counted(system) == usage
    assert (await prove(system)).ok


async def test_what_is_found_when_everything_is_drained_is_looked_at_too(system: System) -> None:
    await live_through(system)
    execute(system, "UPDATE subscriptions SET end_at = NULL")
    before = traces(system)
    with an_eraser(system) as eraser, pytest.raises(TaximeterError, match="have not ended"):
        await asyncio.to_thread(eraser.run)
    assert traces(system) == before


async def test_an_erasure_that_is_repeated_finds_nothing(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    await live_through(system)
    await erase(system)
    before = system.rows("SELECT user_id, units FROM usage ORDER BY 1, 2")
    capsys.readouterr()
    assert await erase(system, "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] == {}
    assert system.rows("SELECT user_id, units FROM usage ORDER BY 1, 2") == before


async def test_what_is_quarantined_beside_an_erased_event_can_still_be_counted(system: System) -> None:
    # given a record with events of two, of whom one is erased
    await live_through(system)
    await erase(system)
    before = calls(system)
    # when what the other one sent is tried again
    assert main(["quarantine", "retry", quarantined(system)[OTHER], *database(system)]) == 0
    # then it counts, and nothing else
    assert calls(system) == {**before, OTHER: before[OTHER] + 32}
    assert traces(system) == []
    await system.flush()
    assert (await prove(system)).ok


async def test_nothing_is_billed_again_after_an_erasure(system: System) -> None:
    # given an erased customer, of whose usage a group can't be told any more
    await live_through(system)
    await erase(system)
    # when invoices are made, however late usage may come
    with connect(system.database_url, autocommit=True) as connection:
        made = make_invoices(connection, Options(late_limit=timedelta(days=36_500)))
        held = list(list_held(connection, timedelta(0)))
    # then there is none, and nothing is held
    assert (made.invoices, made.waiting, held) == ([], [], [])


@pytest.mark.parametrize(
    ("erasing", "change"),
    [
        ("no", "UPDATE invoices SET customer = 'x'"),
        ("no", "UPDATE invoice_line_records SET description = 'x'"),
        ("yes", "UPDATE invoices SET total = total + 1"),
        ("yes", "UPDATE invoice_line_records SET amount = amount + 1"),
        ("yes", "DELETE FROM invoices"),
    ],
)
async def test_what_was_billed_is_never_changed_by_an_erasure_either(system: System, erasing: str, change: str) -> None:
    await live_through(system)
    with connect(system.database_url) as connection:
        connection.execute("SELECT set_config('taximeter.erasing', %s, true)", (erasing,))
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(change.encode())


LATE_USAGE = """
UPDATE usage SET units = units + 5, changed_at = now() + interval '1 year'
WHERE user_id = 'needle-1' AND units = (SELECT max(units) FROM usage WHERE user_id = 'needle-1')
"""
A_DISCREPANCY = """
INSERT INTO discrepancies (shard, epoch, user_id, meter, dimensions, window_start, counter_units, counter_events,
                           stream_units, stream_events)
VALUES (0, 'e', 'needle-1', 'm', '{}', now(), 1, 1, 2, 2)
"""
HOLES = """
INSERT INTO holes (producer, shard, first_sequence, last_sequence, events) SELECT 'p', shard, 1, 2, 3 FROM shards
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE subscriptions SET end_at = NULL", "have not ended: needle-acme/pro"),
        ("UPDATE subscriptions SET end_at = '2190-01-01'", "have not ended"),
        ("UPDATE invoices SET delivery = 'pending'", "not delivered"),
        ("UPDATE quarantine SET resolved_at = NULL, resolved_as = NULL, resolution = NULL", "in quarantine"),
        ("UPDATE credit_notes SET status = 'draft', decided_at = NULL", "not issued"),
        ("UPDATE metered_events SET state = 'pending', ended_at = NULL", "not sent: 12345678"),
        (A_DISCREPANCY, "1 open discrepancies"),
        (HOLES, "holes that nobody accepted"),
        (LATE_USAGE, "1 closed periods have changed"),
        ("UPDATE subscriptions SET end_at = end_at + interval '1 day'", "1 invoices are due"),
    ],
)
async def test_a_customer_with_open_business_is_not_erased(
    system: System, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    await live_through(system)
    execute(system, change)
    before = traces(system)
    capsys.readouterr()
    assert await erase(system) == 1
    error = capsys.readouterr().err
    assert "error: erasure_refused" in error
    assert said in error
    assert traces(system) == before


async def test_an_erasure_waits_for_sidecars_that_may_still_hold_events(system: System) -> None:
    # given a sidecar that has not said for a while that it has nothing
    await live_through(system)
    await system.send([an_event("x", user_id=OTHER)], to="b")
    await system.flush()
    before = traces(system)
    # when the customer is to be erased
    with an_eraser(system) as eraser, pytest.raises(TryAgainError) as refused:
        await asyncio.to_thread(eraser.run)
    # then it has to wait, and nothing was changed
    assert refused.value.code == "erasure_waits"
    assert traces(system) == before
    # until the sidecar is gone
    await system.sidecars.pop("b").stop(leave=True)
    with an_eraser(system) as eraser:
        await asyncio.to_thread(eraser.run)
    assert traces(system) == []


async def test_a_user_of_another_customer_is_not_erased_alone(system: System) -> None:
    with an_eraser(system, USERS[0]) as eraser, pytest.raises(TaximeterError, match="needle-acme"):
        eraser.check()


async def test_one_erasure_at_a_time(system: System) -> None:
    with an_eraser(system), pytest.raises(TryAgainError), an_eraser(system):
        pass


async def test_nobody_is_erased_without_being_asked(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    target = ("--redis-url", system.redis_url, *database(system))
    assert main(["erase", "--customer", CUSTOMER, *target]) == 2
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "status"), [("needle-acme\n", 0), ("yes\n", 1), ("", 1)])
async def test_who_is_asked_has_to_write_the_customers_id(
    system: System, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    await live_through(system)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    capsys.readouterr()
    assert await erase(system, asked=True) == status
    said = capsys.readouterr()
    assert "erase who needle-acme was (3 users)?" in said.err
    assert ("not_confirmed" in said.err) is bool(status)
    assert ("5 rows of events" in said.out) is not bool(status)
    assert (traces(system) == []) is not bool(status)


def test_the_user_of_totals_is_told_by_the_keys_name() -> None:
    key = keys.totals(2, "abcdefgh", "a:b", 19).encode()
    assert keys.user_of_totals(key) == b"a:b"
    assert keys.user_of_totals(keys.state(2).encode()) is None
