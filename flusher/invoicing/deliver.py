"""Takes stored invoices to Stripe: one call at a time, a recovery point before and after each.

A run that is killed anywhere, or that two runs do at once, makes one invoice: each call is made once (`once`), and the
recovery points say how far an invoice has come.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.catalog_store import load_customer
from flusher.invoicing.binding import check_account
from flusher.invoicing.customers import stripe_customers
from flusher.invoicing.gateway import MISSING, Gateway, Known, RefusedError, Remote, UnavailableError
from flusher.invoicing.intents import Intent, Step
from flusher.invoicing.invoice import Delivery, Invoice, Point, Status, advance, next_status
from flusher.invoicing.mending import how_to_mend
from flusher.invoicing.once import Call, perform
from flusher.invoicing.payload import StripeTerms, finalize_params, invoice_params, lines_params
from flusher.invoicing.rollup import StripeLine, stripe_lines
from flusher.invoicing.settle import NotYet
from flusher.invoicing.sink import Sink, check_sink
from flusher.invoicing.sound import Doubts
from flusher.invoicing.store import hold, ledger_of, load_invoices
from flusher.pricing.money import currency, to_stripe
from flusher.sql import query
from sidecar.contract.codes import TaximeterError

Connection = psycopg.Connection[TupleRow]

LINES_AT_ONCE: Final = 100
"""Lines that one call puts on a draft. Stripe names no limit but that of the invoice; a request stays small."""
_NOBODY: Final[Mapping[str, Known]] = MappingProxyType({})


class _WaitError(Exception):
    """The invoice can't go on now."""

    def __init__(self, why: NotYet) -> None:
        super().__init__(why.detail)
        self.why = why


def bind_stripe(connection: Connection, gateway: Gateway) -> None:
    """Bind the ledger to the key's account and mode, and to invoices, at its first push.

    Raises TaximeterError for another account, mode or sink later: `stripe_account_changed`, `stripe_sink_differs`.
    """
    account = gateway.account()
    connection.execute(query("bind_stripe"), {"account": account.id, "livemode": account.livemode})
    check_account(connection, account)
    check_sink(connection, Sink.INVOICES)


