"""What a change of a subscription does, and from when on. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

from flusher.catalog.model import PlanChange, PlanVersion, Subscription
from flusher.catalog.timeline import billing_start, timeline
from flusher.pricing.line import rfc3339
from flusher.pricing.period import Interval, period_containing
from flusher.pricing.plan import Plan, Price, UsagePrice

REACHES_BACK = "take a later time, or let what is invoiced be rated anew with --into-closed"


@dataclass(frozen=True, slots=True)
class Moment:
    """When changes are made, and when they take effect.

    `now` is the database's clock. A changed plan or subscription takes effect at `effective`; where that is None,
    with the periods that follow the running ones. `versions` are those of every plan, the newest as it is to be.
    `invoiced` is how far subscriptions are invoiced, by id, as far as they are at all; `closed` until when periods are
    invoiced by a plan, by its name, where that is after `effective`. With `into_closed` a change may reach behind both:
    the invoiced periods that begin at or after `effective` are rated anew.
    """

    now: datetime
    versions: Mapping[str, Sequence[PlanVersion]] = field(default_factory=dict)
    invoiced: Mapping[str, datetime] = field(default_factory=dict)
    closed: Mapping[str, datetime] = field(default_factory=dict)
    effective: datetime | None = None
    into_closed: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """A subscription as it is to be: `note` says from when on, `faults` what is wrong, by the key.

    `rerated_since` is when the change takes effect where that is behind what is invoiced.
    """

    subscription: Subscription
    note: str = ""
    faults: tuple[tuple[str, str], ...] = ()
    rerated_since: datetime | None = None


def settle(wanted: Subscription, before: Subscription | None, zone: tzinfo, moment: Moment) -> Settled:
    """Return what becomes of a subscription that is to be as `wanted` says, which has no changes of its own.

    Another plan or other overrides are a change from the moment on; changes that were to come later are dropped.
    `zone` is the customer's.
    """
    if before is None:
        return Settled(wanted)
    faults = [
        (key, _fixed(before.id, theirs, ours))
        for key, theirs, ours in (
            ("customer", before.customer, wanted.customer),
            ("start", rfc3339(before.start), rfc3339(wanted.start)),
        )
        if theirs != ours
    ]
    if faults:
        return Settled(before, faults=tuple(faults))
    invoiced = moment.invoiced.get(before.id)
    if wanted.end is not None and invoiced is not None and wanted.end < invoiced and wanted.end != before.end:
        message = (
            f"expected an end at or after {rfc3339(invoiced)}, as far as it is invoiced, got {rfc3339(wanted.end)}"
        )
        return Settled(before, faults=(("end", message),))
    ended = replace(before, end=wanted.end)
    if (wanted.plan, wanted.overrides) == (before.last.plan, before.last.overrides):
        return Settled(ended)
    return _changed(wanted, ended, zone, moment)


def running_end(subscription: Subscription, zone: tzinfo, moment: Moment) -> datetime | None:
    """Return the end of the running period, or when the first one begins; None once the subscription has ended."""
    first = billing_start(subscription, moment.versions)
    if moment.now < first:
        return first if subscription.end is None or first < subscription.end else None
    for stretch in timeline(subscription, moment.versions, zone):
        if stretch.end is None or moment.now < stretch.end:
            terms = stretch.terms
            end = period_containing(terms.plan.cycle, terms.span.anchor, moment.now, zone).end
            return end if stretch.end is None else min(end, stretch.end)
    return None


def _changed(wanted: Subscription, before: Subscription, zone: tzinfo, moment: Moment) -> Settled:
    """Return the subscription with another plan or other overrides from the moment on."""
    key = "plan" if wanted.plan != before.last.plan else "overrides"
    theirs, ours = (moment.versions[name][-1].plan.currency for name in (before.last.plan, wanted.plan))
    if theirs != ours:
        message = (
            f'expected a plan in "{theirs}", as the subscription is billed, got one in "{ours}"; end it, and add one'
        )
        return Settled(before, faults=(("plan", message),))
    at = moment.effective or running_end(before, zone, moment)
    if at is None or (before.end is not None and at >= before.end):
        message = "it ends before the change would take effect; move the end, or add another subscription"
        return Settled(before, faults=((key, message),))
    invoiced = moment.invoiced.get(before.id)
    if invoiced is not None and at < invoiced and not moment.into_closed:
        message = f"the change would take effect at {rfc3339(at)}, and it is invoiced until {rfc3339(invoiced)}"
        return Settled(before, faults=((key, f"{message}; {REACHES_BACK}"),))
    at = max(at, before.start)
    dropped = [change for change in before.changes if change.at >= at]
    note = f"from {rfc3339(at)} on"
    if dropped:
        note += f"; the change of {rfc3339(dropped[0].at)} is dropped"
    since = at if invoiced is not None and at < invoiced else None
    return Settled(with_change(before, PlanChange(at, wanted.plan, wanted.overrides)), note, rerated_since=since)


def with_change(before: Subscription, change: PlanChange) -> Subscription:
    """Return a subscription that pays by `change` from then on, whatever was to come later."""
    if change.at <= before.start:
        return replace(before, plan=change.plan, overrides=change.overrides, changes=())
    kept = replace(before, changes=tuple(earlier for earlier in before.changes if earlier.at < change.at))
    if (kept.last.plan, kept.last.overrides) == (change.plan, change.overrides):
        return kept
    return replace(kept, changes=(*kept.changes, change))


def period_problems(before: Plan, after: Plan) -> Iterator[tuple[str, str]]:
    """Yield why an ordinary new version can't follow another, as (path in the plan, what is wrong).

    Prices and commitments with periods longer than the plan's are due when these end. A version that is taken between
    two of the plan's periods and has them otherwise would leave the running ones to nobody.
    """
    remedy = "apply it with --effective T, which bills what has run until then"
    longer = [price for price in before.prices if _is_longer(price.interval, before)]
    running = before.commitment if before.commitment and _is_longer(before.commitment.interval, before) else None
    if after.cycle != before.cycle and (longer or running):
        message = (
            f"expected the cycle as it was, got another: a price or commitment runs for longer than a period; {remedy}"
        )
        yield "interval", message
        return
    places = {price.name: number for number, price in enumerate(after.prices)}
    for price in longer:
        number = places.get(price.name)
        if number is None:
            yield "prices", f"expected a price {price.name}, whose {price.interval} runs and would not end; {remedy}"
            continue
        message = f"expected it as it was: the running {price.interval} would not end; {remedy}"
        if after.prices[number].interval != price.interval:
            yield f"prices[{number}].interval", message
        elif _meter_of(after.prices[number]) != _meter_of(price):
            yield f"prices[{number}].meter", message
    if running is not None and (after.commitment is None or after.commitment.interval is not running.interval):
        yield "commitment", f"expected one of a {running.interval}, as the running one is; {remedy}"


def _is_longer(interval: Interval | None, plan: Plan) -> bool:
    """Whether an interval is longer than the plan's."""
    order = list(Interval)
    return interval is not None and order.index(interval) > order.index(plan.cycle.interval)


def _meter_of(price: Price) -> str | None:
    return price.meter if isinstance(price, UsagePrice) else None


def _fixed(subscription: str, theirs: str, ours: str) -> str:
    return (
        f'expected "{theirs}", as subscription "{subscription}" has it, got "{ours}"; '
        "set its end, and add another subscription with an id of its own"
    )
