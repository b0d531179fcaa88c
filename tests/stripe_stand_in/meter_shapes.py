"""The objects of Stripe's billing meters; sessions and events of v2 tell time in RFC 3339."""

from datetime import UTC, datetime

from tests.stripe_stand_in.shapes import Resource


def meter(meter_id: str, event_name: str, created: int, *, livemode: bool) -> Resource:
    """Return an active meter that sums `value` by `stripe_customer_id`."""
    return {
        "id": meter_id,
        "object": "billing.meter",
        "created": created,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "default_aggregation": {"formula": "sum"},
        "display_name": event_name,
        "event_name": event_name,
        "event_time_window": None,
        "livemode": livemode,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": created,
        "value_settings": {"event_payload_key": "value"},
    }


def meter_event(
    event_name: str, identifier: str, payload: dict[str, str], timestamp: int, created: int, *, livemode: bool
) -> Resource:
    """Return a meter event as v1 shows it."""
    return {
        "object": "billing.meter_event",
        "created": created,
        "event_name": event_name,
        "identifier": identifier,
        "livemode": livemode,
        "payload": payload,
        "timestamp": timestamp,
    }


def meter_event_v2(event: Resource) -> Resource:
    """Return a meter event as v2 shows it."""
    times = {name: rfc3339(event[name]) for name in ("created", "timestamp")}
    return {**event, **times, "object": "v2.billing.meter_event"}


def summary(summary_id: str, meter_id: str, value: int, start: int, end: int, *, livemode: bool) -> Resource:
    """Return what a customer used of a meter in a window."""
    return {
        "id": summary_id,
        "object": "billing.meter_event_summary",
        "aggregated_value": value,
        "end_time": end,
        "livemode": livemode,
        "meter": meter_id,
        "start_time": start,
    }


def session(session_id: str, token: str, created: int, expires: int, *, livemode: bool) -> Resource:
    """Return a session of the meter event stream."""
    return {
        "id": session_id,
        "object": "v2.billing.meter_event_session",
        "authentication_token": token,
        "created": rfc3339(created),
        "expires_at": rfc3339(expires),
        "livemode": livemode,
    }


def rfc3339(seconds: int) -> str:
    """Return a time as API v2 writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
