"""`taximeter backfill`: the past brought in once, its effect on money shown before, and all of it taken back."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flusher.catalog_store import apply_catalog
from flusher.cli import trial
from flusher.cli.main import main
from flusher.database import connect
from flusher.embedded.system import free_address
from flusher.invoicing import effect
from flusher.invoicing.run import Options, make_invoices
from flusher.worker import Worker
from tests.cli.running import Up

NOW = datetime.now(UTC).replace(microsecond=0)
MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LAST_MONTH = (MONTH - timedelta(days=1)).replace(day=1)

Backfill = Callable[..., dict[str, Any]]


@pytest.fixture
def customer() -> str:
    return f"cus_{uuid4().hex[:8]}"


@pytest.fixture
def backfill(up: Up, capsys: pytest.CaptureFixture[str]) -> Backfill:
    """Runs the command, checks the exit status, and returns its report."""

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["backfill", "--json", "--data-dir", str(up.data_dir), *arguments]) == status
        said = capsys.readouterr()
        return json.loads(said.out) if said.out else {"error": said.err}

    return run


def event(customer: str, at: datetime = LAST_MONTH, **fields: object) -> dict[str, object]:
    moment = at.isoformat().replace("+00:00", "Z")
    return {"user_id": customer, "event_type": f"call_{customer}", "timestamp": moment, **fields}


def file_of(tmp_path: Path, *events: dict[str, object], name: str = "past.ndjson") -> str:
    path = tmp_path / name
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    return str(path)


def flush(up: Up) -> None:
    with closing(Worker.connect(up.endpoints["redis"], up.endpoints["database"])) as worker:
        worker.flush()


def used(up: Up, customer: str) -> tuple[Decimal, int]:
    """Returns the units and the events of a customer in Postgres."""
    flush(up)
    with connect(up.endpoints["database"]) as connection:
        found = "SELECT coalesce(sum(units), 0), coalesce(sum(events), 0)::int FROM usage WHERE user_id = %s"
        ((units, events),) = connection.execute(found, (customer,)).fetchall()
    return units, events


def subscribe(up: Up, customer: str, start: datetime = LAST_MONTH) -> None:
    """Gives a customer a plan of its own: 0.10 a call, by default from last month on."""
    with connect(up.endpoints["database"], autocommit=True) as connection:
        apply_catalog(
            connection,
            f'[[meters]]\nname = "call_{customer}"\nevent_type = "call_{customer}"\n'
            f'[[plans]]\nname = "{customer}"\ncurrency = "usd"\ninterval = "month"\n'
            f'[[plans.prices]]\nname = "calls"\nmeter = "call_{customer}"\nmodel = "per_unit"\nunit_price = "0.10"\n'
            f'[[subscriptions]]\ncustomer = "{customer}"\nplan = "{customer}"\n'
            f"start = {start:%Y-%m-%d}T00:00:00Z\n",
        )


def previewed(up: Up, customer: str) -> list[Decimal]:
    """Returns the totals of the invoices that would be made now."""
    flush(up)
    with connect(up.endpoints["database"], autocommit=True) as connection:
        made = make_invoices(connection, Options(customer=customer, dry_run=True, preview=True))
    return [invoice.total for invoice in made.invoices]


def test_a_file_is_brought_in_once_however_often_it_is_sent(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    # given a file of the past whose events have no ids
    name = file_of(tmp_path, *(event(customer, units="0.5") for _ in range(1500)))
    # when it is sent twice
    first, again = (backfill(name, "--reason", "a lost day", "--yes") for _ in range(2))
    # then it counts once, and is listed with why
    assert [first[each] for each in ("sent", "accepted", "duplicates")] == [1500, 1500, 0]
    assert [again[each] for each in ("sent", "accepted", "duplicates")] == [1500, 0, 1500]
    assert used(up, customer) == (Decimal(750), 1500)
    listed = next(one for one in backfill()["backfills"] if one["id"] == first["backfill"])
    assert (listed["reason"], listed["events"], listed["undo_reason"]) == ("a lost day", 1500, None)
    assert listed["sent_at"] is not None


def test_an_event_without_a_timestamp_is_refused_by_its_line(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    nothing: dict[str, object] = {"user_id": customer, "event_type": "call"}
    report = backfill(file_of(tmp_path, event(customer), nothing), "--reason", "r", "--yes", status=1)
    assert (report["accepted"], report["rejected"]) == (1, 1)
    assert [(one["line"], one["code"]) for one in report["problems"]] == [(2, "timestamp_invalid")]
    table = tmp_path / "past.csv"
    table.write_text(f"user_id,event_type,timestamp\n{customer},call,\n{customer},call,2025-07-01T00:00:00Z\n")
    report = backfill(str(table), "--reason", "r", "--yes", status=1)
    assert (report["accepted"], [one["line"] for one in report["problems"]]) == (1, [2])


def test_undoing_voids_what_the_file_brought_and_nothing_else(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    # given an event that was counted before, and a file that has it too
    known = event(customer, id="known", units=5)
    up.send(known)
    assert used(up, customer) == (Decimal(5), 1)
    name = file_of(tmp_path, known, event(customer, id="new", units=7), *(event(customer) for _ in range(3)))
    sent = backfill(name, "--reason", "a lost day", "--yes")
    assert (sent["accepted"], sent["duplicates"]) == (4, 1)
    assert used(up, customer) == (Decimal(15), 5)
    # when it is undone, before all of it is drained as well as after
    undone = backfill("--undo", sent["backfill"], "--reason", "the wrong file", "--yes")
    # then only what was counted before is left, and nothing brings the rest back
    assert undone["accepted"] == 4
    assert used(up, customer) == (Decimal(5), 1)
    with connect(up.endpoints["database"]) as connection:
        found = "SELECT DISTINCT reason FROM void_list WHERE user_id = %s"
        assert connection.execute(found, (customer,)).fetchall() == [("the wrong file",)]
    for arguments in ([name, "--reason", "again"], ["--undo", sent["backfill"], "--reason", "again"]):
        assert "already_decided" in backfill(*arguments, "--yes", status=1)["error"]
    assert used(up, customer) == (Decimal(5), 1)


@pytest.mark.parametrize("users_max", [1_000, 0])
def test_a_dry_run_shows_what_an_invoice_then_says_and_does_nothing(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str, monkeypatch: pytest.MonkeyPatch, users_max: int
) -> None:
    for module in (effect, trial):  # whether customers are looked at one by one, or all of them
        monkeypatch.setattr(module, "USERS_MAX", users_max)
    # given a customer with a plan and some usage, and a file with events of both periods, one of them known
    subscribe(up, customer)
    known = event(customer, id="known", units=30)
    up.send(known)
    before = previewed(up, customer)
    lines = [known, event(customer, units=20), event(customer, MONTH, units=10), event(customer, units=-1)]
    name = file_of(tmp_path, *lines, {**event(customer), "units": "ten"})
    # when it is tried out
    tried = backfill(name, "--reason", "a lost day", "--dry-run", status=1)
    # then nothing was done, and it says what would be
    assert tried["events"] == {"inserted": 3, "duplicate": 1, "conflict": 0, "quarantined": 0, "rejected": 1}
    assert [one["line"] for one in tried["problems"]] == [5]
    assert [(one["old"], one["new"], one["difference"]) for one in tried["invoices"]] == [
        ("3.00", "4.90", "1.90"),
        ("0.00", "1.00", "1.00"),
    ]
    assert {one["customer"] for one in tried["invoices"]} == {customer}
    assert tried["differences"] == [{"currency": "usd", "difference": "2.90", "credit": "0.00"}]
    assert used(up, customer) == (Decimal(30), 1)
    assert previewed(up, customer) == before
    assert tried["invoices"][0]["invoice"] not in {one["id"] for one in backfill()["backfills"]}
    # when it is done, then it is so
    sent = backfill(name, "--reason", "a lost day", "--yes", status=1)
    assert previewed(up, customer) == [Decimal("4.90"), Decimal("1.00")]
    # and undoing it is tried out in the same way
    undo = ("--undo", sent["backfill"], "--reason", "the wrong file")
    assert [one["difference"] for one in backfill(*undo, "--dry-run")["differences"]] == ["-2.90"]
    assert previewed(up, customer) == [Decimal("4.90"), Decimal("1.00")]
    backfill(*undo, "--yes")
    assert previewed(up, customer) == before


def test_what_is_given_back_as_credit_is_shown_as_that(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    # given a backfill of last month that is invoiced
    subscribe(up, customer)
    sent = backfill(file_of(tmp_path, event(customer, units=20)), "--reason", "a lost day", "--yes")
    flush(up)
    with connect(up.endpoints["database"], autocommit=True) as connection:
        made = make_invoices(connection, Options(customer=customer, window=timedelta(0)))
    assert [invoice.total for invoice in made.invoices] == [Decimal("2.00")]
    # when undoing it is tried out, then the running invoice stays at nothing, and there is credit
    tried = backfill("--undo", sent["backfill"], "--reason", "the wrong file", "--dry-run")
    assert tried["differences"] == [{"currency": "usd", "difference": "0.00", "credit": "2.00"}]


def test_what_is_too_late_to_be_billed_by_itself_is_shown_apart(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    # given a customer whose months are invoiced, the oldest of which ended long ago
    long_ago = (LAST_MONTH - timedelta(days=70)).replace(day=1)
    subscribe(up, customer, long_ago)
    with connect(up.endpoints["database"], autocommit=True) as connection:
        make_invoices(connection, Options(customer=customer, window=timedelta(0)))
    # when a file of that month is tried out
    tried = backfill(file_of(tmp_path, event(customer, long_ago, units=20)), "--reason", "r", "--dry-run")
    # then it says that this is held
    assert tried["invoices"] == []
    assert [(one["period"]["from"], one["difference"]) for one in tried["held"]] == [
        (f"{long_ago:%Y-%m-%dT%H:%M:%SZ}", "2.00")
    ]


def test_nothing_is_done_unless_somebody_says_yes(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = file_of(tmp_path, event(customer))
    assert "not_confirmed" in backfill(name, "--reason", "r", status=1)["error"]
    assert used(up, customer) == (Decimal(0), 0)
    assert main(["backfill", "--data-dir", str(up.data_dir), name, "--reason", "r", "--dry-run"]) == 0
    assert "no invoice changes" in capsys.readouterr().out


def test_what_was_interrupted_goes_on_and_can_be_undone(
    up: Up, backfill: Backfill, tmp_path: Path, customer: str
) -> None:
    # given a sidecar that can't be reached
    name = file_of(tmp_path, *(event(customer) for _ in range(10)))
    nowhere = free_address().text
    stopped = backfill(name, "--reason", "r", "--yes", "--http", nowhere, "--wait", "0", status=75)
    assert "sidecar_unavailable" in stopped["error"]
    (begun,) = [one for one in backfill()["backfills"] if one["name"] == name[-256:]]
    assert begun["sent_at"] is None
    # when it is sent again, and undone with an interruption too
    assert backfill(name, "--reason", "r", "--yes")["accepted"] == 10
    undo = ("--undo", begun["id"], "--reason", "u", "--yes")
    backfill(*undo, "--http", nowhere, "--wait", "0", status=75)
    assert "already_decided" in backfill("--undo", begun["id"], "--reason", "x", "--yes", status=1)["error"]
    assert backfill(*undo)["accepted"] == 10
    assert used(up, customer) == (Decimal(0), 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FILE"], "--reason"),
        (["FILE", "--undo", "x", "--reason", "r"], "got both"),
        (["--undo", "x"], "--reason"),
        (["FILE", "--reason", "r" * 257], "256 bytes"),
    ],
)
def test_wrong_use_is_said(up: Up, backfill: Backfill, arguments: list[str], said: str) -> None:
    assert said in backfill(*arguments, status=2)["error"]


def test_an_unknown_backfill_is_said(up: Up, backfill: Backfill) -> None:
    assert "backfill_unknown" in backfill("--undo", "nothing", "--reason", "r", "--yes", status=1)["error"]
