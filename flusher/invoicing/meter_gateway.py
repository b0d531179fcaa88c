"""Stripe's Billing Meters: events by the v1 API or the v2 stream, and what Stripe's summaries say."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from flusher.invoicing.gateway import Gateway, RefusedError

STREAM_MAX: Final = 100
"""Events in a request of the stream: Stripe's limit."""

_RENEWED_BEFORE: Final = timedelta(minutes=2)  # of the 15 that a session lasts
_KNOWN_CODE: Final = "stripe_duplicate_meter_event"
_KNOWN_TEXT: Final = "already exists with identifier"
_HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """What Stripe is told: a customer of its used whole `units` of what it calls `event_name` in the hour `at`."""

    identifier: str
    event_name: str
    stripe_customer: str
    units: int
    at: datetime

    @property
    def payload(self) -> dict[str, str]:
        """The payload, with the keys that meters have unless told otherwise."""
        return {"stripe_customer_id": self.stripe_customer, "value": str(self.units)}


class MeterGateway(Gateway):
    """The calls of the meter sink. Errors and repeats are those of Gateway."""

    _stream: Any = None
    _stream_until = datetime.min.replace(tzinfo=UTC)

    def send_event(self, event: MeterEvent) -> None:
        """Send one event (v1). One whose identifier Stripe knows is there already, which is as good."""
        params: Any = {
            "event_name": event.event_name,
            "identifier": event.identifier,
            "timestamp": int(event.at.timestamp()),
            "payload": event.payload,
        }
        try:
            self._call(lambda: self._client.v1.billing.meter_events.create(params))
        except RefusedError as error:
            if error.reason != _KNOWN_CODE and _KNOWN_TEXT not in error.message:
                raise

    def send_events(self, events: Sequence[MeterEvent]) -> None:
        """Send up to `STREAM_MAX` events on the stream (v2). Stripe looks at them later, and drops those it knows."""
        params: Any = {
            "events": [
                {
                    "event_name": event.event_name,
                    "identifier": event.identifier,
                    "timestamp": event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "payload": event.payload,
                }
                for event in events
            ]
        }
        self._call(lambda: self._on_stream(params))

    def hour_total(self, event_name: str, stripe_customer: str, hour: datetime) -> Decimal | None:
        """Return what Stripe has of a customer's hour, or None when it has no such meter."""
        meter = self.meters().get(event_name)
        if meter is None:
            return None
        start = int(hour.timestamp())
        params: Any = {"customer": stripe_customer, "start_time": start, "end_time": start + _HOUR_S}
        found: Any = self._call(lambda: self._client.v1.billing.meters.event_summaries.list(meter, params))
        return sum((Decimal(str(summary.aggregated_value)) for summary in found.data), Decimal(0))

    def meters(self) -> dict[str, str]:
        """Return the ids of the active meters, by event name."""
        found: dict[str, str] = {}
        for meter in self._each(self._client.v1.billing.meters.list, {"status": "active"}):
            found[meter.event_name] = meter.id
        return found

    def _on_stream(self, params: Any) -> None:
        """Send on the stream; a session that has ended, or soon will, is replaced by another."""
        now = datetime.now(UTC)
        if self._stream is None or now >= self._stream_until - _RENEWED_BEFORE:
            self._begin_session()
        try:
            self._stream.v2.billing.meter_event_stream.create(params)
        except (self._stripe.TemporarySessionExpiredError, self._stripe.AuthenticationError):
            self._begin_session()
            self._stream.v2.billing.meter_event_stream.create(params)

    def _begin_session(self) -> None:
        session: Any = self._client.v2.billing.meter_event_session.create()
        base = (self._settings.api_base or "").rstrip("/")
        bases: Any = {"api": base, "meter_events": base} if base else {}
        self._stream = self._stripe.StripeClient(
            session.authentication_token, base_addresses=bases, http_client=self._http, max_network_retries=0
        )
        expires: Any = session.expires_at
        self._stream_until = expires if isinstance(expires, datetime) else datetime.fromisoformat(str(expires))
