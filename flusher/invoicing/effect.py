"""What a change of usage does to invoices: a preview of them without it and one with it, and nothing is kept."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from flusher.invoicing.invoice import Invoice, total
from flusher.invoicing.late import Held, list_held
from flusher.invoicing.run import Options, Waiting, each_outcome
from flusher.ledger import Ledger
from flusher.sql import query

USERS_MAX: Final = 1_000  # whose customers are previewed one by one; for more, everybody is

_NOTHING: Final = Decimal(0)
_Closed = tuple[str, str, datetime]  # customer, subscription and start of a closed period


class _Preview(NamedTuple):
    """An invoice without its lines, its total, and what of that is credit."""

    invoice: Invoice
    total: Decimal
    credit: Decimal


@dataclass(frozen=True, slots=True)
class Change:
    """An invoice that would be made, and its total before and after, in major units. 0 where there would be none.

    Of `invoice` everything but the lines is known. `credit` is by how much its lines of credit differ: below 0 where
    more credit is used, above 0 where what the customer gets back becomes credit.
    """

    invoice: Invoice
    old: Decimal
    new: Decimal
    credit: Decimal

    @property
    def difference(self) -> Decimal:
        """How much more it would be."""
        return self.new - self.old


@dataclass(frozen=True, slots=True)
class Effect:
    """How invoices that would be made differ, and closed periods whose difference is held for an operator as late.

    The `amount` of what is held is the difference.
    """

    invoices: list[Change]
    held: list[Held]


def effect_on_invoices(ledger: Ledger, change: Callable[[], Collection[str]], options: Options) -> Effect:
    """Return how the invoices that would be made now differ, running periods as they are so far included.

    `change` changes usage in the open transaction and returns whose, of more than `USERS_MAX` any so many; it is taken
    back. All shards are held meanwhile: drains wait, so that nothing else changes between the two previews. Raises
    TryAgainError when a flusher does not let go of a shard.
    """
    options = replace(options, dry_run=True, preview=True)
    with ledger.transaction():
        for shard in range(ledger.read().shards):
            ledger.lock(shard, wait=True)
        with ledger.savepoint(undo=True):
            customers = _customers(ledger, change())  # whom to preview one by one; None for everybody
            after, held_after = _previews(ledger, customers, options), _held(ledger, customers, options)
        before, held_before = _previews(ledger, customers, options), _held(ledger, customers, options)
    return Effect(_changes(before, after), _held_changes(held_before, held_after))


def _changes(before: Mapping[str, _Preview], after: Mapping[str, _Preview]) -> list[Change]:
    changes: list[Change] = []
    for key, either in {**before, **after}.items():
        none = _Preview(either.invoice, _NOTHING, _NOTHING)
        old, new = before.get(key, none), after.get(key, none)
        changes.append(Change(either.invoice, old.total, new.total, new.credit - old.credit))
    changes.sort(key=lambda one: (one.invoice.customer, one.invoice.period.start, one.invoice.id))
    return [one for one in changes if one.difference or one.credit]


def _held_changes(before: Mapping[_Closed, Held], after: Mapping[_Closed, Held]) -> list[Held]:
    changes: list[Held] = []
    for key, either in sorted({**before, **after}.items()):
        old, new = (found[key].amount if key in found else _NOTHING for found in (before, after))
        if new != old:
            changes.append(replace(either, amount=new - old))
    return changes


def _customers(ledger: Ledger, users: Collection[str]) -> Sequence[str | None]:
    if len(users) > USERS_MAX:
        return [None]
    rows = ledger.connection.execute(query("list_customers_of_users"), {"users": sorted(users)}).fetchall()
    return sorted(customer for (customer,) in rows)


def _held(ledger: Ledger, customers: Sequence[str | None], options: Options) -> dict[_Closed, Held]:
    return {
        (found.customer, found.subscription, found.period.start): found
        for customer in customers
        for found in list_held(ledger.connection, options.late_limit, customer)
    }


def _previews(ledger: Ledger, customers: Sequence[str | None], options: Options) -> dict[str, _Preview]:
    found: dict[str, _Preview] = {}
    for customer in customers:
        for outcome in each_outcome(ledger.connection, replace(options, customer=customer)):
            if not isinstance(outcome, Waiting):
                credit = total([line for line in outcome.lines if line.kind == "credit"])
                found[outcome.id] = _Preview(replace(outcome, lines=()), outcome.total, credit)
    return found