class Deliverer:
    """Takes one invoice after the other from where it stands to the end; one for each thread.

    `connection` is in autocommit mode and holds the lock of the invoice that is on its way. `absent` has the customers
    of ours that are known not to be at Stripe: their invoices are parked unasked.
    """

    def __init__(
        self, connection: Connection, gateway: Gateway, terms: StripeTerms, absent: Mapping[str, Known] = _NOBODY
    ) -> None:
        self._connection = connection
        self._gateway = gateway
        self._terms = terms
        self._absent = absent
        self._ledger, _ = ledger_of(connection)
        self._steps: dict[Point, Callable[[Invoice], None]] = {
            Point.DRAFT: self._begin,
            Point.CREATING: self._create,
            Point.CREATED: self._add_lines,
            Point.ITEMS: self._compare,
            Point.FINALIZING: self._finalize,
        }

    def deliver(self, invoice_id: str) -> bool:
        """Take an invoice as far as it goes and store why it stops; return whether Stripe answered.

        Safe to kill anywhere and to do again. Raises KeyRefusedError when the key is no good.
        """
        try:
            with _locked(self._connection, invoice_id):
                self._go_on(invoice_id)
        except RefusedError as error:
            detail = f"{error.message}; {how_to_mend(error.reason)}"
            hold(self._connection, invoice_id, Delivery.PARKED, error.reason, detail)
        except _WaitError as error:
            hold(self._connection, invoice_id, Delivery.PENDING, error.why.reason, error.why.detail)
        except UnavailableError as error:
            hold(self._connection, invoice_id, Delivery.PENDING, error.code, error.message)
            return False
        except psycopg.errors.LockNotAvailable:
            hold(self._connection, invoice_id, Delivery.PENDING, "delivery_in_progress", "another run delivers it")
        return True

    def _go_on(self, invoice_id: str) -> None:
        invoice = self._load(invoice_id)
        if invoice.delivery is Delivery.NONE:
            return
        anew = False
        touched = invoice.point is Point.FINALIZING  # maybe, since the run that stopped here
        while invoice.point is not Point.FINALIZED:
            try:
                if touched:
                    self._check_lines(invoice)
                self._steps[invoice.point](invoice)
            except RefusedError as error:
                if anew or not self._is_gone(invoice, error):
                    raise
                anew = True
                self._connection.execute(query("restart_delivery"), {"invoice": invoice.id})
            touched = False
            invoice = self._load(invoice_id)
            if invoice.delivery is Delivery.NONE:
                return

    def _is_gone(self, invoice: Invoice, error: RefusedError) -> bool:
        """Whether Stripe refused because somebody deleted the draft there: then it is made anew."""
        drafted = invoice.stripe_invoice
        return error.reason == MISSING and drafted is not None and self._gateway.is_gone(drafted)

    def _begin(self, invoice: Invoice) -> None:
        if not invoice.total and not self._terms.send_zero:
            self._connection.execute(query("keep_invoice"), {"invoice": invoice.id})
        elif invoice.customer in self._absent:
            known = self._absent[invoice.customer]
            raise RefusedError("stripe_customer_missing", f"customer {invoice.customer!r} is {known} at Stripe")
        else:
            self._move(invoice, Point.CREATING)

    def _create(self, invoice: Invoice) -> None:
        customer = stripe_customers(self._connection, [invoice.customer])[invoice.customer]
        made = self._perform(
            Call(
                Step(invoice.id, "create_invoice"),
                params=lambda: invoice_params(invoice, self._ledger, customer, self._terms),
                send=self._gateway.create_invoice,
                find=lambda tried: self._gateway.find_invoice(tried.params["customer"], self._ledger, invoice.id),
            )
        )
        self._move(invoice, Point.CREATED, made.id)

    def _add_lines(self, invoice: Invoice) -> None:
        draft = _stripe_id(invoice)
        lines = stripe_lines(invoice)
        for start in range(0, len(lines), LINES_AT_ONCE):
            missing = list(lines[start : start + LINES_AT_ONCE])
            self._perform(
                Call(
                    Step(invoice.id, "add_lines", str(start + 1)),
                    params=partial(lines_params, invoice, missing, self._ledger, draft),
                    send=self._gateway.add_lines,
                    find=partial(self._find_lines, draft, missing),
                )
            )
        self._move(invoice, Point.ITEMS)

    def _find_lines(self, draft: str, missing: list[StripeLine], _tried: Intent) -> Remote | None:
        """Leave in `missing` what is not on the draft yet; return the draft when all of them are."""
        there = self._gateway.find_lines(draft)
        missing[:] = [line for line in missing if line.id not in there]
        return None if missing else Remote(draft)

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
            Call(
                Step(invoice.id, "finalize_invoice"),
                params=lambda: finalize_params(draft, collect=self._terms.collect),
                send=self._gateway.finalize_invoice,
                find=lambda _tried: self._find_final(draft),
            )
        )
        status = Status(made.status or self._gateway.read_invoice(draft).status)
        status = next_status(invoice.id, next_status(invoice.id, invoice.status, Status.OPEN), status)
        advance(invoice.id, invoice.point, Point.FINALIZED)
        self._connection.execute(query("finish_invoice"), {"invoice": invoice.id, "status": status.value})

    def _find_final(self, draft: str) -> Remote | None:
        found = self._gateway.read_invoice(draft)
        return None if found.status == "draft" else Remote(found.id, found.status)

    def _check_lines(self, invoice: Invoice) -> None:
        """Raise RefusedError unless the lines at Stripe are as many as ours and add up to the invoice's total."""
        found = self._gateway.read_invoice(_stripe_id(invoice))
        theirs = (found.currency, found.lines, found.sum)
        total = to_stripe(invoice.total, currency(invoice.currency))
        ours = (invoice.currency, len(stripe_lines(invoice)), total)
        if theirs != ours:
            raise RefusedError(
                "stripe_lines_differ",
                f"Stripe's {found.id} has {theirs[1]} lines of {theirs[2]} {theirs[0]} in all, "
                f"ours has {ours[1]} of {ours[2]} {ours[0]}; it was not finalized by us",
            )

    def _perform(self, call: Call) -> Remote:
        return perform(self._connection, self._ledger, call)

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
def _locked(connection: Connection, invoice_id: str) -> Iterator[None]:
    """Hold an invoice's delivery lock; it ends with the connection, so a killed run holds nothing."""
    connection.execute(query("lock_delivery"), {"invoice": invoice_id})
    try:
        yield
    finally:
        connection.execute(query("unlock_delivery"), {"invoice": invoice_id})


def _stripe_id(invoice: Invoice) -> str:
    if invoice.stripe_invoice is None:
        raise TaximeterError("invariant_broken", f"invoice {invoice.id} is {invoice.point} without an id of Stripe's")
    return invoice.stripe_invoice
