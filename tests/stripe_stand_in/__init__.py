"""A stateful stand-in for the parts of Stripe's HTTP API that Taximeter uses.

It is driven by the real `stripe` package through its `base_addresses`. Run it alone with
`python -m tests.stripe_stand_in --port 12111` and any `sk_test_...` key.
"""

from tests.stripe_stand_in.faults import BAD_DAY, Chance, Fault, RateLimit
from tests.stripe_stand_in.routes import ROUTES
from tests.stripe_stand_in.server import ACCOUNT, Call, StripeStandIn

__all__ = ["ACCOUNT", "BAD_DAY", "ROUTES", "Call", "Chance", "Fault", "RateLimit", "StripeStandIn"]
