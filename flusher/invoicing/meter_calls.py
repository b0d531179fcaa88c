"""What one thread does with some meter events, and what becomes of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from flusher.invoicing.gateway import Known, RefusedError, UnavailableError
from flusher.invoicing.meter_gateway import MeterEvent, MeterGateway

DETAIL_MAX: Final = 2_000
_MEND: Final = "mend it and run `taximeter invoice --sink meters` again"


class Api(StrEnum):
    """The way to Stripe: an event a call, or the stream."""

    V1 = "v1"
    V2 = "v2"


class End(NamedTuple):
    """What became of an event: sent, parked because Stripe does not take it, or pending as nobody knows."""

    state: str
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls for a page of events; `ends` collects what became of them, by identifier.

    The stream drops what is wrong without a word. So of events that Stripe surely does not have, `unproven` are those
    of customers of whom it took nothing yet, and `meters` are the event names that there are: both are looked at first.
    """

    api: Api
    meters: Collection[str] = ()
    unproven: Collection[str] = ()
    ends: dict[str, End] = field(default_factory=dict)
    _known: dict[str, Known] = field(default_factory=dict)

    def send(self, gateway: MeterGateway, events: Sequence[MeterEvent]) -> bool:
        """Send events in order, and return whether Stripe answered."""
        asked = events[0]
        try:
            if self.api is Api.V2:
                self._send_batch(gateway, [event for event in events if self._is_wanted(gateway, event)])
                return True
            for asked in events:
                self._send_one(gateway, asked)
        except UnavailableError as error:
            self.ends[asked.identifier] = End("pending", error.code, error.message[:DETAIL_MAX])
            return False
        return True

    def _send_one(self, gateway: MeterGateway, event: MeterEvent) -> None:
        try:
            gateway.send_event(event)
        except RefusedError as error:
            self._park(event, error.reason, error.message)
        else:
            self.ends[event.identifier] = End("sent")

    def _send_batch(self, gateway: MeterGateway, events: Sequence[MeterEvent]) -> None:
        """Send a batch; one that is refused is sent event by event, so that only the wrong ones are parked."""
        if not events:
            return
        try:
            gateway.send_events(events)
        except RefusedError as error:
            if len(events) == 1:
                self._park(events[0], error.reason, error.message)
                return
            for event in events:
                self._send_batch(gateway, [event])
        else:
            self.ends.update({event.identifier: End("sent") for event in events})

    def _is_wanted(self, gateway: MeterGateway, event: MeterEvent) -> bool:
        """Whether the stream will take an event, as far as that can be known; one that it would drop is parked."""
        if event.identifier not in self.unproven:
            return True
        if event.event_name not in self.meters:
            self._park(event, "stripe_meter_missing", f"Stripe has no active meter for events {event.event_name!r}")
            return False
        customer = event.stripe_customer
        if customer not in self._known:
            self._known[customer] = gateway.look_up_customer(customer)
        if self._known[customer] is not Known.THERE:
            self._park(event, "stripe_customer_missing", f"Stripe's customer {customer!r} is {self._known[customer]}")
            return False
        return True

    def _park(self, event: MeterEvent, reason: str, why: str) -> None:
        self.ends[event.identifier] = End("parked", reason, f"{why}; {_MEND}"[:DETAIL_MAX])
