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
from enum import StrEnum
from itertools import groupby
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect
from flusher.invoicing.bucket import TokenBucket
from flusher.invoicing.customers import stripe_customers
from flusher.invoicing.gateway import RefusedError, StripeSettings, UnavailableError
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
_UNCONFIRMED: Final = "meter_event_unconfirmed"
_MEND: Final = (
    "look it up at Stripe, then `taximeter meters sent ID` when it is there, `taximeter meters again ID` when it is not"
)
_OLD: Final = (
    "Stripe takes events of the last 35 days; `taximeter meters again ID` adds its units to the customer's next event, "
    "`taximeter meters sent ID` says that they are billed otherwise"
)


class Api(StrEnum):
    """The way to Stripe: an event a call, or the stream."""

    V1 = "v1"
    V2 = "v2"


@dataclass(slots=True)
class Sent:
    """What a run sent: events and units, by meter."""

    events: dict[str, int] = field(default_factory=dict)
    units: dict[str, Decimal] = field(default_factory=dict)

    def add(self, meter: str, units: Decimal) -> None:
        """Add an event."""
        self.events[meter] = self.events.get(meter, 0) + 1
        self.units[meter] = self.units.get(meter, Decimal(0)) + units


class _End(NamedTuple):
    """What became of an event."""

    state: str
    reason: str | None = None
    detail: str | None = None


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
        if sender.settle_unconfirmed():
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
            end = _End("sent")
        elif total == known["sent"]:
            end = _End("pending")
        else:
            ours = f"{known['sent']} were sent, and {known['doubtful']} may have been"
            end = _End("parked", _UNCONFIRMED, f"{why}, {ours}; {_MEND}"[:2000])
        values = {"identifiers": known["identifiers"], **end._asdict()}
        self._connection.execute(query("settle_unconfirmed"), values)

    def send(self, progress: Progress) -> None:
        """Send page after page, until there is nothing left or Stripe does not answer."""
        self._connection.execute(query("park_old_metered_events"), {"oldest": AGE_MAX, "detail": _OLD})
        (counted,) = rows(self._connection, "count_metered_events")
        at: dict[str, Any] = {"hour": _FIRST, "identifier": ""}
        done = 0
        while True:
            page = rows(self._connection, "page_metered_events", {**at, "known": KNOWN_FOR, "limit": AT_ONCE})
            unanswered = self._send_page(page)
            done += len(page)
            progress(done, max(done, counted["count"]))
            if len(page) < AT_ONCE or unanswered >= UNANSWERED_MAX:
                return
            at = page[-1]

    def _send_page(self, page: Sequence[dict[str, Any]]) -> int:
        """Send the events of a page and store what became of them; return how many calls were not answered."""
        jobs, ends = self._begin(page), dict[str, _End]()
        try:
            spread(list(jobs), lambda: self._worker(jobs, ends), self._stripe.concurrency, lambda _done, _of: None)
        finally:
            self._store(page, ends)
        return sum(end.state == "pending" for end in ends.values())

    def _begin(self, page: Sequence[dict[str, Any]]) -> dict[str, list[MeterEvent]]:
        """Freeze where the events of a page go, and return them as jobs: what one thread sends in order."""
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
        events = [
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
        if self._api is Api.V2:
            return {str(start): events[start : start + STREAM_MAX] for start in range(0, len(events), STREAM_MAX)}
        events.sort(key=_place)  # stable: the hours of a customer and meter stay in order, one call at a time
        return {repr(place): list(group) for place, group in groupby(events, key=_place)}

    @contextmanager
    def _worker(self, jobs: dict[str, list[MeterEvent]], ends: dict[str, _End]) -> Iterator[Work]:
        """Give a thread its own gateway, and what it does about a job."""
        with closing(MeterGateway(self._stripe, self._bucket)) as gateway:
            send = _send_batch if self._api is Api.V2 else _send_each
            yield lambda job: send(gateway, jobs[job], ends)

    def _store(self, page: Sequence[dict[str, Any]], ends: dict[str, _End]) -> None:
        """Remember what became of the events of a page."""
        columns = {
            "identifiers": list(ends),
            "states": [end.state for end in ends.values()],
            "reasons": [end.reason for end in ends.values()],
            "details": [end.detail for end in ends.values()],
        }
        self._connection.execute(query("end_metered_events"), columns)
        for row in page:
            if row["identifier"] in ends and ends[row["identifier"]].state == "sent":
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


def _send_each(gateway: MeterGateway, events: Sequence[MeterEvent], ends: dict[str, _End]) -> bool:
    """Send events one after the other; return whether Stripe answered."""
    for event in events:
        try:
            gateway.send_event(event)
        except RefusedError as error:
            ends[event.identifier] = _refused(error)
        except UnavailableError as error:
            ends[event.identifier] = _End("pending", error.code, error.message[:2000])
            return False
        else:
            ends[event.identifier] = _End("sent")
    return True


def _send_batch(gateway: MeterGateway, events: Sequence[MeterEvent], ends: dict[str, _End]) -> bool:
    """Send a batch; one that is refused is sent event by event, so that only the wrong ones are parked."""
    try:
        gateway.send_events(events)
    except RefusedError as error:
        if len(events) > 1:
            return all(_send_batch(gateway, [event], ends) for event in events)
        ends[events[0].identifier] = _refused(error)
    except UnavailableError as error:
        ends[events[0].identifier] = _End("pending", error.code, error.message[:2000])
        return False
    else:
        ends.update({event.identifier: _End("sent") for event in events})
    return True


def _refused(error: RefusedError) -> _End:
    return _End(
        "parked", error.reason, f"{error.message}; mend it and run `taximeter invoice --sink meters` again"[:2000]
    )


def _place(event: MeterEvent) -> tuple[str, str]:
    return event.stripe_customer, event.event_name
