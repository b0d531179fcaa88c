"""Everything that is on its way to Stripe: many invoices at once, at a limited rate, and how they stand afterwards.

Threads are bounded, each with a gateway and a connection of its own; one token bucket holds them all. What is in memory
does not grow with the invoices but by their ids.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.invoicing.bucket import TokenBucket
from flusher.invoicing.customers import Billed, make_customer, not_listed
from flusher.invoicing.deliver import Deliverer
from flusher.invoicing.gateway import Gateway, Known, RefusedError, StripeSettings, UnavailableError
from flusher.invoicing.invoice import Delivery, Invoice
from flusher.invoicing.pool import Work, spread
from flusher.invoicing.run import Progress, Waiting
from flusher.invoicing.settle import NotYet
from flusher.invoicing.store import load_invoices, rows
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]

PAGE: Final = 500
"""Invoices that are in memory at once when they are shown."""


@dataclass(slots=True)
class Standing:
    """How invoices stand, by their ids: sent, parked with a reason, waiting for another run, or kept here."""

    sent: list[str] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


class Outbox:
    """Stripe for a whole run: `url` is PostgreSQL's, for a connection a thread."""

    def __init__(self, url: str, settings: StripeSettings) -> None:
        self._url = url
        self._settings = settings
        self._bucket = TokenBucket(settings.rate)

    def open_gateway(self) -> Gateway:
        """Return a gateway that keeps to the run's rate. To be closed by the thread that uses it."""
        return Gateway(self._settings, self._bucket)

    def find_absent(self, wanted: Sequence[Billed], progress: Progress) -> dict[str, Known]:
        """Return the customers of ours that Stripe does not have, or has deleted: a call for many, or one for each."""
        with closing(self.open_gateway()) as gateway:
            left = {billed.customer: billed for billed in not_listed(gateway, wanted)}
        found: dict[str, Known] = {}
        lock = threading.Lock()

        def look_up(gateway: Gateway, _: Connection, customer: str) -> bool:
            try:
                known = gateway.look_up_customer(left[customer].stripe_customer)
            except UnavailableError:
                return False  # its invoice will tell
            if known is not Known.THERE:
                with lock:
                    found[customer] = known
            return True

        self._spread(list(left), look_up, progress)
        return dict(sorted(found.items()))

    def make_customers(self, missing: Sequence[Billed], progress: Progress) -> set[str]:
        """Make customers at Stripe, each once, and return those of ours that are there now.

        Raises UnavailableError when Stripe does not answer.
        """
        by_name = {billed.customer: billed for billed in missing}
        made: set[str] = set()

        def make(gateway: Gateway, connection: Connection, customer: str) -> bool:
            with suppress(RefusedError):  # its invoice is parked
                make_customer(connection, gateway, by_name[customer])
                made.add(customer)
            return True

        self._spread(list(by_name), make, progress)
        return made

    def deliver(
        self,
        ids: Sequence[str],
        progress: Progress = lambda _done, _of: None,
        absent: Mapping[str, Known] | None = None,
    ) -> None:
        """Take invoices to Stripe; `standing` says afterwards what became of them.

        Safe to kill anywhere, to run again and several times at once. Invoices of the customers in `absent` are parked.
        Raises KeyRefusedError when the key is no good.
        """

        @contextmanager
        def deliverer() -> Iterator[Work]:
            with self._opened() as (gateway, connection):
                yield Deliverer(connection, gateway, self._settings.terms, absent or {}).deliver

        spread(ids, deliverer, self._settings.concurrency, progress)

    def _spread(self, ids: Sequence[str], work: Callable[[Gateway, Connection, str], bool], progress: Progress) -> None:
        @contextmanager
        def worker() -> Iterator[Work]:
            with self._opened() as (gateway, connection):
                yield lambda given: work(gateway, connection, given)

        spread(ids, worker, self._settings.concurrency, progress)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Gateway, Connection]]:
        """Open what a thread needs for itself."""
        with closing(self.open_gateway()) as gateway, connect(self._url, autocommit=True) as connection:
            connection.execute(query("wait_for_deliveries"))
            yield gateway, connection


def standing(connection: Connection, ids: Sequence[str]) -> Standing:
    """Return how invoices stand."""
    found = Standing()
    by_delivery = {
        Delivery.SENT: found.sent,
        Delivery.PARKED: found.parked,
        Delivery.PENDING: found.waiting,
        Delivery.NONE: found.kept,
    }
    for start in range(0, len(ids), PAGE):
        for row in rows(connection, "list_deliveries", {"ids": list(ids[start : start + PAGE])}):
            by_delivery[Delivery(row["delivery"])].append(row["id"])
    return found


def each_invoice(connection: Connection, ids: Sequence[str]) -> Iterator[Invoice]:
    """Yield invoices in order; a page of them is in memory."""
    for start in range(0, len(ids), PAGE):
        yield from load_invoices(connection, ids[start : start + PAGE])


def each_waiting(connection: Connection, ids: Sequence[str], why: NotYet) -> Iterator[Waiting]:
    """Yield what invoices wait for; `why` is for those that don't say it themselves."""
    for invoice in each_invoice(connection, ids):
        yield Waiting(
            invoice.customer,
            invoice.subscription,
            invoice.plan,
            invoice.period,
            invoice.reason or why.reason,
            invoice.detail or why.detail,
            invoice.id,
        )
