"""The HTTP side of the stand-in: keys, idempotency, faults, a record of every call, and a thread to run in."""

import asyncio
import copy
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

from aiohttp import web
from stripe import params as typed

from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.params import Params, check, decode_form
from tests.stripe_stand_in.store import Store

ACCOUNT = "acct_standin00000001"
KEY_LIFE_S = 24 * 3600
START_DEADLINE_S = 10.0
_MODES = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}

Operation = Callable[[Store, str, Params], Any]

# Route -> the params that Stripe's package knows for it, and what it does.
ROUTES: dict[str, tuple[type, Operation]] = {
    "GET /v1/account": (typed.AccountRetrieveCurrentParams, Store.retrieve_account),
    "POST /v1/customers": (typed.CustomerCreateParams, Store.create_customer),
    "GET /v1/customers": (typed.CustomerListParams, Store.list_customers),
    "GET /v1/customers/{id}": (typed.CustomerRetrieveParams, Store.retrieve_customer),
    "POST /v1/invoiceitems": (typed.InvoiceItemCreateParams, Store.create_item),
    "GET /v1/invoiceitems": (typed.InvoiceItemListParams, Store.list_items),
    "GET /v1/invoiceitems/{id}": (typed.InvoiceItemRetrieveParams, Store.retrieve_item),
    "POST /v1/invoices": (typed.InvoiceCreateParams, Store.create_invoice),
    "GET /v1/invoices": (typed.InvoiceListParams, Store.list_invoices),
    "GET /v1/invoices/{id}": (typed.InvoiceRetrieveParams, Store.retrieve_invoice),
    "POST /v1/invoices/{id}": (typed.InvoiceUpdateParams, Store.update_invoice),
    "DELETE /v1/invoices/{id}": (typed.InvoiceDeleteParams, Store.delete_invoice),
    "GET /v1/invoices/{id}/lines": (typed.InvoiceLineItemListParams, Store.list_lines),
    "POST /v1/invoices/{id}/add_lines": (typed.InvoiceAddLinesParams, Store.add_lines),
    "POST /v1/invoices/{id}/finalize": (typed.InvoiceFinalizeInvoiceParams, Store.finalize),
    "POST /v1/invoices/{id}/void": (typed.InvoiceVoidInvoiceParams, Store.void),
}


@dataclass(frozen=True)
class Call:
    """One request that arrived: `status` is None when it was cut off without an answer."""

    route: str
    path: str
    params: Params
    idempotency_key: str | None
    status: int | None
    replayed: bool


@dataclass
class Fault:
    """Fails calls to `route`: after `skip` of them, `times` of them, before or after their effect.

    `answer` is a status, or "drop" to cut the connection. As at Stripe a 5xx is saved under the idempotency key and
    replayed; 409 and 429 are not: after an effect they stand for a proxy that answers in Stripe's place.
    """

    route: str
    effect: Literal["before", "after"]
    answer: Literal["drop"] | int = "drop"
    times: int = 1
    skip: int = 0

    def strikes(self, route: str, effect: str) -> bool:
        """Whether this call is to fail; counts it."""
        if route != self.route or effect != self.effect or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class _Outcome:
    """What a call comes to: its answer, whether a key remembers it, and whether the connection is cut instead."""

    status: int
    body: dict[str, Any]
    saved: bool = False
    replayed: bool = False
    dropped: bool = False


@dataclass(frozen=True)
class _Saved:
    """The outcome under an idempotency key, and what was asked."""

    asked: tuple[str, str, str]
    outcome: _Outcome
    at: int


