"""What the tests of final invoices share: one that was sent, and a gateway to correct it."""

from collections.abc import Callable

from flusher.invoicing.finals import Finals
from flusher.invoicing.gateway import StripeSettings
from tests.invoicing.delivery import Open, deliver, load, make
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn

OpenFinals = Callable[[], Finals]

CREDIT = "POST /v1/credit_notes"
VOID = "POST /v1/invoices/{id}/void"
FIND = "GET /v1/credit_notes"


def finals_to(stand_in: StripeStandIn, api_key: str = "sk_test_x") -> Finals:
    """Return a gateway without repeats of its own."""
    return Finals(StripeSettings(api_key, stand_in.base_url, rate=1_000, retries=0, backoff_s=0))


def send(world: World, stand_in: StripeStandIn, open_gateway: Open, customer: str = "cus_1") -> tuple[str, str]:
    """Send July's invoice of a customer, 101.73 USD in three lines; return our id and Stripe's."""
    invoice_id = make(world, stand_in, customer)
    deliver(world, open_gateway(), invoice_id)
    stripe_invoice = load(world, invoice_id).stripe_invoice
    assert stripe_invoice is not None
    return invoice_id, stripe_invoice
