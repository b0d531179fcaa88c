"""Stripe's events over real HTTP: statuses end right and each event counts once, whatever comes in whatever order."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from flusher import serving
from flusher.invoicing.invoice import Status
from flusher.invoicing.status import Brought, bring
from flusher.serving import HttpServer
from flusher.webhooks.config import secrets_from
from flusher.webhooks.receive import KEEP_DAYS, Door
from flusher.webhooks.serve import BODY_MAX, PATH, Desk, serve
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address
from tests.invoicing.delivery import FINALIZE, READ, Open, deliver, load, make
from tests.invoicing.finals import finals_to, send
from tests.invoicing.world import World
from tests.stripe_stand_in import ACCOUNT, StripeStandIn
from tests.stripe_stand_in.shapes import Resource
from tests.stripe_stand_in.webhooks import Delivery, delivery, post, sign

SECRET = "whsec_first_of_ours"
NEXT_SECRET = "whsec_second_of_ours"


@pytest.fixture
def desk(world: World, stand_in: StripeStandIn) -> Iterator[Desk]:
    with closing(Desk(world.url, lambda: finals_to(stand_in), Door((SECRET, NEXT_SECRET), ACCOUNT, False))) as made:
        yield made


@pytest.fixture
def server(desk: Desk) -> Iterator[HttpServer]:
    with serve(Address("127.0.0.1", 0), desk) as running:
        yield running


def url_of(server: HttpServer) -> str:
    return f"http://{server.address}{PATH}"


def counted(desk: Desk) -> dict[str, int]:
    """Return how many events had each outcome."""
    value = desk.metrics.registry.get_sample_value
    outcomes = ("applied", "current", "duplicate", "ignored")
    return {name: int(value("taximeter_webhooks_events_total", {"outcome": name}) or 0) for name in outcomes}


def the_event(stand_in: StripeStandIn, kind: str) -> Resource:
    return next(event for event in reversed(stand_in.test.events) if event["type"] == kind)


def test_a_storm_of_events_ends_with_stripes_statuses_and_each_event_once(
    world: World, stand_in: StripeStandIn, open_gateway: Open, desk: Desk, server: HttpServer
) -> None:
    # Given invoices that come to every end, one by a detour
    sent = [send(world, stand_in, open_gateway, f"cus_{number}") for number in range(6)]
    ends = [
        ["pay"],
        ["void"],
        ["mark_uncollectible"],
        ["mark_uncollectible", "pay"],
        ["mark_uncollectible", "void"],
        [],
    ]
    for (_, theirs), steps in zip(sent, ends, strict=True):
        for step in steps:
            getattr(stand_in.test, step)(theirs, {"paid_out_of_band": True} if step == "pay" else {})
    events = [event for event in stand_in.test.events if event["type"].startswith("invoice.")]
    stand_in.test.emit("payout.paid", {"id": "po_1", "object": "payout"})
    dice = random.Random(20261122)

    # When each comes several times, under either secret, among forged, altered, old and future ones, all mixed
    now = int(time.time())
    good = [delivery(event, dice.choice([SECRET, NEXT_SECRET])) for event in events for _ in range(3)]
    good.append(delivery(stand_in.test.events[-1], SECRET))
    bad = [delivery(event, SECRET, at=now + apart) for event in events for apart in (-330, 330, 86_400)]
    bad += [delivery(event, "whsec_of_somebody_else") for event in events]
    bad += [Delivery(sent.body.replace(b'"paid"', b'"void"') + b" ", sent.signature) for sent in good[::3]]
    storm = [(sent, 200) for sent in good] + [(sent, 400) for sent in bad]
    dice.shuffle(storm)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: (post(url_of(server), one[0]), one[1]), storm))

    # Then every answer is right, and so is every status
    assert [answer for answer, expected in answers if answer != expected] == []
    statuses = [load(world, ours).status.value for ours, _ in sent]
    assert statuses == ["paid", "void", "uncollectible", "paid", "void", "open"]
    assert statuses == [stand_in.test.invoices[theirs]["status"] for _, theirs in sent]
    found = world.connection.execute("SELECT count(*), count(DISTINCT id) FROM stripe_events").fetchone()
    assert found == (len(events), len(events))
    outcomes = counted(desk)
    assert outcomes["applied"] == 5
    assert outcomes["applied"] + outcomes["current"] == len(events)
    assert (outcomes["duplicate"], outcomes["ignored"]) == (2 * len(events), 1)
    assert desk.metrics.registry.get_sample_value(
        "taximeter_webhooks_refusals_total", {"code": "signature_invalid"}
    ) == len(bad)


def test_an_older_status_never_wins(world: World, stand_in: StripeStandIn, open_gateway: Open) -> None:
    ours, _ = send(world, stand_in, open_gateway)
    for theirs, brought in (
        (Status.UNCOLLECTIBLE, Brought.CHANGED),
        (Status.OPEN, Brought.CURRENT),
        (Status.PAID, Brought.CHANGED),
        (Status.UNCOLLECTIBLE, Brought.CURRENT),
        (Status.VOID, Brought.CURRENT),
        (Status.DRAFT, Brought.CURRENT),
    ):
        assert bring(world.connection, ours, theirs) is brought
    assert load(world, ours).status is Status.PAID


def test_an_event_that_overtakes_our_own_delivery_is_asked_for_again(
    world: World, stand_in: StripeStandIn, open_gateway: Open, server: HttpServer
) -> None:
    # Given an invoice that Stripe finalized, whose answer was lost, and that was paid at once
    ours = make(world, stand_in)
    stand_in.fault(FINALIZE, "after", "drop")
    deliver(world, open_gateway(), ours)
    (theirs,) = stand_in.test.invoices
    early = the_event(stand_in, "invoice.finalized")
    assert post(url_of(server), delivery(early, SECRET)) == 200
    stand_in.test.pay(theirs, {"paid_out_of_band": True})
    paid = the_event(stand_in, "invoice.paid")
    assert post(url_of(server), delivery(paid, SECRET)) == 503

    # When delivery has ended with what it was told first, then the event takes effect
    deliver(world, open_gateway(), ours)
    assert post(url_of(server), delivery(paid, SECRET)) == 200
    assert load(world, ours).status is Status.PAID


def test_200_means_committed_so_a_stripe_that_does_not_answer_is_asked_for_the_event_again(
    world: World, stand_in: StripeStandIn, open_gateway: Open, server: HttpServer
) -> None:
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.void(theirs, {})
    event = the_event(stand_in, "invoice.voided")
    stand_in.fault(READ, "before", 500)

    assert post(url_of(server), delivery(event, SECRET)) == 503
    assert load(world, ours).status is Status.OPEN
    assert post(url_of(server), delivery(event, SECRET)) == 200
    assert load(world, ours).status is Status.VOID


def test_events_of_others_do_nothing_and_those_of_another_account_or_mode_are_refused(
    world: World, stand_in: StripeStandIn, open_gateway: Open, desk: Desk, server: HttpServer
) -> None:
    # Given invoices that somebody else made, one that copies our metadata among them
    ours, theirs = send(world, stand_in, open_gateway)
    stand_in.test.create_invoice("", {"customer": "cus_1", "currency": "usd"})
    foreign = the_event(stand_in, "invoice.created")
    copied = stand_in.test.invoices[theirs]["metadata"]
    stand_in.test.create_invoice("", {"customer": "cus_1", "currency": "usd", "metadata": copied})
    copy = the_event(stand_in, "invoice.created")
    gone = {**copy, "id": "evt_gone", "data": {"object": {"id": "in_gone", "object": "invoice"}}}

    for event in (foreign, copy, gone):
        assert post(url_of(server), delivery(event, SECRET)) == 200
    assert counted(desk)["ignored"] == 3
    for other in ({"livemode": True}, {"account": "acct_other"}):
        event = {**the_event(stand_in, "invoice.finalized"), "id": "evt_other", **other}
        assert post(url_of(server), delivery(event, SECRET)) == 403
    assert load(world, ours).status is Status.OPEN
    assert load(world, ours).stripe_invoice == theirs


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"id": 1}', b'{"id": "e", "type": "t"}']
)
def test_what_is_signed_and_no_event_is_refused(server: HttpServer, body: bytes) -> None:
    signature = delivery({}, SECRET).signature
    assert post(url_of(server), Delivery(body, signature)) == 400
    assert post(url_of(server), Delivery(body, sign(body, SECRET))) == 400


def test_bodies_are_bounded_in_size_and_time(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection((server.address.host, server.address.port), timeout=30) as large:
        large.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_MAX + 1}\r\n\r\n".encode())
        assert b"413" in large.recv(100)
    assert post(f"http://{server.address}/elsewhere", delivery({}, SECRET)) == 404
    monkeypatch.setattr(serving, "REQUEST_DEADLINE_S", 0.5)
    with socket.create_connection((server.address.host, server.address.port), timeout=30) as slow:
        slow.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        began = time.monotonic()
        assert b"408" in slow.recv(100)
        assert time.monotonic() - began < 4


def test_events_are_forgotten_when_stripe_sends_them_no_more(
    world: World, stand_in: StripeStandIn, open_gateway: Open, server: HttpServer
) -> None:
    send(world, stand_in, open_gateway)
    for days in (KEEP_DAYS - 1, KEEP_DAYS + 1):
        world.connection.execute(
            "INSERT INTO stripe_events VALUES (%s, 'invoice.paid', now() - make_interval(days => %s))",
            (f"evt_{days}", days),
        )
    assert post(url_of(server), delivery(the_event(stand_in, "invoice.finalized"), SECRET)) == 200
    left = {row[0] for row in world.connection.execute("SELECT id FROM stripe_events").fetchall()}
    assert f"evt_{KEEP_DAYS - 1}" in left
    assert f"evt_{KEEP_DAYS + 1}" not in left


def test_the_command_receives_events_and_shows_no_secret(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given the program as people start it
    ours, theirs = send(world, stand_in, open_gateway)
    environment = {
        "DATABASE_URL": world.url,
        "STRIPE_API_KEY": "sk_test_x",
        "STRIPE_API_BASE": stand_in.base_url,
        "TAXIMETER_STRIPE_WEBHOOK_SECRET": f"{SECRET} {NEXT_SECRET}",
        "TAXIMETER_WEBHOOKS_HTTP": "127.0.0.1:0",
    }
    command = [sys.executable, "-m", "flusher", "webhooks"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        said = ""
        while (found := re.search(rf"http://[\d.]+:\d+{PATH}", said)) is None:
            line = program.stderr.readline()
            assert line, said
            said += line

        # When an invoice is paid
        stand_in.test.pay(theirs, {"paid_out_of_band": True})
        status = post(found[0], delivery(the_event(stand_in, "invoice.paid"), NEXT_SECRET))
        forged = post(found[0], delivery(the_event(stand_in, "invoice.paid"), "whsec_forged"))
        program.send_signal(signal.SIGTERM)
        said += program.communicate(timeout=60)[1]

    # Then it is so here, and nothing that was said has a secret or the key in it
    assert (status, forged, program.returncode) == (200, 400, 0)
    assert load(world, ours).status is Status.PAID
    assert not any(secret in said for secret in (SECRET, NEXT_SECRET, "sk_test_x"))


def test_secrets_come_from_a_variable_or_a_file_and_are_never_shown(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("secrets") / "secrets"
    file.write_text(f"{SECRET}\n{NEXT_SECRET}\n")
    assert secrets_from({"TAXIMETER_STRIPE_WEBHOOK_SECRET_FILE": str(file)}) == (SECRET, NEXT_SECRET)
    assert secrets_from({"TAXIMETER_STRIPE_WEBHOOK_SECRET": f"{SECRET},{NEXT_SECRET}"}) == (SECRET, NEXT_SECRET)
    for wrong in ({}, {"TAXIMETER_STRIPE_WEBHOOK_SECRET": f"{SECRET} é"}):
        with pytest.raises(TaximeterError) as refused:
            secrets_from(wrong)
        assert SECRET not in str(refused.value)
    with pytest.raises(TaximeterError, match="both set"):
        secrets_from({"TAXIMETER_STRIPE_WEBHOOK_SECRET": SECRET, "TAXIMETER_STRIPE_WEBHOOK_SECRET_FILE": str(file)})


def test_what_comes_back_is_json_that_says_what_was_done(
    world: World, stand_in: StripeStandIn, open_gateway: Open, desk: Desk
) -> None:
    send(world, stand_in, open_gateway)
    sent = delivery(the_event(stand_in, "invoice.finalized"), SECRET)
    assert json.loads(desk.handle(sent.body, sent.signature).body)["outcome"] == "current"
    assert json.loads(desk.handle(sent.body, sent.signature).body)["outcome"] == "duplicate"
