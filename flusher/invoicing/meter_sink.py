"""Sends meter events to Stripe: each as often as it takes, and once.

What an event says is stored before its first call (`meter_usage.py`, and where it goes by `begin_metered_events`). Its
identifier makes a repeat safe for `KNOWN_FOR`. After that Stripe's own summary of the customer's hour says whether it
is there, before anything is sent; where that can't tell, the event is parked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.invoicing.bucket import TokenBucket
from flusher.invoicing.customers import stripe_customers
from flusher.invoicing.gateway import RefusedError, StripeSettings, UnavailableError
from flusher.invoicing.meter_calls import DETAIL_MAX, Api, Calls, End
from flusher.invoicing.meter_events import AGE_MAX
from flusher.invoicing.meter_gateway import STREAM_MAX, MeterEvent, MeterGateway
from flusher.invoicing.pool import UNANSWERED_MAX, Work, spread
from flusher.invoicing.store import rows
from flusher.sql import query
from sidecar.contract.codes import TaximeterError, TryAgainError

Connection = psycopg.Connection[TupleRow]
Progress = Callable[[int, int], None]

KNOWN_FOR: Final = timedelta(hours=20)
"""How long an identifier is relied on. Stripe remembers them for 24 hours; the rest is for a slow call and clocks."""
SUMMED_WITHIN: Final = timedelta(hours=1)
"""After so long Stripe's summaries have an event; they are not asked about younger ones."""
AT_ONCE: Final = 5_000
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_OLD: Final = "meter_event_too_old"
_UNCONFIRMED: Final = "meter_event_unconfirmed"
_MEND: Final = (
    "look it up at Stripe, then `taximeter meters sent ID` when it is there, `taximeter meters again ID` when it is not"
)
_OLD: Final = (
    "Stripe takes events of the last 35 days; `taximeter meters again ID` adds its units to the customer's next event, "
    "`taximeter meters sent ID` says that they are billed otherwise"
)


@dataclass(slots=True)
class Sent:
    """What a run sent: events and units, by meter."""

    events: dict[str, int] = field(default_factory=dict)
    units: dict[str, Decimal] = field(default_factory=dict)

    def add(self, meter: str, units: Decimal) -> None:
        """Add an event."""
        self.events[meter] = self.events.get(meter, 0) + 1
        self.units[meter] = self.units.get(meter, Decimal(0)) + units


def send_events(
    connection: Connection,
    url: str,
    stripe: StripeSettings,
    names: dict[str, str],
    api: Api,
    sent: Sent,
    progress: Progress = lambda _done, _of: None,
) -> None:
    """Send what can be sent now, of the meters in `names` (Stripe's event name by meter), and add it to `sent`.

    Safe to kill anywhere and to run again; of two runs at once one sends. `url` is for the connection that holds the
    lock. Raises TryAgainError `delivery_in_progress` where another run sends, KeyRefusedError.
    """
    with connect(url, autocommit=True) as locks:
        (lock,) = rows(locks, "try_lock_meter_calls")
        if not lock["held"]:
            raise TryAgainError("delivery_in_progress", "another run sends meter events now; what is made waits for it")
        sender = _Sender(connection, stripe, names, api, sent)
        if sender.settle_unconfirmed() and sender.look_at_meters():
            sender.send(progress)


