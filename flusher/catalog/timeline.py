"""What a subscription pays by at an instant, and which of its billing periods begins when. Pure.

A subscription is cut into stretches by its own changes and by the versions of its plan that are effective `at_once`;
a period never reaches over a cut. Every other version is taken by the periods that begin once it is in effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from flusher.catalog.model import NO_OVERRIDES, PlanChange, PlanVersion, Subscription, version_at
from flusher.pricing.period import BillingPeriod, Span, billing_period, period_containing
from flusher.pricing.plan import Overrides, Plan

Versions = Mapping[str, Sequence[PlanVersion]]
"""The versions of each plan, oldest first."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription pays by over `span`: a version of its plan, already under its overrides."""

    plan: Plan
    version: int
    span: Span


def billing_start(subscription: Subscription, versions: Versions) -> datetime:
    """Return when billing begins: at the start, or when the trial of the terms at the start is over.

    A trial's days have 24 hours: a customer who moves to another time zone keeps the moment.
    """
    if subscription.overrides.trial_days is not None:
        return subscription.start + timedelta(days=subscription.overrides.trial_days)
    plan = version_at(versions[subscription.plan], subscription.start).plan
    return subscription.start + timedelta(days=plan.trial_days)


def next_period(
    subscription: Subscription, versions: Versions, zone: tzinfo, at: datetime
) -> tuple[Terms, BillingPeriod] | None:
    """Return the billing period that begins at `at`, and its terms; None when the subscription has ended by then.

    `at` is where the period before ended; any time up to `billing_start` asks for the first one.
    """
    first = billing_start(subscription, versions)
    at = max(at, first)
    for step, start, end in _stretches(subscription, versions):
        if start <= at and (end is None or at < end):
            terms = _terms(step, versions, at, Span(max(start, first), end, first, zone))
            billing = billing_period(terms.plan.cycle, terms.span, at)
            return None if billing is None else (terms, billing)
    return None


def terms_at(subscription: Subscription, versions: Versions, instant: datetime, zone: tzinfo = UTC) -> Terms | None:
    """Return what the subscription pays by at an instant; None before its billing begins and once it has ended."""
    first = billing_start(subscription, versions)
    for step, start, end in _stretches(subscription, versions):
        if max(start, first) <= instant and (end is None or instant < end):
            span = Span(max(start, first), end, first, zone)
            return _terms(step, versions, _version_taken(step, versions, span, instant), span)
    return None


def _version_taken(step: PlanChange, versions: Versions, span: Span, instant: datetime) -> datetime:
    """Return when the period, or an earlier one of the same version, began that holds `instant`."""
    at = span.start
    own = versions[step.plan]
    while later := [found.effective_at for found in own if at < found.effective_at <= instant]:
        effective_at = min(later)
        cycle = version_at(own, at).plan.cycle
        billing = billing_period(cycle, span, at)
        if billing is not None and effective_at <= billing.period.end:
            taken = billing.period.end
        else:
            holding = period_containing(cycle, span.anchor, effective_at, span.zone)
            taken = effective_at if holding.start == effective_at else holding.end
        if taken > instant:
            break
        at = taken
    return at


def _stretches(
    subscription: Subscription, versions: Versions
) -> Iterator[tuple[PlanChange, datetime, datetime | None]]:
    """Yield the stretches of a subscription in order: what it pays by, from when, until when (None: open)."""
    for step, end in subscription.stretches:
        own = versions[step.plan]
        cuts = sorted(
            {
                version.effective_at
                for version in own[1:]
                if version.at_once
                and version is version_at(own, version.effective_at)
                and step.at < version.effective_at
                and (end is None or version.effective_at < end)
            }
        )
        starts = [step.at, *cuts]
        yield from ((step, start, until) for start, until in zip(starts, [*cuts, end], strict=True))


def _terms(step: PlanChange, versions: Versions, start: datetime, span: Span) -> Terms:
    """Return the terms of a period that begins at `start`."""
    version = version_at(versions[step.plan], start)
    return Terms(_under(version.plan, step.overrides), version.version, span)


def _under(plan: Plan, overrides: Overrides) -> Plan:
    """Return the plan under overrides; most subscriptions have none."""
    return plan if overrides == NO_OVERRIDES else plan.under(overrides)
