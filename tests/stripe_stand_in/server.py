"""The HTTP side of the stand-in: accounts, faults, a record of every call, and a thread to run in."""

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from tests.stripe_stand_in.base import Clock
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.faults import BAD_DAY, Answer, Chance, Effect, Fault, Faults, RateLimit
from tests.stripe_stand_in.outcomes import Asked, Keys, Outcome
from tests.stripe_stand_in.params import Params, check, decode_form, decode_json
from tests.stripe_stand_in.routes import ROUTES, STREAM
from tests.stripe_stand_in.store import Store

ACCOUNT = "acct_standin00000001"
START_DEADLINE_S = 10.0
_MODES = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


@dataclass(frozen=True)
class Call:
    """One request that arrived, `at` a time of the machine's monotonic clock.

    `status` is None when it was cut off without an answer.
    """

    route: str
    path: str
    params: Params
    idempotency_key: str | None
    status: int | None
    replayed: bool
    at: float = 0.0


@dataclass(frozen=True)
class _Account:
    """One account in one mode: its objects and its idempotency keys."""

    store: Store
    keys: Keys


@dataclass(frozen=True)
class _Request:
    """A request as far as it concerns Stripe."""

    route: str
    id: str
    params: Params
    asked: Asked
    api_key: str
    key: str | None


