"""One invoice on its way into Postgres: whether the proof holds, what it adjusts, and what is then billed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer, PlanVersion, Subscription
from flusher.invoicing.adjust import Billed, Readings, adjustments, billed_now, is_changed
from flusher.invoicing.invoice import Invoice, InvoiceLine, Kind, Point, first_state
from flusher.invoicing.quantities import read_usage
from flusher.invoicing.settle import NotYet
from flusher.invoicing.store import insert_invoice, ledger_of, list_billed, record_billed, rows
from flusher.pricing.line import Line
from flusher.pricing.period import BillingPeriod, Period, period_containing
from sidecar.contract.codes import TaximeterError
from sidecar.contract.identity import shard_of

Connection = psycopg.Connection[TupleRow]

PROOF_BROKEN: Final = "proof_broken"


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The adjustment lines of one closed period, and what is billed for it once they are."""

    version: PlanVersion
    lines: Sequence[InvoiceLine]
    billed: Sequence[Billed]


@dataclass(frozen=True, slots=True)
class Bill:
    """Everything that a new invoice is made of."""

    id: str
    kind: Kind
    sequence: int
    subscription: Subscription
    version: PlanVersion
    period: Period
    lines: tuple[InvoiceLine, ...]
    adjusted: Sequence[Adjusted] = ()
    closed_without: tuple[str, ...] = ()


class Biller:
    """Works on the caller's connection, in the caller's transaction, which holds the subscription's lock."""

    def __init__(self, connection: Connection, versions: Mapping[str, Sequence[PlanVersion]], *, stripe: bool) -> None:
        self._connection = connection
        self._versions = versions
        self._stripe = stripe
        self.ledger, self._shards = ledger_of(connection)

    def version(self, plan: str, number: int) -> PlanVersion:
        """Return a version of a plan by its number."""
        for version in self._versions[plan]:
            if version.version == number:
                return version
        raise TaximeterError("invariant_broken", f"plan {plan} has no version {number}, yet it was billed")

    def broken_proof(self, customer: Customer, meters: Iterable[str], period: Period) -> NotYet | None:
        """Return why usage of a period must not be billed now, or None (design 1.3, rules 7 and 9)."""
        values = {
            "users": list(customer.user_ids),
            "meters": sorted(meters),
            "start": period.start,
            "end": period.end,
        }
        (row,) = rows(self._connection, "find_discrepancies", values)
        return self._broken(customer, row["count"])

    def broken_proof_of(self, invoice: str, customer: Customer) -> NotYet | None:
        """Return why a stored invoice must not be finalized now, or None."""
        values = {"invoice": invoice, "users": list(customer.user_ids)}
        (row,) = rows(self._connection, "find_invoice_discrepancies", values)
        return self._broken(customer, row["count"])

    def adjust(self, subscription: Subscription, customer: Customer, scope: str) -> list[Adjusted]:
        """Return what the subscription's closed periods cost now, minus what was billed for them.

        A period whose proof is broken is left for the next invoice.
        """
        by_period: dict[Period, list[Billed]] = {}
        version_of: dict[Period, PlanVersion] = {}
        for billed, plan, number in list_billed(self._connection, subscription.id):
            by_period.setdefault(billed.period, []).append(billed)
            version_of[billed.period] = self.version(plan, number)
        meters = {billed.meter for found in by_period.values() for billed in found}
        readings = read_usage(self._connection, customer.user_ids, meters, list(by_period))
        adjusted = []
        for (period, found), reading in zip(by_period.items(), readings, strict=True):
            changed = [billed for billed in found if is_changed(billed, reading)]
            if not changed or self.broken_proof(customer, meters, period) is not None:
                continue
            version = version_of[period]
            full = period_containing(version.plan.cycle, subscription.start, period.start)
            lines, now = adjustments(version.plan, BillingPeriod(period, full), changed, reading, scope=scope)
            if lines:
                adjusted.append(Adjusted(version, lines, now))
        return adjusted

    def store(self, bill: Bill, *, rated: Sequence[Line] = (), readings: Readings | None = None) -> Invoice:
        """Store an invoice, its lines and what is billed so far, and return it.

        `rated` and `readings` are the period's own usage lines and what they were rated from.
        """
        lines = (*bill.lines, *(line for adjusted in bill.adjusted for line in adjusted.lines))
        status, delivery = first_state(lines, stripe=self._stripe)
        invoice = Invoice(
            id=bill.id,
            kind=bill.kind,
            sequence=bill.sequence,
            customer=bill.subscription.customer,
            subscription=bill.subscription.id,
            plan=bill.version.plan.name,
            plan_version=bill.version.version,
            currency=bill.version.plan.currency,
            period=bill.period,
            status=status,
            delivery=delivery,
            point=Point.DRAFT,
            lines=lines,
            closed_without=bill.closed_without,
        )
        if not insert_invoice(self._connection, invoice):
            message = f"invoice {bill.id} of {bill.subscription.id} exists already, although its lock was held"
            raise TaximeterError("invariant_broken", message)
        if readings is not None:
            own = billed_now(bill.version.plan, bill.period, readings, rated)
            record_billed(self._connection, invoice, bill.version, own)
        for adjusted in bill.adjusted:
            record_billed(self._connection, invoice, adjusted.version, adjusted.billed)
        return invoice

    def _broken(self, customer: Customer, discrepancies: int) -> NotYet | None:
        if discrepancies:
            return NotYet(
                PROOF_BROKEN,
                f"{discrepancies} open discrepancies between counters and events touch it; see `taximeter verify`",
            )
        holes = {row["shard"] for row in rows(self._connection, "open_hole_shards")}
        if any(shard_of(user, self._shards) in holes for user in customer.user_ids):
            return NotYet(PROOF_BROKEN, "records that may be this customer's are missing; see `taximeter verify`")
        return None
