"""Runs the stand-in as a process until it is interrupted."""

import argparse
import asyncio
import contextlib

from tests.stripe_stand_in.server import StripeStandIn


def main() -> None:
    """Listen on a port and make a customer for every `--customer`."""
    parser = argparse.ArgumentParser(description="A stand-in for Stripe's API, for tests and trials.")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--customer", action="append", default=[], metavar="ID", help="a customer that exists")
    options = parser.parse_args()
    stand_in = StripeStandIn(port=options.port)
    for customer in options.customer:
        stand_in.test.add_customer(customer)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(stand_in.serve())


if __name__ == "__main__":
    main()
