"""`taximeter invoice` and `taximeter invoices`, as a script and a person use them."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flusher.cli.main import main
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

Run = Callable[..., int]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command against the world's database, in an empty directory, without anything of the environment."""
    for name in ("STRIPE_API_KEY", "STRIPE_API_KEY_FILE", "STRIPE_API_BASE", "REDIS_URL", "TAXIMETER_STRIPE_COLLECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", world.url)
    monkeypatch.chdir(tmp_path)

    def command(*argv: str) -> int:
        try:
            return main(argv)
        except SystemExit as exit_:
            return int(str(exit_.code))

    return command


@pytest.fixture
def with_stripe(stand_in: StripeStandIn, monkeypatch: pytest.MonkeyPatch, run: Run) -> StripeStandIn:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_API_BASE", stand_in.base_url)
    return stand_in


class Terminal(io.StringIO):
    """A person at standard input."""

    def isatty(self) -> bool:
        return True


def july(world: World, customer: str = "cus_1", units: int = 12345) -> None:
    world.subscribe(customer)
    world.use(customer, units, utc(2025, 7, 5))


def report(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_invoice_reports_in_the_shape_of_the_interface(
    world: World, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    july(world)

    status = run("invoice", "--at", "2025-08-01T00:00:00Z", "--json")

    found = report(capsys)
    assert status == 0
    assert (found["waiting"], found["parked"]) == ([], [])
    (invoice,) = found["invoices"]
    line = invoice["lines"][2]
    assert {**invoice, "id": None, "lines": len(invoice["lines"])} == {
        "id": None,
        "customer": "cus_1",
        "subscription": "cus_1/pro",
        "plan": "pro",
        "plan_version": 1,
        "currency": "usd",
        "period": {"from": "2025-07-01T00:00:00Z", "to": "2025-08-01T00:00:00Z"},
        "status": "open",
        "delivery": "none",
        "reason": None,
        "detail": None,
        "total": "101.73",
        "lines": 3,
        "stripe": None,
        "closed_without": [],
    }
    assert {**line, "id": None, "description": None} == {
        "id": None,
        "kind": "usage",
        "price": "calls",
        "meter": "api_call",
        "dimensions": None,
        "tier": 3,
        "period": {"from": "2025-07-01T00:00:00Z", "to": "2025-08-01T00:00:00Z"},
        "description": None,
        "quantity": "2345",
        "unit_price": "0.005",
        "amount": "11.73",
    }


def test_a_dry_run_makes_nothing(world: World, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    july(world)

    assert run("invoice", "--at", "2025-08-01", "--dry-run", "--json") == 0

    assert [invoice["total"] for invoice in report(capsys)["invoices"]] == ["101.73"]
    assert run("invoices", "--json") == 0
    assert report(capsys) == {"invoices": [], "after": None}


def test_with_a_key_the_invoice_is_sent_and_a_second_run_has_nothing_to_do(
    world: World, run: Run, with_stripe: StripeStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    with_stripe.test.add_customer("cus_1")
    july(world)

    assert run("invoice", "--at", "2025-08-01", "--json") == 0
    (invoice,) = report(capsys)["invoices"]
    (theirs,) = with_stripe.test.invoices
    assert (invoice["status"], invoice["delivery"], invoice["stripe"]) == ("open", "sent", {"invoice": theirs})

    assert run("invoice", "--at", "2025-08-01", "--json") == 0
    assert report(capsys) == {"invoices": [], "waiting": [], "parked": []}


def test_a_parked_invoice_exits_with_1_and_says_how_to_mend_it(
    world: World, run: Run, with_stripe: StripeStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    with_stripe.test.add_customer("cus_2")
    july(world, "cus_1")
    july(world, "cus_2")

    assert run("invoice", "--at", "2025-08-01", "--json") == 1

    found = report(capsys)
    assert [invoice["customer"] for invoice in found["invoices"]] == ["cus_2"]
    assert [(invoice["customer"], invoice["delivery"]) for invoice in found["parked"]] == [("cus_1", "parked")]
    assert run("invoice", "--at", "2025-08-01") == 1
    shown = capsys.readouterr().err
    assert "1 of 1 customers are not at Stripe, their invoices are parked: cus_1 (missing)" in shown
    assert re.search(r"parked: inv_\w+ \(cus_1\): stripe_customer_missing: .*TAXIMETER_STRIPE_CREATE_CUSTOMERS", shown)


def test_what_only_waits_exits_with_75(
    world: World, run: Run, with_stripe: StripeStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    with_stripe.test.add_customer("cus_1")
    july(world)
    world.discrepancy("cus_1", utc(2025, 7, 5))

    assert run("invoice", "--at", "2025-08-01", "--json") == 75

    found = report(capsys)
    assert (found["invoices"], found["parked"]) == ([], [])
    assert [(entry["customer"], entry["reason"], entry["invoice"]) for entry in found["waiting"]] == [
        ("cus_1", "proof_broken", None)
    ]


def test_a_key_that_is_refused_exits_with_1_and_keeps_what_was_made(
    world: World,
    run: Run,
    with_stripe: StripeStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "nonsense")
    monkeypatch.setenv("TAXIMETER_STRIPE_COLLECT", "false")
    july(world)

    # What does not say that it is for tests counts as live
    assert run("invoice", "--at", "2025-08-01") == 2
    capsys.readouterr()
    assert run("invoice", "--at", "2025-08-01", "--live", "--yes", "--json") == 1

    shown = capsys.readouterr()
    assert "stripe_key_refused" in shown.err
    assert [entry["reason"] for entry in json.loads(shown.out)["waiting"]] == ["stripe_key_refused"]


def test_a_live_key_needs_the_flag_the_setting_and_a_yes(
    world: World,
    run: Run,
    with_stripe: StripeStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_secret")
    with_stripe.stores[True].add_customer("cus_1")
    july(world)

    # Without --live nothing happens at all
    assert run("invoice", "--at", "2025-08-01") == 2
    assert "add --live" in capsys.readouterr().err
    # Without saying who collects neither
    assert run("invoice", "--at", "2025-08-01", "--live") == 1
    assert "TAXIMETER_STRIPE_COLLECT" in capsys.readouterr().err
    assert world.counts()["invoices"] == 0
    # Without --yes and nobody to ask neither
    monkeypatch.setenv("TAXIMETER_STRIPE_COLLECT", "true")
    assert run("invoice", "--at", "2025-08-01", "--live") == 2
    assert "nobody can be asked here: add --yes" in capsys.readouterr().err
    assert world.counts()["invoices"] == 0
    # A dry run needs nothing of it
    assert run("invoice", "--at", "2025-08-01", "--dry-run") == 0
    # With a no it is made and not sent
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run("invoice", "--at", "2025-08-01", "--live") == 1
    assert "send 1 invoice (101.73 USD) to Stripe, LIVE? [y/N]" in capsys.readouterr().err
    assert with_stripe.stores[True].invoices == {}
    # With a yes it is sent
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run("invoice", "--at", "2025-08-01", "--live") == 0
    (theirs,) = with_stripe.stores[True].invoices.values()
    assert (theirs["status"], theirs["auto_advance"]) == ("open", True)
    shown = capsys.readouterr()
    assert "secret" not in shown.out + shown.err


def test_invoices_made_with_stripe_wait_when_the_key_is_gone(
    world: World,
    run: Run,
    with_stripe: StripeStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_stripe.test.add_customer("cus_1")
    july(world)
    with_stripe.fault("POST /v1/invoices", "before", "drop", times=100)
    assert run("invoice", "--at", "2025-08-01", "--json") == 75
    assert [entry["reason"] for entry in report(capsys)["waiting"]] == ["stripe_unavailable"]

    monkeypatch.delenv("STRIPE_API_KEY")
    assert run("invoice", "--at", "2025-08-01", "--json") == 75
    assert len(report(capsys)["waiting"]) == 1


def test_the_key_is_read_from_a_file(
    world: World,
    run: Run,
    with_stripe: StripeStandIn,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_stripe.test.add_customer("cus_1")
    july(world)
    (tmp_path / "key").write_text("sk_test_from_file\n")
    monkeypatch.setenv("STRIPE_API_KEY_FILE", str(tmp_path / "key"))

    assert run("invoice", "--at", "2025-08-01") == 1
    assert "got both" in capsys.readouterr().err
    monkeypatch.delenv("STRIPE_API_KEY")
    assert run("invoice", "--at", "2025-08-01") == 0
    assert len(with_stripe.test.invoices) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"COLLECT": "yes"}, "TAXIMETER_STRIPE_COLLECT: expected true or false, got 'yes'"),
        ({"ZERO": "drop"}, "TAXIMETER_STRIPE_ZERO: expected send or keep, got 'drop'"),
        ({"COLLECTION_METHOD": "send_invoice"}, "TAXIMETER_STRIPE_DAYS_UNTIL_DUE: expected with"),
        ({"DAYS_UNTIL_DUE": "14"}, "TAXIMETER_STRIPE_DAYS_UNTIL_DUE: expected with"),
        ({"RATE": "0"}, "TAXIMETER_STRIPE_RATE: expected a whole number from 1 to 1000, got '0'"),
        ({"CONCURRENCY": "8.5"}, "TAXIMETER_STRIPE_CONCURRENCY: expected a whole number from 1 to 64, got '8.5'"),
        ({"AUTOMATIC_TAX": "1"}, "TAXIMETER_STRIPE_AUTOMATIC_TAX: expected true or false, got '1'"),
    ],
)
def test_a_setting_that_says_nothing_is_refused_before_anything_is_made(
    world: World,
    run: Run,
    with_stripe: StripeStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    said: str,
) -> None:
    july(world)
    for name, value in settings.items():
        monkeypatch.setenv(f"TAXIMETER_STRIPE_{name}", value)

    assert run("invoice", "--at", "2025-08-01") == 1

    assert said in capsys.readouterr().err
    assert world.counts()["invoices"] == 0


def test_settings_reach_the_draft_at_stripe(
    world: World, run: Run, with_stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_stripe.test.add_customer("cus_1")
    july(world)
    for name, value in (("COLLECT", "true"), ("COLLECTION_METHOD", "send_invoice"), ("DAYS_UNTIL_DUE", "30")):
        monkeypatch.setenv(f"TAXIMETER_STRIPE_{name}", value)

    assert run("invoice", "--at", "2025-08-01") == 0

    (theirs,) = with_stripe.test.invoices.values()
    assert (theirs["collection_method"], theirs["auto_advance"]) == ("send_invoice", True)
    assert theirs["due_date"] == theirs["created"] + 30 * 86400


@pytest.mark.parametrize("wrong", ["2025-08-01T00:00:00", "yesterday", "1754006400", "2025-13-01", "2025-02-30"])
def test_a_time_in_another_form_is_wrong_use(run: Run, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert run("invoice", "--at", wrong) == 2
    assert f"got '{wrong}'" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["-1", "1h", "259201", "9999999999999"])
def test_a_window_beyond_72_hours_is_wrong_use(run: Run, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert run("invoice", f"--finalization-window-s={wrong}") == 2
    assert "from 0 to 259200" in capsys.readouterr().err


def test_an_invoice_is_shown_for_a_person(world: World, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    july(world, "cus_123456")

    assert run("invoice", "--at", "2025-08-01") == 0

    shown = capsys.readouterr()
    assert "cus_123456/pro (plan pro, version 1)" in shown.out
    assert "2025-07-01 to 2025-08-01" in shown.out
    assert re.search(r"2,345 +0\.005 +11\.73", shown.out)
    assert re.search(r"total +101\.73 USD", shown.out)
    assert "1 invoice (101.73 USD) made or sent" in shown.err


def test_invoices_lists_pages_and_shows(world: World, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # Given three invoices
    for number in range(3):
        july(world, f"cus_{number}")
    run("invoice", "--at", "2025-08-01", "--json")
    capsys.readouterr()

    # When they are listed page by page
    assert run("invoices", "--limit", "2", "--json") == 0
    first = report(capsys)
    assert run("invoices", "--limit", "2", "--after", first["after"], "--json") == 0
    second = report(capsys)

    # Then every one comes once
    found = [invoice["customer"] for invoice in first["invoices"] + second["invoices"]]
    assert (sorted(found), second["after"]) == (["cus_0", "cus_1", "cus_2"], None)

    # And one is shown by its id
    chosen = first["invoices"][0]
    assert run("invoices", chosen["id"], "--json") == 0
    assert report(capsys) == chosen
    assert run("invoices", "--customer", "cus_1") == 0
    assert "cus_1/pro" in capsys.readouterr().out


def test_an_unknown_invoice_and_a_wrong_limit_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("invoices", "inv_nothing") == 1
    assert "no invoice 'inv_nothing'" in capsys.readouterr().err
    assert run("invoices", "--limit", "0") == 2
    assert "from 1 to 1000" in capsys.readouterr().err
