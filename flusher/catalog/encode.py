"""Writes entries of the catalog as the tables that a file would hold: JSON values, times as RFC 3339."""

from flusher.catalog.model import Customer, PlanChange, Subscription
from flusher.catalog.plan_reader import own_table, plan_table
from flusher.pricing.line import rfc3339
from flusher.pricing.plan import Plan
from sidecar.contract.meters import Meter

Entry = Meter | Plan | Customer | Subscription


def entry_table(entry: Entry) -> dict[str, object]:
    """Return any entry of a catalog as the table it was or could have been read from."""
    if isinstance(entry, Plan):
        return plan_table(entry)
    if isinstance(entry, Meter):
        return meter_table(entry)
    if isinstance(entry, Customer):
        return {
            "id": entry.id,
            "user_ids": list(entry.user_ids),
            "stripe_customer": entry.stripe_customer,
            "time_zone": entry.time_zone,
        }
    return subscription_table(entry, entry.last)


def subscription_table(subscription: Subscription, terms: PlanChange) -> dict[str, object]:
    """Return a subscription as a table with some of its terms."""
    end = {} if subscription.end is None else {"end": rfc3339(subscription.end)}
    return {
        "id": subscription.id,
        "customer": subscription.customer,
        "plan": terms.plan,
        "start": rfc3339(subscription.start),
        **end,
        **own_table(terms.overrides),
    }


def change_table(change: PlanChange) -> dict[str, object]:
    """Return a change of a subscription as a table."""
    return {"at": rfc3339(change.at), "plan": change.plan, **own_table(change.overrides)}


def meter_table(meter: Meter) -> dict[str, object]:
    """Return a meter as a table: the wire form of the contract."""
    return {
        "name": meter.name,
        "event_type": meter.event_type,
        "aggregation": meter.aggregation,
        "field": meter.field,
        "group_by": list(meter.group_by),
        "filter": {name: list(values) for name, values in meter.filter.items()},
        **({"detailed": True} if meter.detailed else {}),
    }
