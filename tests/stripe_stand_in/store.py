"""The state of one account and mode."""

from tests.stripe_stand_in.credit_notes import CreditNotes


class Store(CreditNotes):
    """What one Stripe account holds in one mode. Public methods that take an id and parameters are API calls."""
