"""The catalog's values, and which version of a plan a period uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flusher.pricing.plan import Plan
from sidecar.contract.meters import Meter

CATALOG_INVALID: Final = "catalog_invalid"
METER_IN_USE: Final = "meter_in_use"


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. `user_ids` are the users whose usage is this customer's, in order; times are billed in UTC."""

    id: str
    user_ids: tuple[str, ...]
    stripe_customer: str
    time_zone: str = "UTC"

    @classmethod
    def implied(cls, customer_id: str) -> "Customer":
        """Return the customer that a user without an entry is: its own, under its own id."""
        return cls(customer_id, (customer_id,), customer_id)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A customer on a plan from `start` until `end` (None: open), a half-open interval in UTC."""

    id: str
    customer: str
    plan: str
    start: datetime
    end: datetime | None = None

    def overlaps(self, other: "Subscription") -> bool:
        """Whether both run at some instant."""
        return (other.end is None or self.start < other.end) and (self.end is None or other.start < self.end)


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """A plan as it was applied. `version` counts from 1; `effective_at` is when it was applied, in UTC."""

    plan: Plan
    version: int
    effective_at: datetime


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

    It is the last one applied by then, or the first where the period is older than the plan.
    """
    applied = [version for version in versions if version.effective_at <= start]
    return applied[-1] if applied else versions[0]


def counts_the_same(one: Meter, other: Meter) -> bool:
    """Whether two meters of one name count the same events in the same way, the order of lists aside."""
    return _meaning(one) == _meaning(other)


def _meaning(meter: Meter) -> tuple[object, ...]:
    """Return what decides what a meter counts, in a form that ignores order."""
    read = None if meter.aggregation == "count" else meter.field
    values = {name: frozenset(allowed) for name, allowed in meter.filter.items()}
    return meter.event_type, meter.aggregation, read, frozenset(meter.group_by), values
