"""Every difference between here and Stripe is found, and nothing else."""

import json
from collections.abc import Callable, Iterator

import pytest

from flusher.invoicing import reconcile as module
from flusher.invoicing.invoice import Status
from flusher.invoicing.reconcile import Difference, Differs, reconcile
from flusher.invoicing.store import ledger_of
from tests.invoicing.delivery import FINALIZE, Open, deliver, load, make
from tests.invoicing.finals import finals_to, send
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.shapes import Resource

LIST = "GET /v1/invoices"

Plant = Callable[[World, StripeStandIn, Open], str]


def compare(world: World, stand_in: StripeStandIn, *, fix_status: bool = False) -> list[Difference]:
    return list(reconcile(world.connection, finals_to(stand_in), fix_status=fix_status))


def kinds(found: list[Difference]) -> list[tuple[Differs, str]]:
    """Return what was found with the id that names it: ours, Stripe's where there is none."""
    return [(one.kind, side.id) for one in found if (side := one.here or one.there) is not None]


def theirs_of(world: World, stand_in: StripeStandIn, ours: str) -> Resource:
    return stand_in.test.invoices[str(load(world, ours).stripe_invoice)]


def _deleted(world: World, stand_in: StripeStandIn, open_gateway: Open) -> str:
    ours, theirs = send(world, stand_in, open_gateway, "cus_planted")
    del stand_in.test.invoices[theirs]
    return ours


def _another_amount(world: World, stand_in: StripeStandIn, open_gateway: Open) -> str:
    ours, theirs = send(world, stand_in, open_gateway, "cus_planted")
    stand_in.test.invoices[theirs]["subtotal"] += 1
    return ours


def _another_status(world: World, stand_in: StripeStandIn, open_gateway: Open) -> str:
    ours, theirs = send(world, stand_in, open_gateway, "cus_planted")
    stand_in.test.pay(theirs, {})
    return ours


def _finalized_by_hand(world: World, stand_in: StripeStandIn, open_gateway: Open) -> str:
    ours = make(world, stand_in, "cus_planted")
    stand_in.fault(FINALIZE, "after", "drop")
    deliver(world, open_gateway(), ours)
    return ours


def _twice_there(world: World, stand_in: StripeStandIn, open_gateway: Open) -> str:
    ours, theirs = send(world, stand_in, open_gateway, "cus_planted")
    metadata = stand_in.test.invoices[theirs]["metadata"]
    return ours if _final(stand_in, metadata) else ""


def _unknown(world: World, stand_in: StripeStandIn, _open: Open) -> str:
    stand_in.test.add_customer("cus_planted")
    ledger, _ = ledger_of(world.connection)
    return _final(stand_in, {"taximeter_ledger": ledger, "taximeter_invoice": "inv_of_nobody"})


def _final(stand_in: StripeStandIn, metadata: dict[str, str]) -> str:
    params = {"customer": "cus_planted", "currency": "usd", "metadata": metadata}
    made = stand_in.test.create_invoice("", params)["id"]
    stand_in.test.create_item("", {"customer": "cus_planted", "invoice": made, "amount": 500, "currency": "usd"})
    return str(stand_in.test.finalize(made, {})["id"])


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (_deleted, Differs.MISSING_THERE),
        (_another_amount, Differs.AMOUNT),
        (_another_status, Differs.STATUS),
        (_finalized_by_hand, Differs.NOT_DELIVERED_HERE),
        (_twice_there, Differs.UNKNOWN_HERE),
        (_unknown, Differs.UNKNOWN_HERE),
    ],
)
def test_what_is_planted_is_found_and_nothing_else(
    world: World, stand_in: StripeStandIn, open_gateway: Open, plant: Plant, kind: Differs
) -> None:
    # Given invoices that are the same, drafts on their way, somebody else's, and one that is not
    send(world, stand_in, open_gateway, "cus_same")
    make(world, stand_in, "cus_waits")
    stand_in.test.create_invoice("", {"customer": "cus_same", "currency": "usd"})
    name = plant(world, stand_in, open_gateway)

    # Then it alone is found
    assert kinds(compare(world, stand_in)) == [(kind, name)]


