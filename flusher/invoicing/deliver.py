"""Takes stored invoices to Stripe: one call at a time, a recovery point before and after each.

A run that is killed anywhere, or that two runs do at once, makes one invoice: before a call its key and parameters
are committed, and a repeat uses the same ones. A key is relied on for `KEY_LIFE_S`; after that, and before every
further attempt, we look for what exists (by our ids in its metadata) before anything is made.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog_store import load_customer
from flusher.database import connect
from flusher.invoicing.gateway import Gateway, RefusedError, Remote, UnavailableError
from flusher.invoicing.intents import DONE, LOST, REFUSED, Intent, Step, add_intent, end_intent, latest_intent
from flusher.invoicing.invoice import Delivery, Invoice, Point, Status, advance, next_status
from flusher.invoicing.payload import LINES_MAX, Params, amount, finalize_params, invoice_params, item_params
from flusher.invoicing.run import Progress, Waiting
from flusher.invoicing.settle import NotYet
from flusher.invoicing.sound import Doubts
from flusher.invoicing.store import hold, ledger_of, load_invoices, rows
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

UNAVAILABLE_IN_A_ROW_MAX: Final = 3
"""After so many invoices in a row that Stripe did not answer for, the rest is left for another run."""

_MEND: Final = "mend it and run `taximeter invoice` again"


@dataclass(slots=True)
class Delivered:
    """What became of the invoices: sent, parked with a reason, or waiting for another run."""

    sent: list[Invoice] = field(default_factory=list)
    parked: list[Invoice] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what it sends, how it is made, and how to find what an earlier attempt made."""

    step: Step
    params: Callable[[], Params]
    send: Callable[[Params, str], Remote]
    find: Callable[[Intent], Remote | None]


class _WaitError(Exception):
    """The invoice can't go on now."""

    def __init__(self, why: NotYet) -> None:
        super().__init__(why.detail)
        self.why = why


def bind_stripe(connection: Connection, gateway: Gateway) -> None:
    """Bind the ledger to the key's account and mode at its first push; raise TaximeterError for another one later."""
    account = gateway.account()
    connection.execute(query("bind_stripe"), {"account": account.id, "livemode": account.livemode})
    (bound,) = rows(connection, "find_binding")
    if (bound["account"], bound["livemode"]) != tuple(account):
        raise TaximeterError(
            "stripe_account_changed",
            f"this ledger bills in Stripe account {bound['account']} ({_mode(bound['livemode'])}), the key is of "
            f"{account.id} ({_mode(account.livemode)}); use a key of the first",
        )


