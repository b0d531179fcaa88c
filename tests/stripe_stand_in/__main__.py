"""Runs the stand-in as a process until it is interrupted, and says that it is one."""

import argparse
import asyncio
import contextlib

from tests.stripe_stand_in.server import StripeStandIn


def main() -> None:
    """Listen on a port, with a customer for every `--customer`, a rate limit and faults where asked for."""
    parser = argparse.ArgumentParser(description="A stand-in for Stripe's API, for tests and trials.")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--customer", action="append", default=[], metavar="ID", help="a customer that exists")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="answer 429 above N calls a second")
    parser.add_argument("--chance", type=float, default=0.0, metavar="SHARE", help="fail this share of all calls")
    options = parser.parse_args()
    stand_in = StripeStandIn(port=options.port)
    for customer in options.customer:
        stand_in.test.add_customer(customer)
    if options.limit:
        stand_in.limit(options.limit)
    if options.chance:
        stand_in.chance(options.chance)
    print(
        f"A stand-in for Stripe on http://127.0.0.1:{options.port}: nothing here is real, and nothing is kept.",
        flush=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(stand_in.serve())


if __name__ == "__main__":
    main()
