"""What every resource of the stand-in is built on: its clock, tables with an index, pages, and changes to fields."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tests.stripe_stand_in import shapes
from tests.stripe_stand_in.errors import ApiError, missing
from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.shapes import Resource

API_VERSION: Final = "2026-10-28.endive"
EVENTS_MAX: Final = 2000
PAGE_DEFAULT: Final = 10
PAGE_MAX: Final = 100


class Clock:
    """Stripe's time for one stand-in: the real one, moved as tests like."""

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._stopped_at: float | None = None

    def now(self) -> int:
        """Return the time in whole Unix seconds."""
        return int(self.time())

    def time(self) -> float:
        """Return the time in Unix seconds."""
        return (time.time() if self._stopped_at is None else self._stopped_at) + self._offset_s

    def stop(self) -> None:
        """Let no time pass but by `later`."""
        self._stopped_at = time.time()

    def later(self, seconds: float) -> None:
        """Move on, or back when negative."""
        self._offset_s += seconds


class Table(dict[str, Resource]):
    """Objects by id in the order they came, found quickly by one field of theirs, which stays as it was put."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field
        self._value_of: dict[str, Any] = {}
        self._groups: dict[Any, dict[str, Resource]] = {}

    def __setitem__(self, object_id: str, row: Resource) -> None:
        if object_id in self:
            del self[object_id]
        super().__setitem__(object_id, row)
        self._value_of[object_id] = row[self._field]
        self._groups.setdefault(row[self._field], {})[object_id] = row

    def __delitem__(self, object_id: str) -> None:
        super().__delitem__(object_id)
        del self._groups[self._value_of.pop(object_id)][object_id]

    def having(self, value: object) -> list[Resource]:
        """Return the objects whose indexed field is `value`, oldest first."""
        return list(self._groups.get(value, {}).values())

    def select(self, params: Params, names: Iterable[str]) -> list[Resource]:
        """Return what a list call asks for by equality of the fields in `names`, and by `created`; oldest first."""
        rows = self.having(params[self._field]) if params.get(self._field) else self.values()
        return [row for row in rows if _matches(row, params, names)]


class Base:
    """The account, its mode, its clock, and the events that its changes caused."""

    def __init__(self, account: str, *, livemode: bool, now: Callable[[], int]) -> None:
        self.account = account
        self.livemode = livemode
        self.events: deque[Resource] = deque(maxlen=EVENTS_MAX)
        self._now = now

    def retrieve_account(self, _id: str, _params: Params) -> Resource:
        """Answer GET /v1/account."""
        return shapes.account(self.account)

    def retrieve_event(self, event_id: str, _params: Params) -> Resource:
        """Answer GET /v1/events/{id}."""
        return found({event["id"]: event for event in self.events}, "event", event_id)

    def list_events(self, _id: str, params: Params) -> Resource:
        """Answer GET /v1/events."""
        kinds = params.get("types", [params["type"]] if "type" in params else [])
        chosen = [
            event
            for event in self.events
            if _matches(event, params, ()) and event["type"] in (kinds or [event["type"]])
        ]
        return page(chosen, params, "/v1/events")

    def emit(self, kind: str, about: Resource, previous: Resource | None = None) -> Resource:
        """Keep the event that Stripe would send for a change, with the object as it is now; return it."""
        data = {"object": about} if previous is None else {"object": about, "previous_attributes": previous}
        event = shapes.event(new_id("evt"), kind, _copy(data), self._now(), API_VERSION, livemode=self.livemode)
        self.events.append(event)
        return event


def new_id(prefix: str) -> str:
    """Return an id that no other object has."""
    return f"{prefix}_{secrets.token_hex(8)}"


def found(table: dict[str, Resource], kind: str, object_id: str, param: str | None = None) -> Resource:
    """Return an object, or raise ApiError: 404 for one that a path names, 400 for one in parameter `param`."""
    if object_id not in table:
        raise missing(kind, object_id, param or "id", 400 if param else 404)
    return table[object_id]


def required(params: Params, name: str) -> Any:
    """Return a parameter, or raise ApiError when it is absent."""
    if params.get(name) in (None, ""):
        raise ApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return params[name]


def settable(params: Params, resource: Resource) -> Resource:
    """Return the parameters of a new object that are fields of it; an empty string leaves a field as it is."""
    return {name: value for name, value in params.items() if name in resource and value != ""}


def change(resource: Resource, params: Params) -> Resource:
    """Set fields as an update does: metadata is merged, an empty string clears. Return what they were before."""
    given = {name: value for name, value in params.items() if name in resource}
    if "metadata" in given:
        merged = {**resource["metadata"], **given["metadata"]} if given["metadata"] else {}
        given["metadata"] = {key: value for key, value in merged.items() if value != ""}
    before = {name: resource[name] for name in given if resource[name] != given[name]}
    empty: Resource = {"discounts": [], "preferred_locales": []}
    resource.update({name: empty.get(name) if value == "" else value for name, value in given.items()})
    return before


def page(rows: list[Resource], params: Params, url: str) -> Resource:
    """Return a page of a list: newest first, as Stripe lists; lines keep their order."""
    limit = params.get("limit", PAGE_DEFAULT)
    if not 1 <= limit <= PAGE_MAX:
        raise ApiError(400, f"This value must be between 1 and {PAGE_MAX}.", param="limit")
    ordered = rows if url.endswith("/lines") else rows[::-1]
    start, end = 0, limit
    if "starting_after" in params:
        start = _place(ordered, params, "starting_after") + 1
        end = start + limit
    elif "ending_before" in params:
        end = _place(ordered, params, "ending_before")
        start = max(0, end - limit)
        return shapes.list_of(ordered[start:end], url, has_more=start > 0)
    return shapes.list_of(ordered[start:end], url, has_more=end < len(ordered))


def _place(ordered: list[Resource], params: Params, cursor: str) -> int:
    for place, row in enumerate(ordered):
        if row["id"] == params[cursor]:
            return place
    raise missing("object", params[cursor], cursor, 400)


def _matches(row: Resource, params: Params, names: Iterable[str]) -> bool:
    created: int | dict[str, int] = params.get("created", {})
    if isinstance(created, int):
        created = {"gte": created, "lte": created}
    at: int = row["created" if "created" in row else "date"]
    in_time = created.get("gte", at) <= at <= created.get("lte", at) and created.get("gt", at - 1) < at < created.get(
        "lt", at + 1
    )
    return in_time and all(row[name] == params[name] for name in names if name in params)


def _copy(data: Resource) -> Any:
    return msgspec.json.decode(msgspec.json.encode(data))