def test_statuses_are_brought_up_to_date_when_that_is_wanted(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    sent = [send(world, stand_in, open_gateway, f"cus_{number}") for number in range(3)]
    for (_, theirs), step in zip(sent, ("pay", "void", "mark_uncollectible"), strict=True):
        getattr(stand_in.test, step)(theirs, {})

    assert [one.fixed for one in compare(world, stand_in)] == [False] * 3
    assert [one.fixed for one in compare(world, stand_in, fix_status=True)] == [True] * 3
    assert compare(world, stand_in) == []
    assert [load(world, ours).status for ours, _ in sent] == [Status.PAID, Status.VOID, Status.UNCOLLECTIBLE]


def test_a_status_that_stripe_can_not_go_back_to_is_shown_and_not_taken(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.pay(theirs, {})
    compare(world, stand_in, fix_status=True)
    stand_in.test.invoices[theirs]["status"] = "open"

    (found,) = compare(world, stand_in, fix_status=True)
    assert (found.kind, found.fixed) == (Differs.STATUS, False)
    assert load(world, ours).status is Status.PAID


def test_it_reads_page_by_page_and_keeps_no_more_than_a_page(
    world: World, stand_in: StripeStandIn, open_gateway: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more invoices at Stripe than a page, the oldest of them ours
    ours, _ = send(world, stand_in, open_gateway)
    theirs_of(world, stand_in, ours)["subtotal"] += 1
    _, _ = send(world, stand_in, open_gateway, "cus_missing")
    stand_in.test.add_customer("cus_planted")
    for number in range(250):
        ledger, _shards = ledger_of(world.connection)
        stand_in.test.create_invoice(
            "",
            {
                "customer": "cus_planted",
                "currency": "usd",
                "metadata": {"taximeter_ledger": ledger, "taximeter_invoice": f"inv_{number}"},
            },
        )
    pages: list[int] = []
    monkeypatch.setattr(module, "islice", lambda found, most: _noted(found, most, pages))

    assert kinds(compare(world, stand_in)) == [(Differs.AMOUNT, ours)]
    assert len(stand_in.calls_to(LIST)) == 3
    assert max(pages) == 100


def _noted(found: Iterator[object], most: int, pages: list[int]) -> list[object]:
    page = [one for _, one in zip(range(most), found, strict=False)]
    pages.append(len(page))
    return page


def test_the_command_lists_them_and_ends_with_1_until_there_are_none(
    world: World,
    stand_in: StripeStandIn,
    open_gateway: Open,
    taximeter: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_API_BASE", stand_in.base_url)
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.pay(theirs, {})

    assert taximeter("reconcile", "--stripe") == 1
    assert f"status: here {ours}, 101.73 USD, open; at Stripe {theirs}, 101.73 USD, paid" in capsys.readouterr().out
    assert taximeter("reconcile", "--stripe", "--json", "--fix-status") == 0
    shown = capsys.readouterr()
    (difference,) = json.loads(shown.out)["differences"]
    assert (difference["kind"], difference["fixed"]) == ("status", True)
    assert difference["there"] == {"id": theirs, "status": "paid", "sum": 10173, "currency": "usd"}
    assert "1 invoices compared, 0 differences left" in shown.err
    assert taximeter("reconcile", "--stripe") == 0
    assert taximeter("reconcile") == 2
    monkeypatch.delenv("STRIPE_API_KEY")
    assert taximeter("reconcile", "--stripe") == 1


def test_a_key_of_another_account_is_refused(
    world: World,
    stand_in: StripeStandIn,
    open_gateway: Open,
    taximeter: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.connection.execute("INSERT INTO stripe_binding (account, livemode) VALUES ('acct_first', false)")
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    monkeypatch.setenv("STRIPE_API_BASE", stand_in.base_url)
    assert taximeter("reconcile", "--stripe") == 1
    assert "stripe_account_changed" in capsys.readouterr().err
