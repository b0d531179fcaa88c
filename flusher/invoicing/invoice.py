"""What an invoice is and how it may change. Pure: no I/O, no clock.

An invoice has a `status` (what it means to the customer), a `delivery` (where it stands with Stripe) and a recovery
point: how far delivery has come, written before and after each call to Stripe, so that a run that was killed
anywhere goes on from there.

    draft -> creating -> created -> items -> finalizing -> finalized

`draft`: stored here, nothing asked. `creating`: the key and the parameters of the draft in Stripe are committed, it
may exist. `created`: it exists and its id is known. `items`: every line is in it. `finalizing`: count and sum were
compared, the key of the last call is committed. `finalized`: Stripe took it, its status is ours.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Final

from flusher.pricing.line import Dimensions, Line, rfc3339
from flusher.pricing.money import EXACT, currency, format_amount, plain
from flusher.pricing.period import Period
from sidecar.contract.codes import TaximeterError


class Kind(StrEnum):
    """Which invoice of a subscription this is."""

    OPENING = "opening"
    """What is paid in advance for the first period; made at the subscription's start, its own period is empty."""
    PERIOD = "period"
    """One closed period."""
    THRESHOLD = "threshold"
    """What a running period has come to, because it passed the plan's threshold."""
    ADJUSTMENT = "adjustment"
    """Differences in closed periods of a subscription that has no next invoice."""


class Status(StrEnum):
    """What the invoice means to the customer, in Stripe's words."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


class Delivery(StrEnum):
    """Where the invoice stands with Stripe."""

    NONE = "none"
    PENDING = "pending"
    SENT = "sent"
    PARKED = "parked"


class Point(StrEnum):
    """How far delivery has come; see the module's text."""

    DRAFT = "draft"
    CREATING = "creating"
    CREATED = "created"
    ITEMS = "items"
    FINALIZING = "finalizing"
    FINALIZED = "finalized"


_ORDER: Final = tuple(Point)

_STATUS_AFTER: Final = {
    Status.DRAFT: {Status.OPEN, Status.PAID},
    Status.OPEN: {Status.PAID, Status.VOID, Status.UNCOLLECTIBLE},
    Status.UNCOLLECTIBLE: {Status.PAID, Status.VOID},
    Status.PAID: frozenset[Status](),
    Status.VOID: frozenset[Status](),
}


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One stored line. `quantity` and `unit_price` are in units and major units per unit; `amount` is rounded.

    `kind` is one of interface.md's: usage, fixed, minimum, maximum, adjustment, discount, credit. An adjustment has no
    `unit_price`: its amount is the difference of two ratings. `working` says how the amount came about.
    """

    id: str
    kind: str
    price: str
    meter: str | None
    dimensions: Dimensions | None
    tier: int | None
    period: Period
    description: str
    quantity: Decimal
    unit_price: Decimal | None
    amount: Decimal
    working: str = ""


@dataclass(frozen=True, slots=True)
class Invoice:
    """One invoice as it is stored. `total` is the sum of its lines, in major units of `currency`.

    `reason` is a snake_case code that says why it is parked or waits, `detail` the same for a reader.
    `closed_without` names the producers that had not answered when the finalization window passed.
    """

    id: str
    kind: Kind
    sequence: int
    customer: str
    subscription: str
    plan: str
    plan_version: int
    currency: str
    period: Period
    status: Status
    delivery: Delivery
    point: Point
    lines: tuple[InvoiceLine, ...]
    reason: str | None = None
    detail: str | None = None
    stripe_invoice: str | None = None
    closed_without: tuple[str, ...] = ()

    @property
    def total(self) -> Decimal:
        """The sum of the lines' rounded amounts."""
        return total(self.lines)


def total(lines: Sequence[InvoiceLine]) -> Decimal:
    """Return the sum of the lines' rounded amounts: that is what an invoice's total is."""
    with localcontext(EXACT):
        return sum((line.amount for line in lines), Decimal(0))


