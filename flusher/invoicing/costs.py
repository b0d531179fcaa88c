"""What periods cost now, minus what was billed for them (rule 16). Pure.

A period's cost is a set of charges, each rated on its own: prices, minimum and maximum, true-ups, discounts. What was
billed of each is stored in the transaction that read the usage, so whatever changes a cost later, in whatever order
(late usage, voided events, a plan that ends early, a threshold), is exactly the difference. Never a flag by arrival
time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Final, NamedTuple

from flusher.catalog.timeline import Terms
from flusher.invoicing.invoice import InvoiceLine, from_rated
from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.line import LineKind, line_id, rfc3339
from flusher.pricing.money import EXACT, grouped, plain
from flusher.pricing.period import BillingPeriod, Period
from flusher.pricing.rate import Need, Usage, commitment_period, needs, rate_advance, rate_arrears

ZERO: Final = Decimal(0)


class Part(StrEnum):
    """When a part of a period's cost is due."""

    ADVANCE = "advance"
    """Before it: with the invoice of the period before, or the opening one."""
    ARREARS = "arrears"
    """When it is over."""


class Role(StrEnum):
    """What an invoice has to do with a period."""

    OWN = "own"
    """It closes the period: everything that the period costs, what was billed of it taken off."""
    NEXT = "next"
    """The one that follows: what is due before it."""
    CLOSED = "closed"
    """An earlier invoice closed it: differences alone."""
    RUNNING = "running"
    """It is not over, and its usage has passed a threshold: what was used so far."""


class Key(NamedTuple):
    """Names a charge: the period whose cost it is, by its start, the part, and the charge's own kind, name, start."""

    cost_of: datetime
    part: Part
    kind: ChargeKind
    name: str
    start: datetime


@dataclass(frozen=True, slots=True)
class Billed:
    """What has been billed so far for one charge.

    `amount` is the sum of every line for it, in major units. `quantity` is the meter's, before free units, and `events`
    the number of events in it; 0 where there is no `meter`.
    """

    key: Key
    end: datetime
    amount: Decimal
    meter: str | None = None
    quantity: Decimal = ZERO
    events: int = 0

    @property
    def period(self) -> Period:
        """The charge's own period."""
        return Period(self.key.start, self.end)


@dataclass(frozen=True, slots=True)
class Cost:
    """A period of a subscription, the terms that it is rated by, and what the invoice has to do with it."""

    terms: Terms
    billing: BillingPeriod
    role: Role

    @property
    def start(self) -> datetime:
        """What names the period among the subscription's."""
        return self.billing.period.start


@dataclass(slots=True)
class Differences:
    """The lines that bring what was billed to what it should be, and what is then billed so far."""

    lines: list[InvoiceLine]
    billed: list[Billed]


def needs_of(cost: Cost) -> tuple[Need, ...]:
    """Return what has to be read to know the cost."""
    return () if cost.role is Role.NEXT else needs(cost.terms.plan, cost.terms.span, cost.billing)


def differences(cost: Cost, usage: Usage, billed: Mapping[Key, Billed], *, scope: str) -> Differences:
    """Return what an invoice bills of a period; `scope` is its id.

    `billed` has what was billed so far of the subscription: of this period, and of the earlier ones that a commitment
    counts together with it.
    """
    found = dict(_charges(cost, usage, billed, scope))
    made = Differences([], [])
    for key, charge in found.items():
        before = billed.get(key)
        now = Billed(key, charge.period.end, charge.amount, charge.meter, charge.quantity, charge.events)
        made.lines += _lines(cost, charge, before, now, scope)
        if before is None or now.amount != before.amount or (cost.role is Role.OWN and now != before):
            made.billed.append(now)
    for before in _left_over(cost, billed, found):
        now = Billed(before.key, before.end, ZERO, before.meter)
        made.lines.append(_difference(before, now, scope))
        made.billed.append(now)
    return made


