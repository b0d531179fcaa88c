"""The state of one account and mode."""

from tests.stripe_stand_in.invoices import Invoices


class Store(Invoices):
    """What one Stripe account holds in one mode. Public methods that take an id and parameters are API calls."""