class _Sender:
    """One run's calls. Only the thread of the run itself uses Postgres."""

    def __init__(
        self, connection: Connection, stripe: StripeSettings, names: dict[str, str], api: Api, sent: Sent
    ) -> None:
        self._connection = connection
        self._stripe = stripe
        self._names = names
        self._api = api
        self._sent = sent
        self._bucket = TokenBucket(stripe.rate)
        self._meters: frozenset[str] = frozenset()

    def settle_unconfirmed(self) -> bool:
        """Ask Stripe about events that it may have and whose identifiers it may have forgotten.

        Returns False when Stripe does not answer: nothing else is tried then.
        """
        at: dict[str, Any] = {"hour": _FIRST, "stripe_customer": "", "event_name": ""}
        with closing(MeterGateway(self._stripe, self._bucket)) as gateway:
            while True:
                found = rows(self._connection, "list_unconfirmed", {**at, "known": KNOWN_FOR, "limit": AT_ONCE})
                for group in found:
                    try:
                        self._settle(gateway, group)
                    except UnavailableError:
                        return False
                if len(found) < AT_ONCE:
                    return True
                at = found[-1]

    def look_at_meters(self) -> bool:
        """Look which meters there are, for the stream; return False when Stripe does not answer."""
        if self._api is Api.V2:
            try:
                with closing(MeterGateway(self._stripe, self._bucket)) as gateway:
                    self._meters = frozenset(gateway.meters())
            except UnavailableError:
                return False
        return True

    def _settle(self, gateway: MeterGateway, group: dict[str, Any]) -> None:
        """Compare a customer's hour at Stripe with what was sent of it, with and without the doubtful events."""
        (known,) = rows(self._connection, "read_metered_hour", {**group, "summed": SUMMED_WITHIN})
        if known["is_fresh"] or not known["identifiers"]:
            return  # what was sent lately may not be in Stripe's summary yet
        try:
            total = gateway.hour_total(group["event_name"], group["stripe_customer"], group["hour"].astimezone(UTC))
        except RefusedError as error:
            total, why = None, error.message
        else:
            why = f"Stripe has {'no such meter' if total is None else f'{total} units of the hour'}"
        if total == known["sent"] + known["doubtful"]:
            end = End("sent")
        elif total == known["sent"]:
            end = End("pending")
        else:
            ours = f"{known['sent']} were sent, and {known['doubtful']} may have been"
            end = End("parked", _UNCONFIRMED, f"{why}, {ours}; {_MEND}"[:DETAIL_MAX])
        values = {"identifiers": known["identifiers"], **end._asdict()}
        self._connection.execute(query("settle_unconfirmed"), values)

    def send(self, progress: Progress) -> None:
        """Send page after page, until there is nothing left or Stripe does not answer."""
        self._connection.execute(
            query("park_old_metered_events"), {"oldest": AGE_MAX, "reason": _TOO_OLD, "detail": _OLD}
        )
        (counted,) = rows(self._connection, "count_metered_events", {"oldest": AGE_MAX})
        at: dict[str, Any] = {"hour": _FIRST, "identifier": ""}
        done = 0
        while True:
            limits = {"known": KNOWN_FOR, "oldest": AGE_MAX, "limit": AT_ONCE}
            page = rows(self._connection, "page_metered_events", {**at, **limits})
            unanswered = self._send_page(page)
            done += len(page)
            progress(done, max(done, counted["count"]))
            if len(page) < AT_ONCE or unanswered >= UNANSWERED_MAX:
                return
            at = page[-1]

    def _send_page(self, page: Sequence[dict[str, Any]]) -> int:
        """Send the events of a page and store what became of them; return how many calls were not answered."""
        events = self._begin(page)
        calls = self._calls(page)
        jobs = self._jobs(events)
        try:
            spread(list(jobs), lambda: self._worker(jobs, calls), self._stripe.concurrency, lambda _done, _of: None)
        finally:
            self._store(page, calls.ends)
        return sum(end.state == "pending" for end in calls.ends.values())

    def _begin(self, page: Sequence[dict[str, Any]]) -> list[MeterEvent]:
        """Freeze where the events of a page go, and return those that are sent."""
        new = [row for row in page if not row["tried"] and row["meter"] in self._names]
        known = stripe_customers(self._connection, sorted({row["customer"] for row in new}))
        for row in new:
            row["event_name"], row["stripe_customer"] = self._names[row["meter"]], known[row["customer"]]
        columns = {
            "identifiers": [row["identifier"] for row in new],
            "event_names": [row["event_name"] for row in new],
            "stripe_customers": [row["stripe_customer"] for row in new],
        }
        self._connection.execute(query("begin_metered_events"), columns)
        return [
            MeterEvent(
                row["identifier"],
                row["event_name"],
                row["stripe_customer"],
                int(row["units"]),
                row["hour"].astimezone(UTC),
            )
            for row in page
            if row["tried"] or row["meter"] in self._names
        ]

    def _calls(self, page: Sequence[dict[str, Any]]) -> Calls:
        """Return the calls for a page whose events are begun."""
        if self._api is Api.V1:
            return Calls(self._api)
        named = sorted({row["stripe_customer"] for row in page if row["stripe_customer"]})
        new = {
            row["stripe_customer"] for row in rows(self._connection, "list_new_at_stripe", {"stripe_customers": named})
        }
        unproven = {
            row["identifier"]
            for row in page
            if not row["tried"] and (row["stripe_customer"] in new or row["event_name"] not in self._meters)
        }
        return Calls(self._api, self._meters, unproven)

    def _jobs(self, events: list[MeterEvent]) -> dict[str, list[MeterEvent]]:
        """Return what one thread sends in order, by a name: a batch, or the events of a customer and meter."""
        if self._api is Api.V2:
            return {str(start): events[start : start + STREAM_MAX] for start in range(0, len(events), STREAM_MAX)}
        events.sort(key=_place)  # stable: the hours of a pair stay in order
        return {repr(place): list(group) for place, group in groupby(events, key=_place)}

    @contextmanager
    def _worker(self, jobs: dict[str, list[MeterEvent]], calls: Calls) -> Iterator[Work]:
        """Give a thread its own gateway, and what it does about a job."""
        with closing(MeterGateway(self._stripe, self._bucket)) as gateway:
            yield lambda job: calls.send(gateway, jobs[job])

    def _store(self, page: Sequence[dict[str, Any]], ends: dict[str, End]) -> None:
        """Remember what became of the events of a page.

        One that was tried before, and refused now, may have been taken then: Stripe's sum will tell.
        """
        ended = [(row, ends[row["identifier"]]) for row in page if row["identifier"] in ends]
        columns = {
            "identifiers": [row["identifier"] for row, _ in ended],
            "states": ["pending" if row["tried"] and end.state == "parked" else end.state for row, end in ended],
            "reasons": [end.reason for _, end in ended],
            "details": [end.detail for _, end in ended],
        }
        self._connection.execute(query("end_metered_events"), columns)
        for row, end in ended:
            if end.state == "sent":
                self._sent.add(row["meter"], row["units"])


def decide(connection: Connection, identifier: str, *, again: bool, reason: str) -> None:
    """Let the units of a parked event be carried to the next one (`again`), or take it for sent.

    Raises TaximeterError `meter_event_missing`, `already_decided`.
    """
    with connection.transaction():
        connection.execute(query("lock_metering"))
        values = {"identifier": identifier, "state": "returned" if again else "sent", "detail": reason}
        decided = rows(connection, "decide_metered_event", values)
        if not decided:
            known = rows(connection, "find_metered_event", values)
            if not known:
                raise TaximeterError(
                    "meter_event_missing", f"no meter event {identifier!r}; `taximeter meters` lists them"
                )
            raise TaximeterError("already_decided", f"{identifier} is {known[0]['state']}, and only parked ones wait")
        if again:
            connection.execute(query("carry_again"), decided[0])


def _place(event: MeterEvent) -> tuple[str, str]:
    return event.stripe_customer, event.event_name