def _charges(cost: Cost, usage: Usage, billed: Mapping[Key, Billed], scope: str) -> Iterator[tuple[Key, Charge]]:
    plan, span = cost.terms.plan, cost.terms.span
    if cost.role is not Role.RUNNING:
        for charge in rate_advance(plan, span, cost.billing, scope=scope):
            yield _key(cost, Part.ADVANCE, charge), charge
    if cost.role is Role.NEXT:
        return
    committed = _committed(commitment_period(plan, span, cost.billing), cost.start, billed.values())
    for charge in rate_arrears(plan, span, cost.billing, usage, committed=committed, scope=scope):
        if cost.role is not Role.RUNNING:
            yield _key(cost, Part.ARREARS, charge), charge
        elif charge.meter is not None:
            # What is missing from a minimum is due at the end: it may still be used.
            used = tuple(line for line in charge.lines if line.kind is not LineKind.MINIMUM)
            yield _key(cost, Part.ARREARS, charge), replace(charge, lines=used)


def _key(cost: Cost, part: Part, charge: Charge) -> Key:
    return Key(cost.start, part, charge.kind, charge.name, charge.period.start)


def _committed(period: Period | None, before: datetime, billed: Iterable[Billed]) -> Decimal:
    """Return what the earlier periods of a commitment's period have cost, without discounts."""
    counted = (ChargeKind.PRICE, ChargeKind.MINIMUM, ChargeKind.MAXIMUM)
    with localcontext(EXACT):
        return sum(
            (
                entry.amount
                for entry in billed
                if period is not None and period.start <= entry.key.cost_of < before and entry.key.kind in counted
            ),
            ZERO,
        )


def _left_over(cost: Cost, billed: Mapping[Key, Billed], found: Mapping[Key, Charge]) -> list[Billed]:
    """Return what was billed of the period and is no part of its cost any more, such as a fee of another plan."""
    if cost.role is Role.RUNNING:
        return []
    parts = {Part.ADVANCE} if cost.role is Role.NEXT else set(Part)
    return [
        entry
        for key, entry in billed.items()
        if key.cost_of == cost.start and key.part in parts and key not in found and entry.amount
    ]


def refunds(after: datetime, billed: Mapping[Key, Billed], *, scope: str) -> Differences:
    """Return what takes back everything that was billed for periods from `after` on: there are none."""
    early = [entry for key, entry in billed.items() if key.cost_of >= after and entry.amount]
    now = [Billed(entry.key, entry.end, ZERO, entry.meter) for entry in early]
    lines = [_difference(before, after_, scope) for before, after_ in zip(early, now, strict=True)]
    return Differences(lines, now)


def _lines(cost: Cost, charge: Charge, before: Billed | None, now: Billed, scope: str) -> list[InvoiceLine]:
    if before is None:
        return list(map(from_rated, charge.lines))
    if cost.role is Role.OWN and now.key.part is Part.ARREARS:  # a threshold billed a part of it
        return [*map(from_rated, charge.lines), *([_taken_off(before, scope)] if before.amount else [])]
    return [_difference(before, now, scope)] if now.amount != before.amount else []


def _difference(before: Billed, after: Billed, scope: str) -> InvoiceLine:
    with localcontext(EXACT):
        quantity = after.quantity - before.quantity
        amount = after.amount - before.amount
    text = f"{before.key.name}, adjustment of {_dates(before.period)}"
    if quantity:
        text += f": {grouped(abs(quantity))} {'fewer' if quantity < 0 else 'more'} than billed"
    working = f"{plain(after.amount)} now - {plain(before.amount)} billed = {plain(amount)}"
    return _adjustment(before, text, quantity if before.meter else Decimal(1), amount, working, f"{scope}/adjustment")


def _taken_off(before: Billed, scope: str) -> InvoiceLine:
    text = f"{before.key.name}, already billed for {_dates(before.period)}"
    working = f"0 - {plain(before.amount)} billed = {plain(-before.amount)}"
    return _adjustment(before, text, before.quantity, -before.amount, working, f"{scope}/billed")


def _adjustment(
    before: Billed, description: str, quantity: Decimal, amount: Decimal, working: str, scope: str
) -> InvoiceLine:
    key = before.key
    scope = f"{scope}/{key.part}/{key.kind}/{key.cost_of.isoformat()}"
    return InvoiceLine(
        id=line_id(scope, LineKind.USAGE, key.name, None, None, before.period),
        kind="adjustment",
        price=key.name,
        meter=before.meter,
        dimensions=None,
        tier=None,
        period=before.period,
        description=description,
        quantity=quantity,
        unit_price=None,
        amount=amount,
        working=working,
    )


def _dates(period: Period) -> str:
    return " to ".join(rfc3339(instant).removesuffix("T00:00:00Z") for instant in (period.start, period.end))
