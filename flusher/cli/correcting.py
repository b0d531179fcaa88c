"""What commands share that correct a final invoice: the way to Stripe, and what must be said before money moves."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
from psycopg.rows import TupleRow

from flusher.cli.stripe_target import announce_stripe, find_stripe
from flusher.invoicing.binding import check_binding
from flusher.invoicing.corrections import Corrector
from flusher.invoicing.finals import Finals
from flusher.invoicing.gateway import StripeSettings
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]


def add_live(parser: argparse.ArgumentParser) -> None:
    """Add what must be said before real money moves."""
    parser.add_argument("--live", action="store_true", default=False, help="allow a live Stripe key: real money")
    parser.add_argument("--yes", action="store_true", default=False, help="with a live key, do not ask before")


@contextmanager
def corrector_for(connection: Connection, args: argparse.Namespace, what: str) -> Iterator[Corrector]:
    """Give what corrects an invoice, at Stripe if a key is set; with a live one it asks first whether to do `what`.

    Raises TaximeterError: usage_invalid, not_confirmed, stripe_account_changed.
    """
    stripe = find_stripe(live=args.live)
    announce_stripe(stripe)
    if stripe is None:
        yield Corrector(connection, None)
        return
    _ask(stripe, what, yes=args.yes)
    with closing(Finals(stripe)) as gateway:
        check_binding(connection, gateway)
        yield Corrector(connection, gateway)


def _ask(stripe: StripeSettings, what: str, *, yes: bool) -> None:
    """Ask before real money moves."""
    if not stripe.livemode or yes:
        return
    if not sys.stdin.isatty():
        raise TaximeterError("usage_invalid", "a live key moves real money, and nobody can be asked here: add --yes")
    sys.stderr.write(f"{what} at Stripe, LIVE? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TaximeterError("not_confirmed", "nothing was done")
