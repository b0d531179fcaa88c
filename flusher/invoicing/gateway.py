"""Stripe, and the only module that imports its package (when a gateway is made, so commands without Stripe stay quick).

Every call has a deadline. What can be repeated safely is repeated a few times here, under the same idempotency key:
a connection that broke, 409, 429 (after what Retry-After says) and 5xx. What is left is one of three errors: the
request is refused for good, Stripe can't be reached, or the key is no good for any invoice.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from flusher.invoicing.payload import INVOICE, LEDGER, LINE, Params
from sidecar.contract.codes import TaximeterError, TryAgainError

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 30
RETRIES: Final = 3
BACKOFF_S: Final = 0.5  # doubled after every try
RETRY_AFTER_MAX_S: Final = 30.0
_PAGE: Final = 100

T = TypeVar("T")


class RefusedError(TaximeterError):
    """Stripe refuses this request for good; `reason` is a code for the invoice that is parked."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__("stripe_refused", message)
        self.reason = reason


class UnavailableError(TryAgainError):
    """No answer that says whether the call took effect. `replayed`: this key will only ever get this failure."""

    def __init__(self, message: str, *, replayed: bool = False) -> None:
        super().__init__("stripe_unavailable", message)
        self.replayed = replayed


class KeyRefusedError(TaximeterError):
    """Stripe does not accept the API key, or it lacks a permission: no invoice can be sent with it."""

    def __init__(self, message: str) -> None:
        super().__init__("stripe_key_refused", message)


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """How Stripe is reached. `api_key` is never shown; `api_base` is the address of a stand-in, None for Stripe."""

    api_key: str
    api_base: str | None = None
    collect: bool = False
    retries: int = RETRIES
    backoff_s: float = BACKOFF_S

    def __repr__(self) -> str:
        return f"StripeSettings(api_base={self.api_base!r}, livemode={self.livemode}, collect={self.collect})"

    @property
    def livemode(self) -> bool:
        """Whether the key moves real money: anything that does not say that it is for tests."""
        return not self.api_key.startswith(("sk_test_", "rk_test_"))


class Account(NamedTuple):
    """Whose key it is, and in which mode."""

    id: str
    livemode: bool


class Remote(NamedTuple):
    """Something at Stripe: its id, and its status where it has one and it is known."""

    id: str
    status: str | None = None


class RemoteInvoice(NamedTuple):
    """An invoice at Stripe with what its lines add up to, before tax: `sum` in Stripe's integers."""

    id: str
    status: str
    currency: str
    lines: int
    sum: int


class Gateway:
    """Stripe's API as delivery needs it. Not shared between threads. Close it when done."""

    def __init__(self, settings: StripeSettings) -> None:
        import stripe

        self._stripe = stripe
        self._settings = settings
        self._http: Any = stripe.RequestsClient(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        bases: Any = {"api": settings.api_base.rstrip("/")} if settings.api_base else {}
        self._client = stripe.StripeClient(
            settings.api_key, base_addresses=bases, http_client=self._http, max_network_retries=0
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def account(self) -> Account:
        """Return whose key it is."""
        found = self._call(lambda: self._client.v1.accounts.retrieve_current())
        return Account(found.id, self._settings.livemode)

    def create_invoice(self, params: Params, key: str) -> Remote:
        """Make a draft."""
        given: Any = params
        made = self._call(lambda: self._client.v1.invoices.create(given, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def create_item(self, params: Params, key: str) -> Remote:
        """Put an item on a draft."""
        given: Any = params
        return Remote(self._call(lambda: self._client.v1.invoice_items.create(given, {"idempotency_key": key})).id)

    def finalize_invoice(self, params: Params, key: str) -> Remote:
        """Finalize a draft: `params` hold its id as `invoice`."""
        given: Any = {name: value for name, value in params.items() if name != "invoice"}
        invoices = self._client.v1.invoices
        made = self._call(lambda: invoices.finalize_invoice(params["invoice"], given, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def find_invoice(self, customer: str, ledger: str, invoice: str) -> Remote | None:
        """Look for the invoice that we made for ours, by its metadata, among all of the customer's."""
        wanted = {LEDGER: ledger, INVOICE: invoice}
        for found in self._pages(self._client.v1.invoices.list, {"customer": customer}):
            if wanted.items() <= _metadata(found).items():
                return Remote(found.id, found.status)
        return None

    def find_items(self, stripe_invoice: str) -> dict[str, Remote]:
        """Return the items that we put on an invoice, by our line's id."""
        found = self._pages(self._client.v1.invoice_items.list, {"invoice": stripe_invoice})
        return {_metadata(item)[LINE]: Remote(item.id) for item in found if LINE in _metadata(item)}

    def read_invoice(self, stripe_invoice: str) -> RemoteInvoice:
        """Return an invoice and what its lines add up to."""
        found = self._call(lambda: self._client.v1.invoices.retrieve(stripe_invoice))
        list_lines = self._client.v1.invoices.line_items.list
        lines = self._pages(lambda params: list_lines(stripe_invoice, params), {})
        return RemoteInvoice(
            found.id, found.status or "", found.currency, len(lines), sum(line.amount for line in lines)
        )

    def _pages(self, fetch: Callable[[Any], Any], filters: Params) -> list[Any]:
        """Return every object of a list, page after page."""
        found: list[Any] = []
        while True:
            after = {"starting_after": found[-1].id} if found else {}
            page = self._call(partial(fetch, {**filters, **after, "limit": _PAGE}))
            found += page.data
            if not page.has_more or not page.data:
                return found

    def _call(self, call: Callable[[], T]) -> T:
        """Make a call, repeated while that may help; raises one of this module's errors."""
        for left in range(self._settings.retries, -1, -1):
            try:
                return call()
            except self._stripe.StripeError as error:
                known = self._known(error)
                if left == 0 or not isinstance(known, UnavailableError) or known.replayed:
                    raise known from error
                time.sleep(self._pause_s(error, self._settings.retries - left))
        raise UnavailableError("Stripe was not asked")

    def _pause_s(self, error: Any, tries: int) -> float:
        """Return how long to wait before a call is repeated: what Stripe says, else doubling."""
        said = str((error.headers or {}).get("Retry-After", ""))
        wanted = float(said) if said.isdigit() else self._settings.backoff_s * 2**tries
        return min(wanted, RETRY_AFTER_MAX_S)

    def _known(self, error: Any) -> TaximeterError:
        """Return one of this module's errors for one of Stripe's."""
        status = error.http_status
        text = f"{error.user_message or error} (Stripe request {error.request_id or 'without an id'})"
        if isinstance(error, self._stripe.AuthenticationError | self._stripe.PermissionError):
            return KeyRefusedError(f"{text}; check STRIPE_API_KEY and its permissions")
        if status is None or status in (409, 429) or status >= 500:
            headers: Mapping[str, str] = error.headers or {}
            replayed = status is not None and status >= 500 and headers.get("Idempotent-Replayed") == "true"
            return UnavailableError(text, replayed=replayed)
        return RefusedError(f"stripe_{error.code or 'refused'}"[:64], text)


def _metadata(found: Any) -> dict[str, str]:
    return found.metadata.to_dict() if found.metadata else {}
