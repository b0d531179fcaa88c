"""`taximeter credit`: drafts, lists, issues and discards credit notes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.invoicing.delivery import Open
from tests.invoicing.finals import CREDIT, send
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn

Command = Callable[..., int]


@pytest.fixture
def invoice(world: World, stand_in: StripeStandIn, open_gateway: Open, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_API_BASE", stand_in.base_url)
    return send(world, stand_in, open_gateway)[0]


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_note_is_drafted_listed_and_confirmed(
    stand_in: StripeStandIn, invoice: str, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("credit", "note", invoice, "--amount", "1.73", "--reason", "an outage", "--json") == 0
    note = shown(capsys)["credit_note"]
    assert (note["status"], note["amount"], note["stripe"]) == ("draft", "1.73", None)

    assert taximeter("credit", "--status", "draft") == 0
    assert note["id"] in capsys.readouterr().out
    assert taximeter("credit", "confirm", note["id"], "--json") == 0
    assert shown(capsys)["credit_note"]["status"] == "issued"
    assert len(stand_in.calls_to(CREDIT)) == 1
    assert taximeter("credit", "--invoice", invoice, "--json") == 0
    (listed,) = shown(capsys)["credit_notes"]
    assert listed["stripe"]["credit_note"] in stand_in.test.credit_notes
    assert taximeter("credit", "discard", note["id"]) == 1
    assert "already_decided" in capsys.readouterr().err


def test_lists_go_on_behind_a_note(invoice: str, taximeter: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for amount in ("1.00", "2.00", "3.00"):
        assert taximeter("credit", "note", invoice, "--amount", amount, "--reason", "why") == 0
    capsys.readouterr()
    amounts: list[str] = []
    after: list[str] = []
    while True:
        assert taximeter("credit", "--limit", "2", "--json", *after) == 0
        page = shown(capsys)
        amounts += [note["amount"] for note in page["credit_notes"]]
        if page["after"] is None:
            break
        after = ["--after", page["after"]]
    assert amounts == ["3.00", "2.00", "1.00"]


def test_what_it_can_not_use_is_wrong_use(invoice: str, taximeter: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (
        ("--amount", "1.00"),
        ("--reason", "why"),
        ("--amount", "1.00", "--line", "x", "--reason", "why"),
        ("--amount", "1.00", "--quantity", "1", "--reason", "why"),
        ("--amount", "-1", "--reason", "why"),
    ):
        assert taximeter("credit", "note", invoice, *flags) == 2
    assert taximeter("credit", "confirm", "note_of_nobody") == 1
    assert "credit_note_unknown" in capsys.readouterr().err


def test_a_live_key_needs_somebodys_word(
    world: World, stand_in: StripeStandIn, invoice: str, taximeter: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert taximeter("credit", "note", invoice, "--amount", "1.00", "--reason", "why") == 0
    (note,) = world.connection.execute("SELECT id FROM credit_notes").fetchone() or ("",)
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_x")
    monkeypatch.setenv("TAXIMETER_STRIPE_COLLECT", "true")
    for flags in ((), ("--live",)):
        assert taximeter("credit", "confirm", note, *flags) == 2
    assert taximeter("credit", "confirm", note, "--live", "--yes") == 1  # the ledger bills in test mode
    assert taximeter("invoices", "void", invoice, "--reason", "why", "--live") == 2
    assert stand_in.calls_to(CREDIT) == []
