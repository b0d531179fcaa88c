"""One invoice: the lines that its costs come to, what is then billed, and what credits pay of it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from flusher.catalog.timeline import Terms
from flusher.invoicing.costs import Billed, Key, Role, differences, refunds
from flusher.invoicing.credits import Draw, Grant, carried_grant, carry, credit_lines, draw
from flusher.invoicing.due import Account, Step
from flusher.invoicing.invoice import Invoice, InvoiceLine, Kind, Point, first_state, invoice_id, total
from flusher.invoicing.settle import NotYet
from flusher.invoicing.smallest import Small, carried_in, carried_on, is_too_small
from flusher.pricing.rate import Usage

_SHOWN: Final = (Role.OWN, Role.RUNNING, Role.NEXT, Role.CLOSED)
"""In which order an invoice shows what it bills."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A new invoice, and everything that is stored with it.

    `billed` is what is then billed so far of every charge that it changes, `draws` what it takes from grants, and
    `carried` the credit that its negative total becomes. `too_small` is what it leaves to the next invoice,
    `small_billed` what earlier ones left to it.
    """

    invoice: Invoice
    terms: Terms
    zone: str
    billed: tuple[Billed, ...]
    draws: tuple[Draw, ...] = ()
    carried: Grant | None = None
    too_small: Small | None = None
    small_billed: tuple[Small, ...] = ()


@dataclass(frozen=True, slots=True)
class Seller:
    """Who bills: the ledger's id, and whether invoices go to Stripe."""

    ledger: str
    stripe: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What an invoice says beside its lines: who it closed without, and why it is a preview."""

    closed_without: tuple[str, ...] = ()
    preview: NotYet | None = None


@dataclass(slots=True)
class _Sum:
    billed: dict[Key, Billed]
    changed: dict[Key, Billed] = field(default_factory=dict)
    lines: dict[Role, list[InvoiceLine]] = field(default_factory=dict)

    def add(self, role: Role, lines: Iterable[InvoiceLine], billed: Iterable[Billed]) -> None:
        self.lines.setdefault(role, []).extend(lines)
        for entry in billed:
            self.billed[entry.key] = self.changed[entry.key] = entry


def draft(account: Account, step: Step, usage: Usage, seller: Seller, note: Note) -> Draft | None:
    """Return the invoice of a step, before credits; None where there is nothing that it would say.

    A closed period has an invoice always. Any other is made for lines alone, and a threshold's for enough of them.
    """
    subscription, plan = account.subscription, step.terms.plan
    scope = invoice_id(seller.ledger, subscription.id, step.kind, step.period.start, step.sequence)
    found = _Sum(dict(account.billed))
    for cost in step.costs:  # oldest first: a commitment counts what the earlier ones come to
        made = differences(cost, usage, found.billed, scope=scope)
        found.add(cost.role, made.lines, made.billed)
    if step.ended is not None:
        made = refunds(step.ended, found.billed, scope=scope)
        found.add(Role.CLOSED, made.lines, made.billed)
    lines = tuple(line for role in _SHOWN for line in found.lines.get(role, ()))
    if step.kind is not Kind.PERIOD and not lines:
        return None
    if step.kind is Kind.THRESHOLD and (plan.threshold is None or total(lines) < plan.threshold):
        return None
    invoice = Invoice(
        id=scope,
        kind=step.kind,
        sequence=step.sequence,
        customer=subscription.customer,
        subscription=subscription.id,
        plan=plan.name,
        plan_version=step.terms.version,
        currency=plan.currency,
        period=step.period,
        status=(state := first_state(lines, stripe=seller.stripe))[0],
        delivery=state[1],
        point=Point.DRAFT,
        lines=lines,
        reason=note.preview.reason if note.preview else None,
        detail=note.preview.detail if note.preview else None,
        closed_without=note.closed_without,
    )
    return Draft(invoice, step.terms, account.customer.time_zone, tuple(found.changed.values()))


def paid(made: Draft, grants: Sequence[Grant], small: Sequence[Small], seller: Seller) -> Draft:
    """Return the invoice with what was carried to it, what grants of its customer and currency pay, and what it leaves.

    A negative total is carried: a line brings it to 0, and a grant keeps it for the next invoice. So is one that Stripe
    would not collect, because it is too small.
    """
    invoice = made.invoice
    period, scope = invoice.period, invoice.id
    more = [carried_in(one, period, scope=scope) for one in small]
    due = total((*invoice.lines, *more))
    draws: list[Draw] = []
    carried: Grant | None = None
    too_small: Small | None = None
    if due > 0:
        draws = draw(grants, due, period.end)
        more += credit_lines(grants, draws, period, scope=scope)
        due = total((*invoice.lines, *more))
    if due < 0:
        carried = carried_grant(invoice.id, invoice.customer, invoice.currency, due, period.end)
        more.append(carry(due, carried, period, scope=scope))
    elif seller.stripe and is_too_small(due, invoice.currency):
        too_small = Small(invoice.id, invoice.customer, invoice.currency, due)
        more.append(carried_on(due, period, scope=scope))
    if not more:
        return made
    lines = (*invoice.lines, *more)
    status, delivery = first_state(lines, stripe=seller.stripe)
    whole = replace(invoice, lines=lines, status=status, delivery=delivery)
    return replace(
        made, invoice=whole, draws=tuple(draws), carried=carried, too_small=too_small, small_billed=tuple(small)
    )
