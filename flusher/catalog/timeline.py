"""What a subscription pays by at an instant, and which of its billing periods begins when. Pure.

A subscription is cut into stretches by its own changes and by the versions of its plan that are effective `at_once`;
a period never reaches over a cut. Every other version is taken by the periods that begin once it is in effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from flusher.catalog.model import NO_OVERRIDES, PlanChange, PlanVersion, Subscription, version_at
from flusher.pricing.period import BillingPeriod, Span, billing_period, period_containing
from flusher.pricing.plan import Plan

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
    for step, start, end in _cut(subscription, versions):
        if start <= at and (end is None or at < end):
            terms = _terms(step, versions, at, Span(max(start, first), end, first, zone))
            billing = billing_period(terms.plan.cycle, terms.span, at)
            return None if billing is None else (terms, billing)
    return None


def terms_at(subscription: Subscription, versions: Versions, instant: datetime, zone: tzinfo = UTC) -> Terms | None:
    """Return what the subscription pays by at an instant; None before its billing begins and once it has ended."""
    for found in timeline(subscription, versions, zone):
        if found.start <= instant and (found.end is None or instant < found.end):
            return found.terms
    return None


class Stretch(NamedTuple):
    """A subscription pays by one version of one plan from `start` until `end` (None: open)."""

    start: datetime
    end: datetime | None
    terms: Terms


def timeline(subscription: Subscription, versions: Versions, zone: tzinfo = UTC) -> Iterator[Stretch]:
    """Yield what a subscription pays by, from the start of its billing to its end, without gap or overlap."""
    first = billing_start(subscription, versions)
    for step, start, end in _cut(subscription, versions):
        if end is not None and end <= first:
            continue
        span = Span(max(start, first), end, first, zone)
        at, own = span.start, versions[step.plan]
        while True:
            terms = _terms(step, versions, at, span)
            effective = min((found.effective_at for found in own if found.effective_at > at), default=None)
            until = end if effective is None else _boundary(terms, at, effective)
            if until is None or (end is not None and until >= end):
                yield Stretch(at, end, terms)
                break
            yield Stretch(at, until, terms)
            at = until


def _boundary(terms: Terms, at: datetime, effective: datetime) -> datetime:
    """Return where the first period begins, of those from `at` on, that begins at `effective` or later."""
    billing = billing_period(terms.plan.cycle, terms.span, at)
    if billing is not None and effective <= billing.period.end:
        return billing.period.end
    # The periods that follow are whole ones of the cycle.
    holding = period_containing(terms.plan.cycle, terms.span.anchor, effective, terms.span.zone)
    return effective if holding.start == effective else holding.end


def _cut(subscription: Subscription, versions: Versions) -> Iterator[tuple[PlanChange, datetime, datetime | None]]:
    """Yield each plan that the subscription has, from when, until when (None: open), cut where a version is at once."""
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
        yield from ((step, start, until) for start, until in zip([step.at, *cuts], [*cuts, end], strict=True))


def _terms(step: PlanChange, versions: Versions, start: datetime, span: Span) -> Terms:
    """Return the terms of a period that begins at `start`."""
    version = version_at(versions[step.plan], start)
    # Most subscriptions have no overrides.
    plan = version.plan if step.overrides == NO_OVERRIDES else version.plan.under(step.overrides)
    return Terms(plan, version.version, span)
