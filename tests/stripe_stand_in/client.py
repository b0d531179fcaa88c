"""Stripe's own package, pointed at a stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stripe

from tests.stripe_stand_in.server import StripeStandIn


@contextmanager
def stripe_client(
    stand_in: StripeStandIn, api_key: str = "sk_test_x", *, timeout_s: float = 30
) -> Iterator[stripe.StripeClient]:
    """Open a client that repeats nothing by itself."""
    http: Any = stripe.RequestsClient(timeout=timeout_s)
    bases: Any = {"api": stand_in.base_url, "meter_events": stand_in.base_url}
    try:
        yield stripe.StripeClient(api_key, base_addresses=bases, http_client=http, max_network_retries=0)
    finally:
        http.close()
