"""Credit notes are drafts until they are confirmed, take off no more than there is, and are issued once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from itertools import product
from typing import Any, Literal

import pytest

from flusher.database import connect
from flusher.invoicing.corrections import Corrector
from flusher.invoicing.credit_notes import NoteStatus, PaidAs, Wanted, discard_note, draft_note, load_note
from flusher.invoicing.gateway import RefusedError, UnavailableError
from flusher.invoicing.invoice import Status
from sidecar.contract.codes import TaximeterError
from tests.invoicing.delivery import READ, Open, age_intents, load, make
from tests.invoicing.dying import LEFT, DyingCursor, Killed
from tests.invoicing.finals import CREDIT, FIND, finals_to, send
from tests.invoicing.test_lost_calls import DyingGateway
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

WHY = "billed in error"


def draft(world: World, invoice: str, amount: str, **options: Any) -> str:
    return draft_note(world.connection, invoice, Wanted(Decimal(amount), **options), WHY).id


def confirm(world: World, gateway: Any, note: str) -> None:
    Corrector(world.connection, gateway).confirm(note)


def assert_issued_once(world: World, stand_in: StripeStandIn, note: str, amount: int) -> None:
    """Stripe has one credit note of it, of that amount, and ours says which."""
    ours = load_note(world.connection, note)
    (theirs,) = (
        found for found in stand_in.test.credit_notes.values() if found["metadata"].get("taximeter_credit_note") == note
    )
    assert (ours.status, ours.stripe_credit_note, ours.problem) == (NoteStatus.ISSUED, theirs["id"], None)
    assert (theirs["amount"], theirs["status"], theirs["memo"]) == (amount, "issued", WHY)


def test_a_note_is_a_draft_until_it_is_confirmed(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    note = draft(world, ours, "1.73")
    assert stand_in.calls_to(CREDIT) == []

    for _ in range(2):  # again changes nothing
        confirm(world, finals_to(stand_in), note)

    assert_issued_once(world, stand_in, note, 173)
    assert stand_in.test.invoices[theirs]["amount_remaining"] == 10_000
    assert load(world, ours).status is Status.OPEN


@pytest.mark.parametrize("paid_as", list(PaidAs))
def test_what_is_paid_already_is_given_back_as_was_asked(
    world: World, stand_in: StripeStandIn, open_gateway: Open, paid_as: PaidAs
) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    first = draft(world, ours, "1.73", paid_as=paid_as)
    confirm(world, finals_to(stand_in), first)
    stand_in.test.pay(theirs, {})

    second = draft(world, ours, "40.00", paid_as=paid_as)
    confirm(world, finals_to(stand_in), second)

    assert_issued_once(world, stand_in, second, 4_000)
    name = {"balance": "credit_amount", "refund": "refund_amount", "outside": "out_of_band_amount"}[paid_as]
    asked = [call.params.get(name) for call in stand_in.calls_to(CREDIT)]
    assert asked == [None, "4000"]


def test_an_open_invoice_that_is_credited_whole_is_paid(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    note = draft(world, ours, "101.73")
    confirm(world, finals_to(stand_in), note)
    assert_issued_once(world, stand_in, note, 10_173)
    assert load(world, ours).status is Status.PAID


def test_a_line_and_a_part_of_a_line_are_credited_by_their_share(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given 9,000 calls at 0.01 and 2,345 at 0.005, which were 11.73
    ours, _ = send(world, stand_in, open_gateway)
    _, dear, cheap = load(world, ours).lines
    whole = draft_note(world.connection, ours, Wanted(line=dear.id), WHY)
    part = draft_note(world.connection, ours, Wanted(line=cheap.id, quantity=Decimal(1)), WHY)
    assert (whole.amount, part.amount) == (Decimal("90.00"), Decimal("0.01"))

    confirm(world, finals_to(stand_in), whole.id)
    confirm(world, finals_to(stand_in), part.id)

    assert_issued_once(world, stand_in, whole.id, 9_000)
    lines = [note["lines"]["data"][0] for note in stand_in.test.credit_notes.values()]
    assert [line["description"] for line in lines] == [dear.description, cheap.description]
    with pytest.raises(TaximeterError) as refused:
        draft_note(world.connection, ours, Wanted(line=dear.id, quantity=Decimal(1)), WHY)
    assert refused.value.code == "credit_too_large"


def test_no_more_is_taken_off_than_is_left_however_many_try(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ours, _ = send(world, stand_in, open_gateway)

    def attempt(_number: int) -> str:
        with connect(world.url, autocommit=True) as connection:
            try:
                return draft_note(connection, ours, Wanted(Decimal("30.00")), WHY).id
            except TaximeterError as error:
                return error.code

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(attempt, range(6)))
    notes = [note for note in made if note.startswith("note_")]
    assert (len(notes), made.count("credit_too_large")) == (3, 3)

    # A draft that is discarded makes room
    discard_note(world.connection, notes[0])
    with pytest.raises(TaximeterError) as refused:
        confirm(world, finals_to(stand_in), notes[0])
    assert refused.value.code == "already_decided"
    draft(world, ours, "41.73")


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (Wanted(Decimal(0)), "usage_invalid"),
        (Wanted(Decimal("0.005")), "usage_invalid"),
        (Wanted(Decimal("101.74")), "credit_too_large"),
        (Wanted(line="line_of_nobody"), "line_unknown"),
    ],
)
def test_what_can_not_be_taken_off_is_refused(
    world: World, stand_in: StripeStandIn, open_gateway: Open, wanted: Wanted, code: str
) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    with pytest.raises(TaximeterError) as refused:
        draft_note(world.connection, ours, wanted, WHY)
    assert refused.value.code == code


def test_a_draft_invoice_and_a_void_one_take_no_credit_notes(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    waiting = make(world, stand_in, "cus_waits")
    ours, _ = send(world, stand_in, open_gateway)
    note = draft(world, ours, "1.00")
    Corrector(world.connection, finals_to(stand_in)).void(ours, WHY)
    refused: list[Callable[[], object]] = [
        lambda: draft(world, waiting, "1.00"),
        lambda: draft(world, ours, "1.00"),
        lambda: confirm(world, finals_to(stand_in), note),
    ]
    for attempt in refused:
        with pytest.raises(TaximeterError) as found:
            attempt()
        assert found.value.code == "invoice_not_final"


@pytest.mark.parametrize("effect", ["before", "after"])
def test_a_call_that_is_lost_is_made_up_for(
    world: World, stand_in: StripeStandIn, open_gateway: Open, effect: Literal["before", "after"]
) -> None:
    answers: tuple[Literal["drop"] | int, ...] = ("drop", 409, 429, 500)
    for route, answer, later in product((CREDIT, READ), answers, (False, True)):
        # Given a confirmation whose call fails before or after its effect
        ours, _ = send(world, stand_in, open_gateway, f"cus_{len(route)}_{answer}_{later}")
        note = draft(world, ours, "1.73")
        stand_in.fault(route, effect, answer)
        # a 500 that is replayed is looked up at once, and made again under another key
        with suppress(UnavailableError):
            confirm(world, finals_to(stand_in), note)
        if load_note(world.connection, note).status is NoteStatus.CONFIRMING:
            with pytest.raises(TaximeterError) as kept:
                discard_note(world.connection, note)
            assert kept.value.code == "delivery_in_progress"

        # When it is confirmed again, at once or when the key is forgotten
        if later:
            age_intents(world, stand_in)
        confirm(world, finals_to(stand_in), note)

        # Then there is one credit note
        assert_issued_once(world, stand_in, note, 173)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_any_call_it_is_one_credit_note(
    world: World, stand_in: StripeStandIn, open_gateway: Open, moment: str
) -> None:
    for call, later in product(range(4), (False, True)):
        ours, _ = send(world, stand_in, open_gateway, f"cus_{call}_{later}")
        note = draft(world, ours, "1.73")
        dying = DyingGateway(finals_to(stand_in), call, moment)
        try:
            confirm(world, dying, note)
            assert call == 3  # what remains, the credit note, the status
        except Killed:
            assert call < 3
        if later:
            age_intents(world, stand_in)
        confirm(world, finals_to(stand_in), note)
        assert_issued_once(world, stand_in, note, 173)


def test_killed_at_any_statement_it_is_one_credit_note(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given confirmations, each of which is killed one statement later than the one before, until one ends by itself
    ours, _ = send(world, stand_in, open_gateway)
    note = draft(world, ours, "1.73")
    for statements in range(100):
        with connect(world.url, autocommit=True) as connection:
            connection.cursor_factory = DyingCursor
            LEFT[0] = statements
            with suppress(Killed):
                Corrector(connection, finals_to(stand_in)).confirm(note)
                break

    # Then there is one credit note
    assert 8 < statements < 99
    assert_issued_once(world, stand_in, note, 173)
    assert len(stand_in.test.credit_notes) == 1


def test_confirmed_twice_at_once_it_is_one_credit_note(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    note = draft(world, ours, "1.73")

    def attempt(_number: int) -> NoteStatus:
        with connect(world.url, autocommit=True) as connection:
            return Corrector(connection, finals_to(stand_in)).confirm(note).status

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(attempt, range(3))) == {NoteStatus.ISSUED}
    assert_issued_once(world, stand_in, note, 173)
    assert len(stand_in.calls_to(CREDIT)) == 1


def test_what_stripe_refuses_is_a_draft_again_with_the_reason(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given that somebody took almost everything off at Stripe by hand
    ours, theirs = send(world, stand_in, open_gateway)
    by_hand = stand_in.test.create_credit_note("", {"invoice": theirs, "amount": 10_100})
    note = draft(world, ours, "1.73")

    with pytest.raises(RefusedError):
        confirm(world, finals_to(stand_in), note)
    refused = load_note(world.connection, note)
    assert refused.status is NoteStatus.DRAFT
    assert "at most 73" in str(refused.problem)

    # When that is taken back, it can be confirmed
    stand_in.test.void_credit_note(by_hand["id"], {})
    confirm(world, finals_to(stand_in), note)
    assert_issued_once(world, stand_in, note, 173)
    assert len(stand_in.calls_to(FIND)) == 1


def test_an_invoice_that_is_not_at_stripe_is_credited_here_alone(world: World) -> None:
    world.subscribe("cus_1", end="2025-08-01T00:00:00Z")
    world.use("cus_1", 12345, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1)).invoices
    for amount, status in (("100.00", Status.OPEN), ("1.73", Status.PAID)):
        note = draft(world, invoice.id, amount)
        confirm(world, None, note)
        assert load_note(world.connection, note).status is NoteStatus.ISSUED
        assert load(world, invoice.id).status is status


def test_an_invoice_that_is_at_stripe_needs_a_key(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    with pytest.raises(TaximeterError) as refused:
        confirm(world, None, draft(world, ours, "1.00"))
    assert refused.value.code == "stripe_key_missing"


def test_crediting_does_not_bill_the_usage_again(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    confirm(world, finals_to(stand_in), draft(world, ours, "50.00"))
    assert world.run(utc(2025, 8, 2), stripe=True).invoices == []
