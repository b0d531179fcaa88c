"""What the tests of delivery share: an invoice to deliver, and what must be true when it is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flusher.invoicing.deliver import Deliverer
from flusher.invoicing.gateway import Gateway
from flusher.invoicing.invoice import Delivery, Invoice, Point, Status
from flusher.invoicing.payload import StripeTerms
from flusher.invoicing.store import load_invoices
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

Open = Callable[..., Gateway]

CREATE = "POST /v1/invoices"
ADD_LINES = "POST /v1/invoices/{id}/add_lines"
FINALIZE = "POST /v1/invoices/{id}/finalize"
READ = "GET /v1/invoices/{id}"
LINES = "GET /v1/invoices/{id}/lines"


def make(world: World, stand_in: StripeStandIn, customer: str = "cus_1", units: int = 12345) -> str:
    """Make July's invoice of a customer that Stripe knows, and return its id."""
    stand_in.test.add_customer(customer)
    world.subscribe(customer, end="2025-08-01T00:00:00Z")
    world.use(customer, units, utc(2025, 7, 5))
    (invoice,) = world.run(utc(2025, 8, 1), customer=customer, stripe=True).invoices
    assert (invoice.status, invoice.delivery) == (Status.DRAFT, Delivery.PENDING)
    return invoice.id


def make_wide(world: World, stand_in: StripeStandIn, customer: str, lines: int) -> str:
    """Make July's invoice of so many lines of 1 dollar, and return its id."""
    world.apply(
        '[[meters]]\nname = "wide"\nevent_type = "wide"\ngroup_by = ["region"]\n'
        '[[plans]]\nname = "wide"\ncurrency = "usd"\n'
        '[[plans.prices]]\nmeter = "wide"\nmodel = "per_unit"\nunit_price = "1"\nper_group = true'
    )
    stand_in.test.add_customer(customer)
    world.subscribe(customer, plan="wide", end="2025-08-01T00:00:00Z")
    for region in range(lines):
        world.use(customer, 1, utc(2025, 7, 5), meter="wide", region=f"r{region}")
    (invoice,) = world.run(utc(2025, 8, 1), customer=customer, stripe=True).invoices
    return invoice.id


@dataclass
class Delivered:
    """What became of invoices."""

    sent: list[Invoice] = field(default_factory=list)
    parked: list[Invoice] = field(default_factory=list)
    waiting: list[Invoice] = field(default_factory=list)
    kept: list[Invoice] = field(default_factory=list)


def deliver(world: World, gateway: Gateway, *ids: str, terms: StripeTerms | None = None) -> Delivered:
    """Deliver invoices one after the other, and return how they stand."""
    deliverer = Deliverer(world.connection, gateway, terms or StripeTerms())
    for invoice_id in ids:
        deliverer.deliver(invoice_id)
    return delivered(world, *ids)


def delivered(world: World, *ids: str) -> Delivered:
    """Return how invoices stand."""
    found = Delivered()
    lists = {
        Delivery.SENT: found.sent,
        Delivery.PARKED: found.parked,
        Delivery.PENDING: found.waiting,
        Delivery.NONE: found.kept,
    }
    for invoice in load_invoices(world.connection, ids):
        lists[invoice.delivery].append(invoice)
    return found


def load(world: World, invoice_id: str) -> Invoice:
    (invoice,) = load_invoices(world.connection, [invoice_id])
    return invoice


def age_intents(world: World, stand_in: StripeStandIn) -> None:
    """Let 25 hours pass, here and at Stripe."""
    world.connection.execute("UPDATE stripe_intents SET created_at = created_at - interval '25 hours'")
    stand_in.later(25 * 3600)


def assert_delivered_once(world: World, stand_in: StripeStandIn, invoice_id: str) -> None:
    """Its customer has one invoice at Stripe, finalized, with our three lines, and ours says so."""
    ours = load(world, invoice_id)
    (theirs,) = (found for found in stand_in.test.invoices.values() if found["customer"] == ours.customer)
    items = [item["amount"] for item in stand_in.test.items.values() if item["customer"] == ours.customer]
    assert (theirs["status"], theirs["total"], theirs["currency"]) == ("open", 10173, "usd")
    assert sorted(items) == [0, 1173, 9000]
    assert (ours.status, ours.delivery, ours.point) == (Status.OPEN, Delivery.SENT, Point.FINALIZED)
    assert (ours.stripe_invoice, ours.reason) == (theirs["id"], None)
