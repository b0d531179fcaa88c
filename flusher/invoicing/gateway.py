"""Stripe, and the only module that imports its package (when a gateway is made, so commands without Stripe stay quick).

Every call has a deadline and a token of the run's bucket. What can be repeated safely is repeated a few times here,
under the same idempotency key: a connection that broke, 409, 429 (which slows the bucket down) and 5xx. What is left is
one of three errors: the request is refused for good, Stripe can't be reached, or the key is no good for any invoice.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from flusher.invoicing.bucket import RATE_DEFAULT, TokenBucket
from flusher.invoicing.payload import CUSTOMER, INVOICE, LEDGER, LINE, Params, StripeTerms
from sidecar.contract.codes import TaximeterError, TryAgainError

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 30
RETRIES: Final = 3
BACKOFF_S: Final = 0.5  # doubled after every try
RETRY_AFTER_MAX_S: Final = 30.0
CONCURRENCY_DEFAULT: Final = 8
PAGE: Final = 100  # objects of a list that one call returns

MISSING: Final = "stripe_resource_missing"
"""The reason of a RefusedError about something that is not there."""

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
    """How Stripe is reached. `api_key` is never shown; `api_base` is the address of a stand-in, None for Stripe.

    `rate` is in calls a second, of all threads; `concurrency` is how many there are. `create_customers`: one that
    Stripe does not know is made there.
    """

    api_key: str
    api_base: str | None = None
    terms: StripeTerms = field(default_factory=StripeTerms)
    create_customers: bool = False
    rate: int = RATE_DEFAULT
    concurrency: int = CONCURRENCY_DEFAULT
    retries: int = RETRIES
    backoff_s: float = BACKOFF_S

    def __repr__(self) -> str:
        return f"StripeSettings(api_base={self.api_base!r}, livemode={self.livemode}, terms={self.terms})"

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


class Known(StrEnum):
    """What Stripe says of a customer's id."""

    THERE = "there"
    DELETED = "deleted"
    MISSING = "missing"


class RemoteInvoice(NamedTuple):
    """An invoice at Stripe with what its lines add up to, before tax: `sum` in Stripe's integers."""

    id: str
    status: str
    currency: str
    lines: int
    sum: int


class Gateway:
    """Stripe's API as delivery needs it. Not shared between threads, as its bucket is. Close it when done."""

    def __init__(self, settings: StripeSettings, bucket: TokenBucket | None = None) -> None:
        import stripe

        self._stripe = stripe
        self._settings = settings
        self._bucket = bucket or TokenBucket(settings.rate)
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

    def add_lines(self, params: Params, key: str) -> Remote:
        """Put lines on a draft: `params` hold its id as `invoice`."""
        given: Any = {"lines": params["lines"]}
        invoices = self._client.v1.invoices
        made = self._call(lambda: invoices.add_lines(params["invoice"], given, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def finalize_invoice(self, params: Params, key: str) -> Remote:
        """Finalize a draft: `params` hold its id as `invoice`."""
        given: Any = {name: value for name, value in params.items() if name != "invoice"}
        invoices = self._client.v1.invoices
        made = self._call(lambda: invoices.finalize_invoice(params["invoice"], given, {"idempotency_key": key}))
        return Remote(made.id, made.status)

    def find_invoice(self, customer: str, ledger: str, invoice: str) -> Remote | None:
        """Look for the invoice that we made for ours, by its metadata, among all of the customer's."""
        wanted = {LEDGER: ledger, INVOICE: invoice}
        for found in self._each(self._client.v1.invoices.list, {"customer": customer}):
            if wanted.items() <= _metadata(found).items():
                return Remote(found.id, found.status)
        return None

    def find_lines(self, stripe_invoice: str) -> frozenset[str]:
        """Return the ids of our lines that are on an invoice."""
        found = (_metadata(line) for line in self._lines(stripe_invoice))
        return frozenset(metadata[LINE] for metadata in found if LINE in metadata)

    def read_invoice(self, stripe_invoice: str) -> RemoteInvoice:
        """Return an invoice and what its lines add up to. Raises RefusedError when there is none."""
        found = self._call(lambda: self._client.v1.invoices.retrieve(stripe_invoice))
        embedded: Any = found.lines
        lines = self._lines(stripe_invoice) if embedded.has_more else embedded.data
        amounts = [line.amount for line in lines]
        return RemoteInvoice(found.id, found.status or "", found.currency, len(amounts), sum(amounts))

    def is_gone(self, stripe_invoice: str) -> bool:
        """Whether an invoice that was there is deleted, as a draft may be."""
        try:
            self._call(lambda: self._client.v1.invoices.retrieve(stripe_invoice))
        except RefusedError as error:
            return error.reason == MISSING
        return False

    def create_customer(self, params: Params, key: str) -> Remote:
        """Make a customer."""
        given: Any = params
        return Remote(self._call(lambda: self._client.v1.customers.create(given, {"idempotency_key": key})).id)

    def find_customer(self, ledger: str, customer: str, since_s: int) -> Remote | None:
        """Look for the customer that we made for ours, by its metadata, among those made since a Unix time."""
        wanted = {LEDGER: ledger, CUSTOMER: customer}
        for found in self._each(self._client.v1.customers.list, {"created": {"gte": since_s}}):
            if wanted.items() <= _metadata(found).items():
                return Remote(found.id)
        return None

    def list_customers(self, pages: int) -> Iterator[str]:
        """Yield the ids of the account's customers, the newest first, with so many calls at most."""
        for number, found in enumerate(self._each(self._client.v1.customers.list, {}), 1):
            yield found.id
            if number >= pages * PAGE:
                return

    def look_up_customer(self, customer: str) -> Known:
        """Return what Stripe says of a customer."""
        try:
            found: Any = self._call(lambda: self._client.v1.customers.retrieve(customer))
        except RefusedError as error:
            if error.reason == MISSING:
                return Known.MISSING
            raise
        return Known.DELETED if getattr(found, "deleted", False) else Known.THERE

    def _lines(self, stripe_invoice: str) -> Iterator[Any]:
        list_lines = self._client.v1.invoices.line_items.list
        return self._each(lambda params: list_lines(stripe_invoice, params), {})

    def _each(self, fetch: Callable[[Any], Any], filters: Params) -> Iterator[Any]:
        """Yield every object of a list, page after page."""
        after: Params = {}
        while True:
            page = self._call(partial(fetch, {**filters, **after, "limit": PAGE}))
            yield from page.data
            if not page.has_more or not page.data:
                return
            after = {"starting_after": page.data[-1].id}

    def _call(self, call: Callable[[], T]) -> T:
        """Make a call, repeated while that may help; raises one of this module's errors."""
        for tries in range(self._settings.retries + 1):
            self._bucket.take()
            try:
                return call()
            except self._stripe.StripeError as error:
                known = self._known(error)
                pause_s = self._pause_s(error, tries)
                held = error.http_status == 429 and error.code != "lock_timeout"  # which is about one object alone
                if held:
                    self._bucket.slow_down(pause_s)
                if tries == self._settings.retries or not isinstance(known, UnavailableError) or known.replayed:
                    raise known from error
                if not held:
                    time.sleep(pause_s)
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
