"""Prepaid credits: which grants an invoice draws from, and how much from each. Pure.

Amounts are in major units of a grant's currency.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Final, NamedTuple

from flusher.invoicing.invoice import InvoiceLine
from flusher.pricing.line import LineKind, line_id
from flusher.pricing.money import EXACT, currency, plain
from flusher.pricing.period import Period
from flusher.pricing.plan import Credit

LINE_KIND: Final = "credit"
CARRIED: Final = "carried"
"""What the grant of a negative total is called, and the price of the line that carries it."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class GrantKind(StrEnum):
    """Where a grant comes from."""

    PREPAID = "prepaid"
    """An operator granted it."""
    PLAN = "plan"
    """It comes with a plan."""
    CARRIED = "carried"
    """The negative total of an invoice."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Credit of a customer. The lowest `priority` is drawn first; `remaining` is what is left of `amount`.

    It can be used from `effective_at` until before `expires_at` (None: for ever). `cost_basis` is what was paid for a
    major unit of it. `id` is made from what it is granted for: the same grant has the same id whenever it is made.
    """

    id: str
    customer: str
    currency: str
    name: str
    kind: GrantKind
    amount: Decimal
    remaining: Decimal
    priority: int
    effective_at: datetime
    granted_at: datetime
    expires_at: datetime | None = None
    cost_basis: Decimal = Decimal(1)


class Draw(NamedTuple):
    """What one invoice takes from a grant."""

    grant_id: str
    amount: Decimal


def draw(grants: Iterable[Grant], due: Decimal, at: datetime) -> list[Draw]:
    """Return what an amount that is due at `at` takes from grants of its customer and currency, in their order.

    By priority, then expiry (never comes last), then age, then id. Never more than is due, never more than a grant
    has, never a fraction of the smallest amount that the currency is billed in.
    """
    found = []
    with localcontext(EXACT):
        for grant in sorted((grant for grant in grants if is_usable(grant, at)), key=_order):
            step = currency(grant.currency).step
            amount = min(due, grant.remaining - grant.remaining % step)
            if amount > 0:
                found.append(Draw(grant.id, amount))
                due -= amount
    return found


def is_usable(grant: Grant, at: datetime) -> bool:
    """Whether a grant may be drawn from at an instant."""
    return grant.effective_at <= at and (grant.expires_at is None or at < grant.expires_at)


def after(grants: Iterable[Grant], draws: Iterable[Draw]) -> list[Grant]:
    """Return grants as they are when draws were made from them: what the next invoice of a run draws from."""
    taken = {found.grant_id: found.amount for found in draws}
    with localcontext(EXACT):
        return [
            replace(grant, remaining=grant.remaining - taken[grant.id]) if grant.id in taken else grant
            for grant in grants
        ]


def credit_lines(grants: Iterable[Grant], draws: Iterable[Draw], period: Period, *, scope: str) -> list[InvoiceLine]:
    """Return a line for each draw. `grants` are as they were before; `scope` is the invoice's id."""
    by_id = {grant.id: grant for grant in grants}
    return [_line(by_id[found.grant_id], found.amount, period, scope) for found in draws]


def credit_line_id(grant: Grant, period: Period, *, scope: str) -> str:
    """Return the id of the line by which an invoice (`scope`) draws from a grant, or makes it."""
    return line_id(f"{scope}/{LINE_KIND}/{grant.id}", LineKind.FIXED, grant.name, None, None, period)


def carry(total: Decimal, grant: Grant, period: Period, *, scope: str) -> InvoiceLine:
    """Return the line that brings a negative total to 0; `grant` is what it becomes."""
    return InvoiceLine(
        id=credit_line_id(grant, period, scope=scope),
        kind=LINE_KIND,
        price=grant.name,
        meter=None,
        dimensions=None,
        tier=None,
        period=period,
        description="Carried to the next invoice",
        quantity=Decimal(1),
        unit_price=-total,
        amount=-total,
        working=f"0 - ({plain(total)}) = {plain(-total)}",
    )


def carried_grant(invoice: str, customer: str, code: str, total: Decimal, at: datetime) -> Grant:
    """Return the credit that the negative total of an invoice becomes: drawn first, for ever, from `at` on."""
    return Grant(
        id=grant_id(CARRIED, invoice),
        customer=customer,
        currency=code,
        name=CARRIED,
        kind=GrantKind.CARRIED,
        amount=-total,
        remaining=-total,
        priority=0,
        effective_at=at,
        granted_at=at,
    )


def grants_due(
    terms: Sequence[Credit], subscription: str, customer: str, code: str, start: datetime, *, first: bool
) -> list[Grant]:
    """Return what the credits of a plan (`terms`) grant for the period that begins at `start`.

    Those that come once are granted with the first period of the subscription (`first`). A name that several credits
    have is granted for each of them.
    """
    found: list[Grant] = []
    names: Counter[str] = Counter()
    for credit in terms:
        names[credit.name] += 1
        if not (first or credit.every_period):
            continue
        expires = None if credit.expires_days is None else start + timedelta(days=credit.expires_days)
        found.append(
            Grant(
                id=grant_id("plan", subscription, credit.name, str(names[credit.name]), start.isoformat()),
                customer=customer,
                currency=code,
                name=credit.name,
                kind=GrantKind.PLAN,
                amount=credit.amount,
                remaining=credit.amount,
                priority=credit.priority,
                effective_at=start,
                granted_at=start,
                expires_at=expires,
                cost_basis=credit.cost_basis,
            )
        )
    return found


def grant_id(*parts: str) -> str:
    """Return the id of a grant that is made for `parts`, length-prefixed so that no two lists read the same."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return f"grant_{digest.hexdigest()[:24]}"


def _order(grant: Grant) -> tuple[int, datetime, datetime, str]:
    return grant.priority, grant.expires_at or _NEVER, grant.granted_at, grant.id


def _line(grant: Grant, amount: Decimal, period: Period, scope: str) -> InvoiceLine:
    with localcontext(EXACT):
        left = grant.remaining - amount
    return InvoiceLine(
        id=credit_line_id(grant, period, scope=scope),
        kind=LINE_KIND,
        price=grant.name,
        meter=None,
        dimensions=None,
        tier=None,
        period=period,
        description=f"Credit {grant.name}: {plain(left)} of {plain(grant.amount)} {grant.currency.upper()} remain",
        quantity=Decimal(1),
        unit_price=-amount,
        amount=-amount,
        working=f"{plain(grant.remaining)} - {plain(amount)} = {plain(left)} remain",
    )
