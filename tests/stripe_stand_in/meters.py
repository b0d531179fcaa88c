"""Billing meters and their events: v1 and v2 one at a time, and the stream of v2, which looks at events later."""

import re
from collections import defaultdict
from datetime import datetime
from typing import Any, Final, NamedTuple

from tests.stripe_stand_in import meter_shapes
from tests.stripe_stand_in.base import Table, change, found, new_id, page, required, settable
from tests.stripe_stand_in.customers import Customers
from tests.stripe_stand_in.errors import ApiError
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

STREAM_MAX: Final = 100
SESSION_LIFE_S: Final = 15 * 60
IDENTIFIER_LIFE_S: Final = 24 * 3600
IDENTIFIER_MAX: Final = 100
PAST_MAX_S: Final = 35 * 24 * 3600
FUTURE_MAX_S: Final = 5 * 60
_WHOLE: Final = re.compile(r"-?[0-9]{1,15}")
_WINDOWS_S: Final = {"hour": 3600, "day": 86400}


class Refused(NamedTuple):
    """An event of the stream that was dropped after it was taken: why, and which."""

    code: str
    identifier: str


class Meters(Customers):
    """Meters, and what they counted.

    `meter_events` are the events that count, as v1 shows them; `refused_events` what the stream dropped, known
    identifiers among them. Identifiers are remembered for a day of the stand-in's clock, and not a second longer.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.meters = Table("status")
        self.meter_events: list[Resource] = []
        self.refused_events: list[Refused] = []
        self.sessions: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def create_meter(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/billing/meters: one active meter for an event name."""
        for name in ("display_name", "default_aggregation"):
            required(params, name)
        if self._meter_for(required(params, "event_name")) is not None:
            text = f"A meter with the event name '{params['event_name']}' already exists."
            raise ApiError(400, text, code="resource_already_exists", param="event_name")
        return self.add_meter(**params)

    def add_meter(self, event_name: str, **fields: Any) -> Resource:
        """Put a meter, as if it had been made long ago."""
        meter = meter_shapes.meter(new_id("mtr"), event_name, self._now(), livemode=self.livemode)
        meter.update(settable(fields, meter))
        self.meters[meter["id"]] = meter
        return meter

    def retrieve_meter(self, meter_id: str, _params: Params) -> Resource:
        """Answer GET /v1/billing/meters/{id}."""
        return found(self.meters, "billing meter", meter_id)

    def list_meters(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/billing/meters."""
        return page(self.meters.select(params, ("status",)), params, "/v1/billing/meters")

    def update_meter(self, meter_id: str, params: Params) -> Resource:
        """Answer POST /v1/billing/meters/{id}: its display name."""
        meter = found(self.meters, "billing meter", meter_id)
        change(meter, params)
        return meter

    def deactivate_meter(self, meter_id: str, _params: Params) -> Resource:
        """Answer POST /v1/billing/meters/{id}/deactivate: it takes no more events."""
        return self._set_active(meter_id, "inactive", self._now())

    def reactivate_meter(self, meter_id: str, _params: Params) -> Resource:
        """Answer POST /v1/billing/meters/{id}/reactivate."""
        return self._set_active(meter_id, "active", None)

    def create_meter_event(self, _id: str, params: Params) -> Resource:
        """Answer POST /v1/billing/meter_events. Raises ApiError for whatever is wrong, a known identifier too."""
        event = self._read_event(params, params.get("timestamp", self._now()))
        problem = self._problem(event)
        if problem is not None:
            raise ApiError(400, problem.message, code=problem.code, param=problem.param)
        self._count(event)
        return event

    def create_meter_event_v2(self, _id: str, params: Params) -> Resource:
        """Answer POST /v2/billing/meter_events: as v1, with times in RFC 3339."""
        event = self.create_meter_event("", {**params, "timestamp": self._time_of(params)})
        return meter_shapes.meter_event_v2(event)

    def create_session(self, _id: str, _params: Params) -> Resource:
        """Answer POST /v2/billing/meter_event_session: a token for the stream, for a quarter of an hour."""
        now = self._now()
        token = new_id("token")
        self.sessions[token] = now + SESSION_LIFE_S
        expires = self.sessions[token]
        return meter_shapes.session(new_id("bmes"), token, now, expires, livemode=self.livemode)

    def create_stream(self, _id: str, params: Params) -> Resource:
        """Answer POST /v2/billing/meter_event_stream: up to 100 events are taken; what is wrong is dropped later."""
        events = required(params, "events")
        if len(events) > STREAM_MAX:
            raise ApiError(400, f"At most {STREAM_MAX} events can be sent at once.", code="invalid_fields")
        for event in [self._read_event(given, self._time_of(given)) for given in events]:
            problem = self._problem(event)
            if problem is None:
                self._count(event)
            else:
                self.refused_events.append(Refused(problem.code, event["identifier"]))
        return {}

    def check_session(self, token: str) -> None:
        """Raise ApiError when a session's token of ours has ended."""
        if self.sessions[token] <= self._now():
            raise ApiError(
                401,
                "The session has expired.",
                kind="temporary_session_expired",
                code="billing_meter_event_session_expired",
            )

    def list_summaries(self, meter_id: str, params: Params) -> Resource:
        """Answer GET /v1/billing/meters/{id}/event_summaries: windows without usage are left out."""
        meter = found(self.meters, "billing meter", meter_id)
        customer = found(self.customers, "customer", required(params, "customer"), "customer")["id"]
        start, end = required(params, "start_time"), required(params, "end_time")
        window = _WINDOWS_S.get(params.get("value_grouping_window", ""))
        for name in ("start_time", "end_time"):
            if params[name] % (window or 60):
                raise ApiError(400, f"{name} must be aligned with {window or 60} seconds.", param=name)
        values = defaultdict(list)
        for event in sorted(self.meter_events, key=lambda event: int(event["timestamp"])):
            of_customer = event["payload"][meter["customer_mapping"]["event_payload_key"]] == customer
            if event["event_name"] == meter["event_name"] and of_customer and start <= event["timestamp"] < end:
                place = event["timestamp"] - event["timestamp"] % window if window else start
                values[place].append(int(event["payload"][meter["value_settings"]["event_payload_key"]]))
        rows = [
            meter_shapes.summary(
                f"mtrusg_{meter_id[4:]}_{customer}_{place}",
                meter_id,
                _aggregate(meter, values[place]),
                place,
                place + window if window else end,
                livemode=self.livemode,
            )
            for place in sorted(values)
        ]
        return page(rows, params, f"/v1/billing/meters/{meter_id}/event_summaries")

    def _set_active(self, meter_id: str, status: str, at: int | None) -> Resource:
        meter = found(self.meters, "billing meter", meter_id)
        meter.update(status=status, status_transitions={"deactivated_at": at}, updated=self._now())
        self.meters[meter_id] = meter
        return meter

    def _meter_for(self, event_name: str) -> Resource | None:
        return next((row for row in self.meters.having("active") if row["event_name"] == event_name), None)

    def _time_of(self, params: Params) -> int:
        """Return when an event of v2 happened."""
        if "timestamp" not in params:
            return self._now()
        try:
            return int(datetime.fromisoformat(params["timestamp"]).timestamp())
        except ValueError as error:
            raise ApiError(400, "Expected a time in RFC 3339.", code="invalid_fields", param="timestamp") from error

    def _read_event(self, params: Params, timestamp: int) -> Resource:
        identifier = params.get("identifier") or new_id("idmp")
        if len(identifier) > IDENTIFIER_MAX:
            text = f"An identifier has at most {IDENTIFIER_MAX} characters."
            raise ApiError(400, text, code="parameter_invalid_string", param="identifier")
        name, payload = required(params, "event_name"), required(params, "payload")
        return meter_shapes.meter_event(name, identifier, payload, timestamp, self._now(), livemode=self.livemode)

    def _problem(self, event: Resource) -> "_Problem | None":
        """Return what is wrong with an event, by Stripe's code, if anything is."""
        name, payload, now = event["event_name"], event["payload"], self._now()
        meter = self._meter_for(name)
        if meter is None:
            return _Problem("no_meter", f"No active meter found for event name '{name}'.", "event_name")
        customer_key = meter["customer_mapping"]["event_payload_key"]
        value = payload.get(meter["value_settings"]["event_payload_key"], "")
        if customer_key not in payload:
            return _Problem("meter_event_no_customer_defined", f"No '{customer_key}' in the payload.", "payload")
        owner = self.customers.get(payload[customer_key])
        if owner is None or owner.get("deleted"):
            text = f"No such customer: '{payload[customer_key]}'"
            return _Problem("meter_event_customer_not_found", text, "payload")
        if not isinstance(value, str) or not _WHOLE.fullmatch(value):
            return _Problem("meter_event_invalid_value", f"Expected a whole number, got {value!r}.", "payload")
        if event["timestamp"] < now - PAST_MAX_S:
            return _Problem("timestamp_too_far_in_past", "The timestamp is more than 35 days ago.", "timestamp")
        if event["timestamp"] > now + FUTURE_MAX_S:
            return _Problem("timestamp_in_future", "The timestamp is more than 5 minutes ahead.", "timestamp")
        seen = self._seen.get(event["identifier"])
        if seen is not None and now - seen < IDENTIFIER_LIFE_S:
            text = f"An event already exists with identifier {event['identifier']}."
            return _Problem("duplicate_meter_event", text, "identifier")
        return None

    def _count(self, event: Resource) -> None:
        self._seen[event["identifier"]] = self._now()
        self.meter_events.append(event)


class _Problem(NamedTuple):
    """Why an event is not counted."""

    code: str
    message: str
    param: str


def _aggregate(meter: Resource, values: list[int]) -> int:
    """Return what a meter makes of a window's values, which are in order of time."""
    formula = meter["default_aggregation"]["formula"]
    return {"sum": sum(values), "count": len(values), "last": values[-1]}[formula]