@dataclass
class StripeStandIn:
    """A server on 127.0.0.1 that answers as Stripe does, for as long as the `with` block lasts.

    `stores` holds the state of its first account by mode; `calls` every request. The switches: `fault()`, `chance()`,
    `limit()`, `refuse()`, `later()`; `heal()` puts them back, but for the clock.
    """

    account: str = ACCOUNT
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    faults: Faults = field(default_factory=Faults)
    rate_limit: RateLimit | None = None

    def __post_init__(self) -> None:
        self._accounts: dict[tuple[str, bool], _Account] = {}
        self._account_of: dict[str, str] = {}
        self._refused: dict[str, int] = {}
        self.stores = {mode: self._account(self.account, livemode=mode).store for mode in (False, True)}
        self._ready = threading.Event()
        self._soon: Callable[[Callable[[], object]], object] = lambda change: change()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._serve, name="stripe-stand-in", daemon=True)

    @property
    def test(self) -> Store:
        """The state that `sk_test_` keys see."""
        return self.stores[False]

    @property
    def live(self) -> Store:
        """The state that `sk_live_` keys see."""
        return self.stores[True]

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def give_key(self, api_key: str, account: str) -> Store:
        """Let an API key be another account's; return what that account holds in the key's mode."""
        self._account_of[api_key] = account
        return self._account(account, livemode=_mode(api_key)).store

    def refuse(self, api_key: str, status: Literal[401, 403] = 401) -> None:
        """Refuse an API key: it was revoked (401), or it lacks the permission (403)."""
        self._refused[api_key] = status

    def fault(
        self,
        route: str,
        effect: Effect,
        answer: Answer = "drop",
        *,
        times: int = 1,
        skip: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Fail coming calls to a route (`*`: to any)."""
        self.faults.planned.append(Fault(route, effect, answer, times, skip, seconds))

    def chance(
        self,
        share: float,
        *,
        seed: int = 0,
        kinds: Sequence[tuple[Effect, Answer]] = BAD_DAY,
        routes: Sequence[str] = (),
    ) -> Chance:
        """Fail a share of all coming calls by chance; return what counts them."""
        self.faults.chance = Chance(share, seed, kinds, routes)
        return self.faults.chance

    def limit(self, per_second: int, *, of: Literal["real", "stand-in"] = "real") -> RateLimit:
        """Answer 429 to more calls in a second of real time, or of the stand-in's; return what counts them."""
        self.rate_limit = RateLimit(per_second, time.monotonic if of == "real" else self.clock.time)
        return self.rate_limit

    def heal(self) -> None:
        """Forget every fault, limit and refusal; slow calls go on at once."""
        healed, self.faults = self.faults.healed, Faults()
        self._soon(healed.set)
        self.rate_limit = None
        self._refused.clear()

    def later(self, seconds: float) -> None:
        """Move the stand-in's clock: idempotency keys older than a day are forgotten."""
        self.clock.later(seconds)

    def forget_keys(self) -> None:
        """Let every idempotency key expire."""
        for account in self._accounts.values():
            account.keys.clear()

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

    def _serve(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Listen until stopped."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._soon = loop.call_soon_threadsafe
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
        return _response(Outcome.error(error))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        read = await _read(request)
        outcome = await self._outcome(read)
        status = None if outcome.dropped else outcome.status
        self.calls.append(Call(read.route, request.path, read.params, read.key, status, outcome.replayed, at))
        if outcome.dropped and request.transport is not None:
            request.transport.abort()
        return _response(outcome)

    async def _outcome(self, request: _Request) -> Outcome:
        """Return what a request comes to: the limit, its key in flight, faults, replays and checks, in this order."""
        try:
            account = self._session(request.api_key) if request.route == STREAM else self._account_for(request.api_key)
            self._check_rate()
            account.keys.begin(request.key)
        except ApiError as error:
            return Outcome.error(error)
        try:
            return await self._struck(request, account, self.faults.draw(request.route))
        except ApiError as error:
            return Outcome.error(error)
        finally:
            account.keys.end(request.key)

    def _check_rate(self) -> None:
        if self.rate_limit is not None and not self.rate_limit.passes():
            raise ApiError(429, "Too many requests", kind="rate_limit", code="rate_limit")

    async def _struck(self, request: _Request, account: _Account, drawn: Fault | None) -> Outcome:
        """Return what a call comes to with the faults before and after its effect."""
        before = _failure(await self._fault(request.route, "before", drawn), request.route)
        outcome = before or account.keys.replay(request.key, request.asked) or _perform(request, account.store)
        fault = await self._fault(request.route, "after", drawn)
        failure = _failure(fault, request.route)
        if fault is not None and fault.answer == "forget":
            account.keys.forget(request.key)
        else:
            replays = failure is not None and failure.saved and not request.asked.is_v2
            account.keys.save(request.key, request.asked, failure if failure is not None and replays else outcome)
        if failure is not None and failure.dropped:
            return replace(outcome, dropped=True)
        return failure or outcome

    async def _fault(self, route: str, effect: Effect, drawn: Fault | None) -> Fault | None:
        """Return the fault that befalls a call at this point, after its wait, which ends early when all is healed."""
        healed = self.faults.healed
        fault = self.faults.strike(route, effect, drawn)
        if fault is not None and fault.answer == "slow":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(healed.wait(), fault.seconds)
        return fault

    def _account(self, account: str, *, livemode: bool) -> _Account:
        where = (account, livemode)
        if where not in self._accounts:
            store = Store(account, livemode=livemode, now=self.clock.now)
            self._accounts[where] = _Account(store, Keys(self.clock.now))
        return self._accounts[where]

    def _account_for(self, api_key: str) -> _Account:
        """Return whose a key is; raise ApiError for one that is none, or that is refused."""
        livemode = _mode(api_key)
        status = self._refused.get(api_key)
        if status == 401:
            raise ApiError(401, "Expired API Key provided", code="api_key_expired")
        if status is not None:
            text = "The provided key does not have the required permissions for this endpoint."
            raise ApiError(status, text, code="more_permissions_required")
        return self._account(self._account_of.get(api_key, self.account), livemode=livemode)

    def _session(self, token: str) -> _Account:
        """Return whose session a token of the meter event stream is; raise ApiError for one that has ended."""
        for account in self._accounts.values():
            if token in account.store.sessions:
                account.store.check_session(token)
                return account
        raise ApiError(401, "Invalid session token provided", code="api_key_invalid")


async def _read(request: web.Request) -> _Request:
    resource = request.match_info.route.resource
    route = f"{request.method} {resource.canonical if resource else request.path}"
    text = await request.text() if request.method == "POST" else request.query_string
    is_json = request.content_type == "application/json"
    params = decode_json(text) if is_json else decode_form(parse_qsl(text, keep_blank_values=True))
    return _Request(
        route,
        request.match_info.get("id", ""),
        params,
        Asked(request.method, request.path, sha256(msgspec.json.encode(params, order="sorted")).digest()),
        request.headers.get("Authorization", "").removeprefix("Bearer "),
        request.headers.get("Idempotency-Key") if request.method == "POST" else None,
    )


def _mode(api_key: str) -> bool:
    mode = _MODES.get(api_key[:8])
    if mode is None:
        raise ApiError(401, "Invalid API Key provided", code="api_key_invalid")
    return mode


def _failure(fault: Fault | None, route: str) -> Outcome | None:
    """Return what a fault answers in place of the truth; a slow call is answered truly."""
    if fault is None or fault.answer == "slow":
        return None
    if isinstance(fault.answer, str):
        return Outcome(0, dropped=True)
    kind = "rate_limit" if fault.answer == 429 else "api_error"
    error = ApiError(fault.answer, f"The stand-in was told to fail {route}", kind=kind)
    return Outcome.error(error, saved=fault.answer >= 500)


def _perform(request: _Request, store: Store) -> Outcome:
    """Do what is asked. Refused parameters are not saved under the key: at Stripe the call then has not begun."""
    typed, operation = ROUTES[request.route]
    params = check(request.params, typed)
    try:
        return Outcome.of(200, operation(store, request.id, params), saved=True)
    except ApiError as error:
        return Outcome.error(error, saved=True)


def _response(outcome: Outcome) -> web.Response:
    headers = {"Request-Id": f"req_{secrets.token_hex(7)}"}
    if outcome.replayed:
        headers["Idempotent-Replayed"] = "true"
    if outcome.status == 429:
        headers["Retry-After"] = "1"
    return web.Response(
        body=outcome.body, status=outcome.status or 500, headers=headers, content_type="application/json"
    )
