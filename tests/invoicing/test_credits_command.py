"""`taximeter credits`: granting, taking back and seeing who drew what."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from flusher.invoicing.credit_store import record_draws
from flusher.invoicing.credits import Draw
from tests.invoicing.world import World

Run = Callable[..., int]

GRANT = ("credits", "grant", "--customer", "c1", "--amount", "100", "--currency", "usd", "--name", "Welcome")


@pytest.fixture
def report(taximeter: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command that succeeds and returns its JSON."""

    def run(*argv: str) -> Any:
        assert taximeter(*argv, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_grant_is_listed_with_its_balance_and_with_the_invoices_that_drew_from_it(
    world: World, report: Callable[..., Any]
) -> None:
    # given a grant, and an invoice that drew from it
    world.subscribe("c1", end="2025-08-01T00:00:00Z")
    (invoice,) = world.run().invoices
    report(*GRANT, "--id", "g1", "--expires", "2999-01-01", "--priority", "7", "--cost-basis", "0.8")
    record_draws(world.connection, {invoice.id: [Draw("g1", Decimal("30.50"))]})

    # when credits are listed
    found = report("credits")

    # then both are there
    assert found["balances"] == [{"customer": "c1", "currency": "usd", "balance": "69.5"}]
    (grant,) = found["grants"]
    times = ("effective_at", "granted_at")
    assert {**grant, **dict.fromkeys(times)} == {
        "id": "g1",
        "customer": "c1",
        "currency": "usd",
        "name": "Welcome",
        "kind": "prepaid",
        "state": "usable",
        "amount": "100",
        "remaining": "69.5",
        "voided": "0",
        "priority": 7,
        "cost_basis": "0.8",
        "effective_at": None,
        "expires_at": "2999-01-01T00:00:00Z",
        "granted_at": None,
        "voided_at": None,
        "void_reason": None,
        "draws": [{"invoice": invoice.id, "amount": "30.5"}],
    }


def test_a_grant_that_is_repeated_under_its_id_grants_nothing_more(report: Callable[..., Any]) -> None:
    first = report(*GRANT, "--id", "g1")
    assert report(*GRANT, "--id", "g1") == first
    assert len(report("credits")["grants"]) == 1


@pytest.mark.parametrize(
    "other",
    [("--amount", "99"), ("--customer", "c2"), ("--expires", "2999-01-01"), ("--effective", "2025-01-01")],
)
def test_another_grant_under_a_used_id_is_refused(
    taximeter: Run, report: Callable[..., Any], capsys: pytest.CaptureFixture[str], other: tuple[str, str]
) -> None:
    report(*GRANT, "--id", "g1")
    assert taximeter(*GRANT, "--id", "g1", *other) == 1
    assert "grant_differs" in capsys.readouterr().err
    assert report("credits")["grants"][0]["amount"] == "100"


def test_without_an_id_every_grant_is_one_of_its_own(report: Callable[..., Any]) -> None:
    report(*GRANT)
    report(*GRANT)
    assert report("credits", "--customer", "c1")["balances"][0]["balance"] == "200"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--amount", "1.005"), "--amount"),
        (("--amount", "0"), "--amount"),
        (("--amount", "-5"), "--amount"),
        (("--amount", "1e3"), "--amount"),
        (("--currency", "xxx"), "--currency"),
        (("--priority", "-1"), "--priority"),
        (("--name", ""), "--name"),
        (("--customer", "x" * 257), "--customer"),
        (("--expires", "2020-01-01"), "--expires"),
        (("--effective", "2030-01-01", "--expires", "2030-01-01"), "--expires"),
    ],
)
def test_a_grant_that_nobody_could_draw_is_wrong_use(
    taximeter: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert taximeter(*GRANT, *arguments) == 2
    assert named in capsys.readouterr().err


def test_what_is_left_of_a_grant_is_taken_back_with_a_reason(
    taximeter: Run, report: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report(*GRANT, "--id", "g1")
    taken = report("credits", "void", "g1", "--reason", "refunded")["grant"]
    assert (taken["state"], taken["remaining"], taken["voided"]) == ("void", "0", "100")
    assert report("credits")["balances"] == [{"customer": "c1", "currency": "usd", "balance": "0"}]
    assert taximeter("credits", "void", "g1", "--reason", "again") == 1
    assert "already_decided" in capsys.readouterr().err
    assert taximeter("credits", "void", "g2", "--reason", "none") == 1
    assert "grant_unknown" in capsys.readouterr().err


def test_a_long_list_comes_by_customers(report: Callable[..., Any]) -> None:
    for customer in ("c3", "c1", "c2"):
        report(*GRANT, "--customer", customer)
    first = report("credits", "--limit", "2")
    assert ([grant["customer"] for grant in first["grants"]], first["after"]) == (["c1", "c2"], "c2")
    rest = report("credits", "--limit", "2", "--after", "c2")
    assert ([grant["customer"] for grant in rest["grants"]], rest["after"]) == (["c3"], None)


def test_a_balance_counts_only_what_can_be_used_now(report: Callable[..., Any]) -> None:
    report(*GRANT, "--effective", "2020-01-01", "--expires", "2021-01-01")
    report(*GRANT, "--effective", "2999-01-01")
    found = report("credits")
    assert {grant["state"] for grant in found["grants"]} == {"expired", "later"}
    assert found["balances"][0]["balance"] == "0"


def test_a_person_reads_a_table(taximeter: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert taximeter("credits") == 0
    assert "no credit" in capsys.readouterr().out
    taximeter(*GRANT, "--id", "g1")
    capsys.readouterr()
    assert taximeter("credits") == 0
    shown = capsys.readouterr().out
    assert "Welcome" in shown
    assert "100 USD" in shown