def deliver_invoices(
    connection: Connection,
    url: str,
    gateway: Gateway,
    ids: Sequence[str],
    *,
    collect: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Delivered:
    """Take invoices to Stripe and return what became of them. Safe to kill anywhere and to run again.

    `connection` is in autocommit mode; `url` is for a second one, which holds the lock of the invoice that is on its
    way. Raises KeyRefusedError when the key is no good.
    """
    found = Delivered()
    deliverer = _Deliverer(connection, gateway, collect=collect)
    in_a_row = 0
    with connect(url, autocommit=True) as locks:
        for done, invoice_id in enumerate(ids):
            progress(done, len(ids))
            if in_a_row < UNAVAILABLE_IN_A_ROW_MAX:
                in_a_row = in_a_row + 1 if deliverer.deliver(locks, invoice_id) else 0
            (invoice,) = load_invoices(connection, [invoice_id])
            _sort(invoice, found)
    progress(len(ids), len(ids))
    return found


def look_at(connection: Connection, ids: Sequence[str], reason: str, detail: str) -> Delivered:
    """Return how undelivered invoices stand when nothing is sent; those that are not parked wait for `reason`."""
    found = Delivered()
    for invoice in load_invoices(connection, ids):
        _sort(invoice, found, NotYet(reason, detail))
    return found


class _Deliverer:
    """Takes one invoice after the other from where it stands to the end."""

    def __init__(self, connection: Connection, gateway: Gateway, *, collect: bool) -> None:
        self._connection = connection
        self._gateway = gateway
        self._collect = collect
        self._ledger, _ = ledger_of(connection)

    def deliver(self, locks: Connection, invoice_id: str) -> bool:
        """Take an invoice as far as it goes and store why it stops; return whether Stripe did not answer."""
        try:
            with _locked(locks, invoice_id):
                self._go_on(invoice_id)
        except RefusedError as error:
            hold(self._connection, invoice_id, Delivery.PARKED, error.reason, f"{error.message}; {_MEND}")
        except _WaitError as error:
            hold(self._connection, invoice_id, Delivery.PENDING, error.why.reason, error.why.detail)
        except UnavailableError as error:
            hold(self._connection, invoice_id, Delivery.PENDING, error.code, error.message)
            return True
        except psycopg.errors.LockNotAvailable:
            hold(self._connection, invoice_id, Delivery.PENDING, "delivery_in_progress", "another run delivers it")
        return False

    def _go_on(self, invoice_id: str) -> None:
        steps = {
            Point.DRAFT: self._begin,
            Point.CREATING: self._create,
            Point.CREATED: self._add_items,
            Point.ITEMS: self._compare,
            Point.FINALIZING: self._finalize,
        }
        invoice = self._load(invoice_id)
        if invoice.point is Point.FINALIZING:
            self._check_lines(invoice)  # it may have been touched at Stripe since the run that stopped here
        while invoice.point is not Point.FINALIZED:
            steps[invoice.point](invoice)
            invoice = self._load(invoice_id)

    def _begin(self, invoice: Invoice) -> None:
        if len(invoice.lines) > LINES_MAX:
            text = f"{len(invoice.lines)} lines, and Stripe takes {LINES_MAX} on an invoice"
            raise RefusedError("too_many_lines", text)
        self._move(invoice, Point.CREATING)

    def _create(self, invoice: Invoice) -> None:
        customer = load_customer(self._connection, invoice.customer).stripe_customer
        made = self._perform(
            _Call(
                Step(invoice.id, "create_invoice"),
                params=lambda: invoice_params(invoice, self._ledger, customer),
                send=self._gateway.create_invoice,
                find=lambda tried: self._gateway.find_invoice(tried.params["customer"], self._ledger, invoice.id),
            )
        )
        self._move(invoice, Point.CREATED, made.id)

    def _add_items(self, invoice: Invoice) -> None:
        draft = _stripe_id(invoice)
        created = latest_intent(self._connection, Step(invoice.id, "create_invoice"))
        if created is None:
            raise TaximeterError("invariant_broken", f"invoice {invoice.id}: nothing says who its draft is for")
        customer = str(created.params["customer"])
        for line in invoice.lines:
            self._perform(
                _Call(
                    Step(invoice.id, "create_item", line.id),
                    params=partial(item_params, invoice, line, self._ledger, customer, draft),
                    send=self._gateway.create_item,
                    find=partial(self._find_item, draft, line.id),
                )
            )
        self._move(invoice, Point.ITEMS)

    def _compare(self, invoice: Invoice) -> None:
        customer = load_customer(self._connection, invoice.customer)
        broken = Doubts(self._connection, customer.user_ids).about_invoice(self._connection, invoice.id, customer)
        if broken is not None:
            raise _WaitError(broken)
        self._check_lines(invoice)
        self._move(invoice, Point.FINALIZING)

    def _finalize(self, invoice: Invoice) -> None:
        draft = _stripe_id(invoice)
        made = self._perform(
            _Call(
                Step(invoice.id, "finalize_invoice"),
                params=lambda: finalize_params(draft, collect=self._collect),
                send=self._gateway.finalize_invoice,
                find=lambda _tried: self._find_final(draft),
            )
        )
        status = made.status or self._gateway.read_invoice(draft).status
        values = {"invoice": invoice.id, "status": next_status(invoice.id, invoice.status, Status(status)).value}
        advance(invoice.id, invoice.point, Point.FINALIZED)
        self._connection.execute(query("finish_invoice"), values)

    def _find_item(self, draft: str, line: str, _tried: Intent) -> Remote | None:
        return self._gateway.find_items(draft).get(line)

    def _find_final(self, draft: str) -> Remote | None:
        found = self._gateway.read_invoice(draft)
        return None if found.status == "draft" else Remote(found.id, found.status)

    def _check_lines(self, invoice: Invoice) -> None:
        """Raise RefusedError unless the lines at Stripe are as many as ours and add up to the same."""
        found = self._gateway.read_invoice(_stripe_id(invoice))
        theirs = (found.currency, found.lines, found.sum)
        ours = (invoice.currency, len(invoice.lines), sum(amount(invoice, line) for line in invoice.lines))
        if theirs != ours:
            raise RefusedError(
                "stripe_lines_differ",
                f"Stripe's {found.id} has {theirs[1]} lines of {theirs[2]} {theirs[0]} in all, "
                f"ours has {ours[1]} of {ours[2]} {ours[0]}; it was not finalized by us",
            )

    def _perform(self, call: _Call, *, again: bool = True) -> Remote:
        """Make a call once, however often we come here; `again` allows one further attempt under another key."""
        intent = latest_intent(self._connection, call.step)
        if intent is None:
            intent = add_intent(self._connection, call.step, 1, self._ledger, call.params())
        if intent.outcome == DONE and intent.object is not None:
            return Remote(intent.object)
        if intent.is_usable:
            return self._send(call, intent, again=again)
        found = call.find(intent)
        if found is None or intent.outcome is not None:
            if intent.outcome is None:
                end_intent(self._connection, call.step, intent, LOST, error="its key was too old to be repeated")
            intent = add_intent(self._connection, call.step, intent.attempt + 1, self._ledger, call.params())
        if found is None:
            return self._send(call, intent, again=again)
        end_intent(self._connection, call.step, intent, DONE, made=found.id)
        return found

    def _send(self, call: _Call, intent: Intent, *, again: bool) -> Remote:
        try:
            made = call.send(intent.params, intent.key)
        except RefusedError as error:
            end_intent(self._connection, call.step, intent, REFUSED, error=error.message)
            raise
        except UnavailableError as error:
            if not error.replayed:
                raise
            # Stripe failed under this key and keeps saying so, whether or not it took effect: look, then use another.
            end_intent(self._connection, call.step, intent, LOST, error=error.message)
            if not again:
                raise
            return self._perform(call, again=False)
        end_intent(self._connection, call.step, intent, DONE, made=made.id)
        return made

    def _move(self, invoice: Invoice, to: Point, stripe_invoice: str | None = None) -> None:
        values = {
            "invoice": invoice.id,
            "from": invoice.point.value,
            "to": advance(invoice.id, invoice.point, to).value,
            "stripe_invoice": stripe_invoice,
        }
        self._connection.execute(query("move_invoice"), values)

    def _load(self, invoice_id: str) -> Invoice:
        (invoice,) = load_invoices(self._connection, [invoice_id])
        return invoice


@contextmanager
def _locked(locks: Connection, invoice_id: str) -> Iterator[None]:
    """Hold an invoice's delivery lock; it ends with the connection, so a killed run holds nothing."""
    with locks.transaction():
        locks.execute(query("wait_for_delivery"))
        locks.execute(query("lock_delivery"), {"invoice": invoice_id})
        yield


_NOT_ASKED: Final = NotYet("stripe_unavailable", "Stripe did not answer for the invoices before it")


def _sort(invoice: Invoice, into: Delivered, why: NotYet = _NOT_ASKED) -> None:
    """Put an invoice where it belongs; `why` is for one that waits and does not say itself for what."""
    if invoice.delivery is Delivery.SENT:
        into.sent.append(invoice)
    elif invoice.delivery is Delivery.PARKED:
        into.parked.append(invoice)
    else:
        reason, detail = invoice.reason or why.reason, invoice.detail or why.detail
        into.waiting.append(
            Waiting(
                invoice.customer,
                invoice.subscription,
                invoice.plan,
                invoice.period,
                reason,
                detail,
                invoice.id,
            )
        )


def _stripe_id(invoice: Invoice) -> str:
    if invoice.stripe_invoice is None:
        raise TaximeterError("invariant_broken", f"invoice {invoice.id} is {invoice.point} without an id of Stripe's")
    return invoice.stripe_invoice


def _mode(livemode: object) -> str:
    return "live" if livemode else "test"