@dataclass
class StripeStandIn:
    """A server on 127.0.0.1 that answers as Stripe does, for as long as the `with` block lasts.

    `stores` holds the state by mode; `calls` every request; `fault()` and `later()` are the switches.
    """

    account: str = ACCOUNT
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _saved: dict[str, _Saved] = field(default_factory=dict)
    _clock_offset_s: float = 0.0

    def __post_init__(self) -> None:
        self.stores = {mode: Store(self.account, livemode=mode, now=self._now) for mode in (False, True)}
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._serve, name="stripe-stand-in", daemon=True)

    @property
    def test(self) -> Store:
        """The state that `sk_test_` keys see."""
        return self.stores[False]

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def fault(
        self,
        route: str,
        effect: Literal["before", "after"],
        answer: Literal["drop"] | int = "drop",
        *,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Fail coming calls to a route."""
        self._faults.append(Fault(route, effect, answer, times, skip))

    def heal(self) -> None:
        """Forget every fault."""
        self._faults.clear()

    def later(self, seconds: float) -> None:
        """Move the stand-in's clock: idempotency keys older than a day are forgotten."""
        self._clock_offset_s += seconds

    def calls_to(self, route: str) -> list[Call]:
        """Return the calls that came to a route, in order."""
        return [call for call in self.calls if call.route == route]

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_DEADLINE_S):
            raise TimeoutError("the stand-in for Stripe did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join(START_DEADLINE_S)

    def _now(self) -> int:
        return int(time.time() + self._clock_offset_s)

    def _serve(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Listen until stopped."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        app = web.Application()
        for route in ROUTES:
            method, path = route.split(" ")
            app.router.add_route(method, path, self._answer)
        app.router.add_route("*", "/{tail:.*}", self._unknown)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await stopped.wait()
        await runner.cleanup()

    async def _unknown(self, request: web.Request) -> web.Response:
        error = ApiError(404, f"Unrecognized request URL ({request.method}: {request.path}).")
        return _response(_Outcome(error.status, error.body()))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = f"{request.method} {resource.canonical if resource else request.path}"
        text = await request.text() if request.method == "POST" else request.query_string
        params = decode_form(parse_qsl(text, keep_blank_values=True))
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        outcome = self._outcome(request, route, params, key)
        status = None if outcome.dropped else outcome.status
        self.calls.append(Call(route, request.path, params, key, status, replayed=outcome.replayed))
        if outcome.dropped and request.transport is not None:
            request.transport.abort()
        return _response(outcome)

    def _outcome(self, request: web.Request, route: str, params: Params, key: str | None) -> _Outcome:
        asked = (request.method, request.path, json.dumps(params, sort_keys=True))
        try:
            store = self._store_for(request)
            outcome = self._struck(route, "before") or self._replay(key, asked)
            if outcome is None:
                checked = check(params, ROUTES[route][0])
                outcome = _perform(ROUTES[route][1], store, request.match_info.get("id", ""), checked)
        except ApiError as error:
            return _Outcome(error.status, error.body())
        lost = self._struck(route, "after")
        if lost is not None and lost.saved:
            outcome = lost
        if key is not None and outcome.saved and key not in self._saved:
            self._saved[key] = _Saved(asked, outcome, self._now())
        if lost is not None and lost.dropped:
            return replace(outcome, dropped=True)
        return lost or outcome

    def _store_for(self, request: web.Request) -> Store:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        mode = _MODES.get(key[:8])
        if mode is None:
            raise ApiError(401, "Invalid API Key provided", kind="invalid_request_error", code="api_key_invalid")
        return self.stores[mode]

    def _struck(self, route: str, effect: Literal["before", "after"]) -> _Outcome | None:
        for fault in self._faults:
            if fault.strikes(route, effect):
                if fault.answer == "drop":
                    return _Outcome(0, {}, dropped=True)
                kind = "rate_limit" if fault.answer == 429 else "api_error"
                error = ApiError(fault.answer, f"The stand-in was told to fail {route}", kind=kind)
                return _Outcome(fault.answer, error.body(), saved=fault.answer >= 500)
        return None

    def _replay(self, key: str | None, asked: tuple[str, str, str]) -> _Outcome | None:
        saved = self._saved.get(key or "")
        if saved is None or saved.at + KEY_LIFE_S <= self._now():
            self._saved.pop(key or "", None)
            return None
        if saved.asked != asked:
            text = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request."
            )
            raise ApiError(400, text, kind="idempotency_error")
        return replace(saved.outcome, replayed=True, dropped=False)


def _perform(operation: Operation, store: Store, object_id: str, params: Params) -> _Outcome:
    try:
        return _Outcome(200, copy.deepcopy(operation(store, object_id, params)), saved=True)
    except ApiError as error:
        return _Outcome(error.status, error.body(), saved=True)


def _response(outcome: _Outcome) -> web.Response:
    headers = {"Request-Id": f"req_{secrets.token_hex(7)}"}
    if outcome.replayed:
        headers["Idempotent-Replayed"] = "true"
    if outcome.status == 429:
        headers["Retry-After"] = "1"
    return web.json_response(outcome.body, status=outcome.status or 500, headers=headers)
