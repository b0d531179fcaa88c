"""Whether the proof holds where it matters: an invoice is not made, or finalized, over a broken one (design 1.3)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer
from flusher.invoicing.settle import NotYet
from flusher.invoicing.store import ledger_of, rows
from flusher.pricing.measure import Need
from sidecar.contract.identity import shard_of
from sidecar.contract.meters import WINDOW_S

Connection = psycopg.Connection[TupleRow]

PROOF_BROKEN: Final = "proof_broken"
_WINDOW: Final = timedelta(seconds=WINDOW_S)


class Doubts:
    """What is known to be wrong about the usage of some users: read once, asked for many periods (rules 7 and 9)."""

    def __init__(self, connection: Connection, users: Sequence[str]) -> None:
        _, self._shards = ledger_of(connection)
        self._holes = {row["shard"] for row in rows(connection, "open_hole_shards")}
        self._discrepancies: dict[tuple[str, str], list[datetime]] = {}
        for row in rows(connection, "open_discrepancies_of", {"users": list(users)}):
            windows = self._discrepancies.setdefault((row["user_id"], row["meter"]), [])
            windows.append(row["window_start"].astimezone(UTC))

    def about(self, customer: Customer, need: Need) -> NotYet | None:
        """Return why what a customer used must not be billed now, or None."""
        count = sum(
            need.period.start - _WINDOW < window < need.period.end
            for user in (customer.user_ids if self._discrepancies else ())
            for window in self._discrepancies.get((user, need.meter), ())
        )
        return _broken(count) or self._missing(customer)

    def _missing(self, customer: Customer) -> NotYet | None:
        if any(shard_of(user, self._shards) in self._holes for user in customer.user_ids if self._holes):
            return NotYet(PROOF_BROKEN, "records that may be this customer's are missing; see `taximeter verify`")
        return None

    def about_invoice(self, connection: Connection, invoice: str, customer: Customer) -> NotYet | None:
        """Return why a stored invoice must not be finalized now, or None."""
        values = {"invoice": invoice, "users": list(customer.user_ids)}
        (row,) = rows(connection, "find_invoice_discrepancies", values)
        return _broken(row["count"]) or self._missing(customer)


def _broken(discrepancies: int) -> NotYet | None:
    if not discrepancies:
        return None
    text = f"{discrepancies} open discrepancies between counters and events touch it; see `taximeter verify`"
    return NotYet(PROOF_BROKEN, text)
