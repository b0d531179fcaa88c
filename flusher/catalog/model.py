"""The catalog's values, and which version of a plan is in force at an instant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Final

from flusher.catalog.zones import zone_named
from flusher.pricing.plan import Overrides, Plan
from sidecar.contract.meters import Meter

CATALOG_INVALID: Final = "catalog_invalid"
METER_IN_USE: Final = "meter_in_use"
NO_OVERRIDES: Final = Overrides()


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. `user_ids` are the users whose usage is this customer's, in order.

    `time_zone` is the IANA name of the zone whose days and months the customer's calendar periods follow.
    """

    id: str
    user_ids: tuple[str, ...]
    stripe_customer: str
    time_zone: str = "UTC"

    @classmethod
    def implied(cls, customer_id: str) -> "Customer":
        """Return the customer that a user without an entry is: its own, under its own id."""
        return cls(customer_id, (customer_id,), customer_id)

    @property
    def zone(self) -> tzinfo:
        """The customer's time zone."""
        return zone_named(self.time_zone)


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A subscription pays by `plan` and `overrides` from `at`, in UTC."""

    at: datetime
    plan: str
    overrides: Overrides = NO_OVERRIDES


@dataclass(frozen=True, slots=True)
class Subscription:
    """A customer on a plan from `start` until `end` (None: open), a half-open interval in UTC.

    `plan` and `overrides` are those that it began with; `changes` come later, oldest first.
    """

    id: str
    customer: str
    plan: str
    start: datetime
    end: datetime | None = None
    overrides: Overrides = NO_OVERRIDES
    changes: tuple[PlanChange, ...] = ()

    @property
    def last(self) -> PlanChange:
        """What it pays by in the end: the last change, or what it began with."""
        return self.changes[-1] if self.changes else PlanChange(self.start, self.plan, self.overrides)

    @property
    def stretches(self) -> tuple[tuple[PlanChange, datetime | None], ...]:
        """Each plan that it has, in order, and until when (None: open)."""
        steps = (PlanChange(self.start, self.plan, self.overrides), *self.changes)
        if self.end is not None:
            steps = tuple(step for step in steps if step.at < self.end)
        return tuple(zip(steps, (*(step.at for step in steps[1:]), self.end), strict=True))


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A plan as it was applied. `version` counts from 1.

    Periods that begin at or after `effective_at`, in UTC, use it; with `at_once` it is used from that moment on, in
    the middle of periods too.
    """

    plan: Plan
    version: int
    effective_at: datetime
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """Meters, newest plans, customers and subscriptions, each by its name or id."""

    meters: Mapping[str, Meter] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    customers: Mapping[str, Customer] = field(default_factory=dict)
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)

    def with_entries(self, other: "Catalog") -> "Catalog":
        """Return this catalog with the entries of `other` added, or put in the place of those of the same name."""
        return Catalog(
            {**self.meters, **other.meters},
            {**self.plans, **other.plans},
            {**self.customers, **other.customers},
            {**self.subscriptions, **other.subscriptions},
        )


EMPTY: Final = Catalog()


def version_at(versions: Sequence[PlanVersion], start: datetime) -> PlanVersion:
    """Return the version that a period beginning at `start` uses; `versions` are oldest first and not empty.

    It is the last one applied of those in effect by then, or the first where the period is older than the plan.
    """
    for version in reversed(versions):
        if version.effective_at <= start:
            return version
    return versions[0]


def counts_the_same(one: Meter, other: Meter) -> bool:
    """Whether two meters of one name count the same events in the same way, the order of lists aside."""
    return _meaning(one) == _meaning(other)


def _meaning(meter: Meter) -> tuple[object, ...]:
    """Return what decides what a meter counts, in a form that ignores order."""
    read = None if meter.aggregation == "count" else meter.field
    values = {name: frozenset(allowed) for name, allowed in meter.filter.items()}
    return meter.event_type, meter.aggregation, read, frozenset(meter.group_by), values, meter.keeps_values
