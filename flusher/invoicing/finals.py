"""Stripe's API as far as it is about final invoices: what they have come to, voids and credit notes.

A gateway like delivery's, with the same deadlines, repeats and errors.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from flusher.invoicing.gateway import MISSING, Gateway, RefusedError, Remote
from flusher.invoicing.invoice import Status
from flusher.invoicing.payload import INVOICE, LEDGER, LINE, Params

CREDIT_NOTE: Final = "taximeter_credit_note"


class RemoteFinal(NamedTuple):
    """An invoice at Stripe. `sum` is what its lines come to before tax, `total` after it, `remaining` what is due.

    These are Stripe's integers. `ledger` and `invoice` are our ids in its metadata, empty where it has none.
    """

    id: str
    status: Status
    currency: str
    sum: int
    total: int
    remaining: int
    ledger: str
    invoice: str


class Finals(Gateway):
    """What corrects and reads final invoices. Not shared between threads. Close it when done."""

    def read_final(self, stripe_invoice: str) -> RemoteFinal | None:
        """Return an invoice, None when there is none."""
        try:
            return _final(self._call(lambda: self._client.v1.invoices.retrieve(stripe_invoice)))
        except RefusedError as error:
            if error.reason != MISSING:
                raise
            return None

    def each_final(self, since_s: int) -> Iterator[RemoteFinal]:
        """Yield every invoice of the account that was made since a Unix time, the newest first, page after page."""
        return map(_final, self._each(self._client.v1.invoices.list, {"created": {"gte": since_s}}))

    def void_invoice(self, params: Params, key: str) -> Remote:
        """Void a final invoice: `params` hold its id as `invoice`."""
        invoices = self._client.v1.invoices
        made = self._call(lambda: invoices.void_invoice(params["invoice"], {}, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def find_line(self, stripe_invoice: str, line: str) -> str | None:
        """Return the id that Stripe gave to a line of ours; None where it is a part of another one."""
        for found in self._lines(stripe_invoice):
            if found.metadata and found.metadata.to_dict().get(LINE) == line:
                return str(found.id)
        return None

    def create_credit_note(self, params: Params, key: str) -> Remote:
        """Issue a credit note."""
        given: Any = params
        made = self._call(lambda: self._client.v1.credit_notes.create(given, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def find_credit_note(self, stripe_invoice: str, note: str) -> Remote | None:
        """Look for the credit note that we made for ours, by its metadata, among all of the invoice's."""
        for found in self._each(self._client.v1.credit_notes.list, {"invoice": stripe_invoice}):
            if found.metadata and found.metadata.to_dict().get(CREDIT_NOTE) == note:
                return Remote(found.id, found.status)
        return None


def _final(found: Any) -> RemoteFinal:
    metadata = found.metadata.to_dict() if found.metadata else {}
    return RemoteFinal(
        found.id,
        Status(found.status or Status.DRAFT),
        found.currency,
        found.subtotal,
        found.total,
        found.amount_remaining,
        str(metadata.get(LEDGER, "")),
        str(metadata.get(INVOICE, "")),
    )