def invoice_id(ledger: str, subscription: str, kind: Kind, start: datetime, sequence: int) -> str:
    """Return the id of an invoice: the same invoice of the same ledger has the same id whenever it is made.

    So a database taken back to an older backup makes an invoice again under the id that Stripe already knows.
    Parts are length-prefixed, so that no two different lists of parts read the same.
    """
    digest = hashlib.sha256()
    for part in (ledger, subscription, kind.value, start.isoformat(), str(sequence)):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return f"inv_{digest.hexdigest()[:24]}"


def from_rated(line: Line) -> InvoiceLine:
    """Return a rated line as a line of an invoice."""
    return InvoiceLine(
        id=line.id,
        kind=line.kind.value,
        price=line.price,
        meter=line.meter,
        dimensions=line.dimensions,
        tier=line.tier,
        period=line.period,
        description=line.description,
        quantity=line.quantity,
        unit_price=line.unit_price,
        amount=line.amount,
        working=line.working,
    )


def is_for_stripe(lines: Sequence[InvoiceLine]) -> bool:
    """Whether an invoice with these lines is worth sending: one without any amount stays here, and is paid."""
    return any(line.amount for line in lines)


def first_state(lines: Sequence[InvoiceLine], *, stripe: bool) -> tuple[Status, Delivery]:
    """Return what a new invoice starts as.

    With Stripe it is a draft until Stripe finalizes it. Without, it is open at once, or paid when nothing is due:
    Stripe, too, calls an invoice of 0 paid when it is finalized. An invoice without any amount is never sent.
    """
    if not is_for_stripe(lines):
        return Status.PAID, Delivery.NONE
    if stripe:
        return Status.DRAFT, Delivery.PENDING
    return (Status.OPEN if total(lines) else Status.PAID), Delivery.NONE


def advance(invoice: str, now: Point, to: Point) -> Point:
    """Return the next recovery point. Raises TaximeterError `invariant_broken` unless it follows the present one."""
    if _ORDER.index(to) != _ORDER.index(now) + 1:
        raise TaximeterError("invariant_broken", f"invoice {invoice}: delivery can't go from {now} to {to}")
    return to


def may_become(now: Status, to: Status) -> bool:
    """Whether an invoice can come to a status, or is there: nothing goes back."""
    return to is now or to in _STATUS_AFTER[now]


def next_status(invoice: str, now: Status, to: Status) -> Status:
    """Return the new status. Raises TaximeterError `invariant_broken` for a change that Stripe does not know."""
    if not may_become(now, to):
        raise TaximeterError("invariant_broken", f"invoice {invoice}: status can't go from {now} to {to}")
    return to


def invoice_json(invoice: Invoice) -> dict[str, object]:
    """Return the INVOICE of interface.md: amounts with exactly the currency's digits, times RFC 3339 in UTC."""
    money = currency(invoice.currency)
    return {
        "id": invoice.id,
        "customer": invoice.customer,
        "subscription": invoice.subscription,
        "plan": invoice.plan,
        "plan_version": invoice.plan_version,
        "currency": invoice.currency,
        "period": period_json(invoice.period),
        "status": invoice.status.value,
        "delivery": invoice.delivery.value,
        "reason": invoice.reason,
        "detail": invoice.detail,
        "total": format_amount(invoice.total, money),
        "lines": [line_json(line, invoice.currency) for line in invoice.lines],
        "stripe": None if invoice.stripe_invoice is None else {"invoice": invoice.stripe_invoice},
        "closed_without": list(invoice.closed_without),
    }


def period_json(period: Period) -> dict[str, str]:
    """Return a half-open period as `{"from", "to"}`."""
    return {"from": rfc3339(period.start), "to": rfc3339(period.end)}


def line_json(line: InvoiceLine, code: str) -> dict[str, object]:
    """Return a line of the INVOICE of interface.md, in a currency."""
    return {
        "id": line.id,
        "kind": line.kind,
        "price": line.price,
        "meter": line.meter,
        "dimensions": None if line.dimensions is None else dict(line.dimensions),
        "tier": line.tier,
        "period": period_json(line.period),
        "description": line.description,
        "quantity": plain(line.quantity),
        "unit_price": None if line.unit_price is None else plain(line.unit_price),
        "amount": format_amount(line.amount, currency(code)),
    }
