"""`taximeter webhooks`: receives Stripe's events and brings the status of invoices to what it is there."""

import argparse
import logging
import os
import signal
import threading
from contextlib import closing
from dataclasses import replace
from types import FrameType

from flusher.cli.stripe_target import KEY_VARIABLE, announce_stripe, find_stripe
from flusher.cli.target import add_target_arguments, find_target
from flusher.database import check_schema, connect
from flusher.invoicing.binding import check_binding
from flusher.invoicing.bucket import TokenBucket
from flusher.invoicing.finals import Finals
from flusher.webhooks.config import add_flags, secrets_from, settings_from
from flusher.webhooks.receive import Door
from flusher.webhooks.serve import PATH, Desk, serve
from sidecar.contract.codes import TaximeterError
from sidecar.contract.logs import set_up

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for every setting; secrets are in the environment or a file alone."""
    add_flags(parser)
    add_target_arguments(parser, "database")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal asks to stop.

    Raises TaximeterError: config_invalid, file_invalid, stripe_key_refused, stripe_account_changed.
    """
    settings = settings_from(vars(args), os.environ)
    secrets = secrets_from(os.environ)
    stripe = find_stripe(live=False, sends=False)  # it only reads, so a live key needs nobody's word
    if stripe is None:
        raise TaximeterError("config_invalid", f"expected the key that reads invoices in {KEY_VARIABLE}, it is not set")
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    announce_stripe(stripe)
    set_up(settings.log_level)
    bucket = TokenBucket(stripe.rate)
    quick = replace(stripe, retries=1)  # Stripe asks again by itself
    with connect(url, autocommit=True) as connection, closing(Finals(stripe, bucket)) as gateway:
        check_schema(connection)
        account = check_binding(connection, gateway)
    desk = Desk(url, lambda: Finals(quick, bucket), Door(secrets, account.id, account.livemode))
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    with closing(desk), serve(settings.webhooks_http, desk) as server:
        _log.info("events of Stripe are received at http://%s%s", server.address, PATH)
        stop.wait()
    return 0
