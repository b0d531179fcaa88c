"""The state of one account and mode."""

from tests.stripe_stand_in.credit_notes import CreditNotes
from tests.stripe_stand_in.meters import Meters


class Store(CreditNotes, Meters):
    """What one Stripe account holds in one mode. Public methods that take an id and parameters are API calls."""
