"""The stand-in's events are what Stripe's own package accepts as Stripe's."""

import http.server
import threading
from collections.abc import Iterator

import pytest
import stripe

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.client import stripe_client
from tests.stripe_stand_in.webhooks import delivery, post, sign

SECRET = "whsec_of_this_test"


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        running.test.add_customer("cus_1")
        yield running


def finalized(stand_in: StripeStandIn) -> str:
    """Make an open invoice and return its id."""
    invoice: str = stand_in.test.create_invoice("", {"customer": "cus_1", "currency": "usd"})["id"]
    stand_in.test.add_lines(invoice, {"lines": [{"amount": 500, "description": "Müller: 5 €"}]})
    stand_in.test.finalize(invoice, {})
    return invoice


def test_an_event_shows_its_object_as_it_was(stand_in: StripeStandIn) -> None:
    # Given an invoice that is finalized and then voided
    invoice = finalized(stand_in)
    stand_in.test.void(invoice, {})

    # When both events are read by Stripe's package, from signed bytes, in any order
    received = []
    for event in reversed(stand_in.test.events):
        sent = delivery(event, SECRET)
        received.append(stripe.Webhook.construct_event(sent.body, sent.signature, SECRET))

    # Then each shows the invoice of its own moment
    found = {event.type: event.data.object.status for event in received if event.type.startswith("invoice.")}
    assert found == {"invoice.created": "draft", "invoice.finalized": "open", "invoice.voided": "void"}


def test_a_signature_holds_for_its_bytes_its_secret_and_its_time(stand_in: StripeStandIn) -> None:
    finalized(stand_in)
    event = stand_in.test.events[-1]
    sent = delivery(event, "whsec_old", SECRET)

    assert stripe.Webhook.construct_event(sent.body, sent.signature, SECRET).id == event["id"]
    for body, signature in (
        (sent.body + b" ", sent.signature),
        (sent.body, delivery(event, "whsec_other").signature),
        (sent.body, sign(sent.body, SECRET, at=1)),
        (sent.body, sign(sent.body)),
    ):
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, SECRET)


def test_an_event_is_posted_as_its_bytes(stand_in: StripeStandIn) -> None:
    # Given an endpoint that keeps what comes
    received: list[tuple[bytes, str]] = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((body, self.headers["Stripe-Signature"]))
            self.send_response(200 if len(received) == 1 else 400)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    # When an event is posted twice
    finalized(stand_in)
    sent = delivery(stand_in.test.events[-1], SECRET)
    statuses = [post(f"http://127.0.0.1:{server.server_port}/stripe", sent) for _ in range(2)]
    server.shutdown()
    server.server_close()

    # Then it came twice, byte for byte
    assert received == [(sent.body, sent.signature)] * 2
    assert statuses == [200, 400]


def test_events_are_listed_newest_first_and_fetched_again(stand_in: StripeStandIn) -> None:
    invoice = finalized(stand_in)
    stand_in.test.pay(invoice, {})

    with stripe_client(stand_in) as client:
        (paid,) = client.v1.events.list({"type": "invoice.paid"}).data
        newest, *_ = client.v1.events.list().data
        again = client.v1.events.retrieve(paid.id)

    assert newest.type == "invoice.payment_succeeded"
    assert (again.type, again.data.object.id, again.livemode) == ("invoice.paid", invoice, False)
