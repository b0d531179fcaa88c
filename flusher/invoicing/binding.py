"""Which Stripe account and mode the ledger bills in: its first push binds it, and a key of another is refused."""

from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.gateway import Account, Gateway
from flusher.invoicing.store import rows
from sidecar.contract.codes import TaximeterError

_MODE: Final = {True: "live", False: "test"}


def check_binding(connection: psycopg.Connection[TupleRow], gateway: Gateway) -> Account:
    """Return whose the key is. Raises TaximeterError `stripe_account_changed` when the ledger is bound to another."""
    account = gateway.account()
    check_account(connection, account)
    return account


def check_account(connection: psycopg.Connection[TupleRow], account: Account) -> None:
    """Raise TaximeterError `stripe_account_changed` when the ledger is bound to another account or mode."""
    for bound in rows(connection, "find_binding"):
        if (bound["account"], bound["livemode"]) != tuple(account):
            raise TaximeterError(
                "stripe_account_changed",
                f"this ledger bills in Stripe account {bound['account']} ({_MODE[bound['livemode']]}), the key is of "
                f"{account.id} ({_MODE[account.livemode]}); use a key of the first",
            )
