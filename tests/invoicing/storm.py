"""Sends many invoices through a bad day at Stripe, killing the run twice: `make stripe-storm`.

The stand-in limits the rate and fails a share of the calls, before or after their effect. `taximeter invoice` runs as a
process of its own; it is killed when a third and two thirds of the invoices are made, and runs until nothing is left to
do. Then every invoice must be at Stripe once, finalized, with our lines, and right to the cent.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.pricing.money import currency, to_stripe
from tests.invoicing.world import ARTICLE, World
from tests.stripe_stand_in import StripeStandIn

RUNS_MAX: Final = 6
RUN_DEADLINE_S: Final = 3_000.0
_USD: Final = currency("usd")

SUBSCRIBE: Final = """
INSERT INTO subscriptions (id, customer, plan, start_at, end_at)
SELECT 'cus_' || lpad(n::text, 6, '0') || '/pro', 'cus_' || lpad(n::text, 6, '0'), 'pro', '2025-07-01Z', '2025-08-01Z'
FROM generate_series(1, %(invoices)s) AS n
"""
USE: Final = """
INSERT INTO usage (shard, user_id, meter, window_start, units, events)
SELECT 0, 'cus_' || lpad(n::text, 6, '0'), 'api_call', '2025-07-05Z', 1100 + n * 7, n
FROM generate_series(1, %(invoices)s) AS n
"""


@dataclass(frozen=True)
class Storm:
    """How many invoices, at which limit of calls a second, with which share of faults, drawn from which seed."""

    invoices: int
    limit: int
    faults: float
    seed: int = 1


def run(storm: Storm, database_url: str, tell: Callable[[str], object]) -> dict[str, Any]:
    """Go through a storm on a migrated database and return what was seen. Raises AssertionError when money is wrong."""
    with closing(World(database_url)) as world, StripeStandIn() as stand_in:
        prepare(storm, world, stand_in)
        struck = stand_in.chance(storm.faults, seed=storm.seed)
        limit = stand_in.limit(storm.limit)
        started = time.monotonic()
        exits = _runs(storm, database_url, stand_in, tell)
        took_s = time.monotonic() - started
        stand_in.heal()
        check(world.connection, stand_in, storm.invoices)
    return {
        "invoices": storm.invoices,
        "exits": exits,
        "seconds": round(took_s, 1),
        "calls": len(stand_in.calls),
        "faults": struck.struck,
        "refused_by_rate": limit.refused,
        "answers": dict(Counter(str(call.status or "cut off") for call in stand_in.calls)),
    }


def prepare(storm: Storm, world: World, stand_in: StripeStandIn) -> None:
    """Let so many customers, whom Stripe knows, use something in July."""
    world.apply(ARTICLE)
    for statement in (SUBSCRIBE, USE):
        world.connection.execute(statement.encode(), {"invoices": storm.invoices})
    world.connection.execute("VACUUM (ANALYZE) subscriptions, usage")
    for number in range(1, storm.invoices + 1):
        stand_in.test.add_customer(f"cus_{number:06}")


def _runs(storm: Storm, database_url: str, stand_in: StripeStandIn, tell: Callable[[str], object]) -> list[int]:
    """Run until a run says that nothing is left, killing the first two; return their exit statuses."""
    exits: list[int] = []
    kill_at = [storm.invoices // 3, storm.invoices * 2 // 3]
    while not exits or exits[-1] != 0:
        if len(exits) == RUNS_MAX:
            raise AssertionError(f"{RUNS_MAX} runs did not end it: {exits}")
        process = start(storm, database_url, stand_in)
        deadline = time.monotonic() + RUN_DEADLINE_S
        while process.poll() is None:
            if kill_at and len(stand_in.test.invoices) >= kill_at[0]:
                kill_at.pop(0)
                process.kill()
            if time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"a run took more than {RUN_DEADLINE_S} s")
            time.sleep(0.05)
        exits.append(process.wait())
        tell(f"run {len(exits)} ended with {exits[-1]}: {len(stand_in.test.invoices)} invoices at Stripe")
    return exits


def start(storm: Storm, database_url: str, stand_in: StripeStandIn) -> subprocess.Popen[bytes]:
    """Start `taximeter invoice` as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "STRIPE_"))}
    environment = kept | {
        "DATABASE_URL": database_url,
        "STRIPE_API_KEY": "sk_test_storm",
        "STRIPE_API_BASE": stand_in.base_url,
        "TAXIMETER_STRIPE_RATE": str(storm.limit * 4 // 5),
    }
    command = [sys.executable, "-m", "flusher", "invoice", "--at", "2025-08-01"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def check(connection: psycopg.Connection[Any], stand_in: StripeStandIn, invoices: int) -> None:
    """Raise AssertionError unless each of our invoices is at Stripe once, as it is here, and nothing else is."""
    ours = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT id, customer, total, status, delivery, stripe_invoice,"
            " (SELECT array_agg(amount) FROM invoice_line_records WHERE invoice = invoices.id) FROM invoices"
        ).fetchall()
    }
    theirs = {found["metadata"]["taximeter_invoice"]: found for found in stand_in.test.invoices.values()}
    amounts: dict[str, list[int]] = {}
    for item in stand_in.test.items.values():
        amounts.setdefault(item["invoice"], []).append(item["amount"])
    assert len(ours) == len(theirs) == len(stand_in.test.invoices) == invoices
    assert set(ours) == set(theirs)
    for invoice_id, (customer, total, status, delivery, stripe_invoice, lines) in ours.items():
        found = theirs[invoice_id]
        assert (status, delivery, stripe_invoice) == ("open", "sent", found["id"])
        assert (found["customer"], found["status"]) == (customer, "open")
        assert found["total"] == to_stripe(total, _USD)
        assert sorted(amounts[found["id"]]) == sorted(to_stripe(Decimal(line), _USD) for line in lines)


def main() -> None:
    """Make a database of its own, go through the storm and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--invoices", type=int, default=10_000)
    parser.add_argument(
        "--limit", type=int, default=500, help="calls a second that Stripe takes (default: %(default)s)"
    )
    parser.add_argument("--faults", type=float, default=0.02, help="share of calls that fail (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storm-") as directory:
        server = PostgresServer(Path(directory) / "postgres")
        server.start()
        try:
            url = server.url_of("postgres")
            migrate(url)
            report = run(Storm(args.invoices, args.limit, args.faults, args.seed), url, _tell)
        finally:
            server.stop()
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
