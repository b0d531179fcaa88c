"""Compares a catalog file with the catalog in force: what it adds, what it changes, and what it may not change.

Nothing is ever removed: an entry that the file leaves out stays as it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Final, NamedTuple

from flusher.catalog.changing import REACHES_BACK, Moment, period_problems, settle
from flusher.catalog.check import check_priced_once
from flusher.catalog.detailed import detail_problems, meters_to_detail, priced_per_event
from flusher.catalog.encode import Entry, entry_table
from flusher.catalog.model import METER_IN_USE, Catalog, Customer, PlanVersion, Subscription, counts_the_same
from flusher.catalog.parse import Draft
from flusher.catalog.problem import CatalogError, Problem
from flusher.catalog.reader import Report
from flusher.catalog.timeline import Versions
from flusher.pricing.line import rfc3339
from sidecar.contract.meters import WINDOW_S, Meter

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECTIONS: Final = ("meters", "plans", "customers", "subscriptions")


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that differs: `path` within the entry, and its values before and after as text, None for absent."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that is added (`before` is None) or changed."""

    section: str
    name: str
    before: Entry | None
    after: Entry
    note: str = ""

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What differs, key by key, in the order of the keys."""
        old = _flat(entry_table(self.before)) if self.before else {}
        new = _flat(entry_table(self.after))
        return tuple(
            Difference(path, old.get(path), new.get(path))
            for path in dict.fromkeys([*old, *new])
            if old.get(path) != new.get(path)
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What applying a file does. `after` is the whole catalog then in force."""

    changes: tuple[Change, ...]
    after: Catalog

    @property
    def change_meters(self) -> bool:
        """Whether the meters change, so that batches have to be counted under a new revision."""
        return any(change.section == "meters" for change in self.changes)


def names_to_look_up(draft: Draft) -> frozenset[str]:
    """Return the names for which `compare` has to know whether usage of a meter of that name exists."""
    meters = draft.catalog.meters
    priced = {meter for _, meter in priced_per_event(draft.catalog, draft.paths)}
    return frozenset(meters) | frozenset(meter.event_type for meter in meters.values()) | priced


@dataclass(frozen=True, slots=True)
class SettledDraft:
    """What a file says, its subscriptions as they are to be: changes have their moment.

    `versions` are those of every plan, the file's with it. `notes` are of plans and subscriptions, by section and name.
    `rerated` are the subscriptions whose own change reaches behind what is invoiced, and since when.
    """

    draft: Draft
    versions: Versions
    notes: Mapping[tuple[str, str], str]
    problems: tuple[Problem, ...] = ()
    rerated: Mapping[str, datetime] = field(default_factory=dict)


def settle_draft(draft: Draft, current: Catalog, moment: Moment) -> SettledDraft:
    """Return the file with each changed subscription as it is to be from the moment on."""
    versions, notes, problems = _versions_after(draft, current, moment)
    moment = replace(moment, versions=versions)
    merged = current.with_entries(draft.catalog)
    settled: dict[str, Subscription] = {}
    rerated: dict[str, datetime] = {}
    for name, wanted in draft.catalog.subscriptions.items():
        found = settle(wanted, current.subscriptions.get(name), zone_of(merged, wanted.customer), moment)
        path = draft.paths["subscriptions", name]
        problems += [Problem(f"{path}.{key}", message) for key, message in found.faults]
        settled[name] = found.subscription
        notes["subscriptions", name] = found.note
        if found.rerated_since is not None:
            rerated[name] = found.rerated_since
    after = replace(draft, catalog=replace(draft.catalog, subscriptions=settled))
    return SettledDraft(after, versions, notes, tuple(problems), rerated)


def zone_of(catalog: Catalog, customer: str) -> tzinfo:
    """Return the time zone of a customer, with or without an entry."""
    return catalog.customers.get(customer, Customer.implied(customer)).zone


class Boundary(NamedTuple):
    """A new boundary of periods inside a window: where it is said (section, name and key), and when it is."""

    section: str
    name: str
    key: str
    at: datetime


def boundaries_to_look_up(settled: SettledDraft, current: Catalog) -> list[Boundary]:
    """Return the new boundaries inside windows, for which `compare` has to know whether events there are summed up."""
    newest = {name: settled.versions[name][-1] for name in settled.draft.catalog.plans}
    return [
        Boundary("plans", name, "", version.effective_at)
        for name, version in newest.items()
        if version.at_once and current.plans.get(name) != version.plan and _is_inside_window(version.effective_at)
    ] + [
        Boundary("subscriptions", name, key, moment)
        for name, wanted in settled.draft.catalog.subscriptions.items()
        for key, moment in new_boundaries(wanted, current.subscriptions.get(name))
    ]


def new_boundaries(wanted: Subscription, before: Subscription | None) -> list[tuple[str, datetime]]:
    """Return where a subscription begins, changes or ends inside a window, and did not before."""
    known = set() if before is None else {before.start, before.end, *(change.at for change in before.changes)}
    moments = [("start", wanted.start), ("end", wanted.end), *(("plan", change.at) for change in wanted.changes)]
    return [
        (key, moment)
        for key, moment in moments
        if moment is not None and moment not in known and _is_inside_window(moment)
    ]


def _is_inside_window(moment: datetime) -> bool:
    """Whether a time lies inside a window of usage, so that single events tell what comes before and after it."""
    return bool((moment - _EPOCH) % timedelta(seconds=WINDOW_S))


def boundary_problem(at: datetime, floor_us: int | None, *, summed: bool) -> str | None:
    """Return why periods can't begin or end at a time inside a window, or None (design 2.4)."""
    if floor_us is not None and (at - _EPOCH) // timedelta(microseconds=1) <= floor_us:
        why = "dropped"
    elif summed:
        why = "summed up"
    else:
        return None
    return (
        f"expected a quarter of an hour, such as 10:15:00, got {rfc3339(at)}: single events of that time are {why}, "
        "and what lies before and behind it inside its 15 minutes can't be told apart"
    )


def compare(
    settled: SettledDraft,
    current: Catalog,
    used: Collection[str],
    floor_us: int | None = None,
    summed: Collection[Boundary] = (),
) -> Changes:
    """Return what applying the file changes.

    `used` holds those of `names_to_look_up` under which usage was counted; single events up to `floor_us`
    (microseconds since the epoch) are dropped, and in the windows of `summed` boundaries they are summed up. Raises
    CatalogError, with every problem, where the file would change what must stay: what a meter with usage counts
    (`meter_in_use`), a subscribed plan's currency, a subscription's customer or start, and what is invoiced; where two
    subscriptions would price a meter; and where a period would be rated from single events that are not there.
    """
    draft = settled.draft
    merged = current.with_entries(draft.catalog)
    once = Report()
    check_priced_once(once, draft.paths, merged, settled.versions, partial(zone_of, merged))
    problems = [
        *_meter_problems(draft, current, used),
        *detail_problems(draft.catalog, merged, draft.paths, used),
        *_currency_problems(draft, current),
        *settled.problems,
        *once.problems,
        *_boundary_problems(settled, current, floor_us, summed),
    ]
    if problems:
        raise CatalogError(problems)
    kept = _implicit_meters_kept(draft, current, used)
    detailed = meters_to_detail(merged)
    wanted = draft.catalog.with_entries(Catalog(meters={**kept, **detailed}))
    notes = dict(settled.notes)
    for name in kept:
        notes["meters", name] = "counted by itself until now; written down so that it keeps counting"
    for name in detailed:
        notes["meters", name] = "detailed from now on: a price looks at single events of it"
    changes = [
        Change(section, name, before.get(name), entry, notes.get((section, name), ""))
        for section in SECTIONS
        for before in (_section(current, section),)
        for name, entry in _section(wanted, section).items()
        if before.get(name) != entry
    ]
    return Changes(tuple(changes), current.with_entries(wanted))


def implicit_meter(event_type: str) -> Meter:
    """Return the meter that an event type gets when no meter names it: the sum of its units."""
    return Meter(event_type, event_type)


def _meter_problems(draft: Draft, current: Catalog, used: Collection[str]) -> list[Problem]:
    """Return a problem for each meter of the file that would count otherwise than its usage was counted."""
    problems = []
    for name, meter in draft.catalog.meters.items():
        before = current.meters.get(name, implicit_meter(name))
        if name in used and not counts_the_same(meter, before):
            path = draft.paths["meters", name]
            how = "by this meter as it was" if name in current.meters else "without a meter, as the sum of its units"
            message = (
                f'expected a meter that counts as before, got one that differs: usage of "{name}" was already '
                f"counted {how}; keep it so, and give the new meter another name"
            )
            problems.append(Problem(path, message, METER_IN_USE))
    return problems


def _versions_after(
    draft: Draft, current: Catalog, moment: Moment
) -> tuple[Versions, dict[tuple[str, str], str], list[Problem]]:
    """Return the versions of every plan once the file is applied, what to say of them, and what is wrong with them."""
    versions = dict(moment.versions)
    notes: dict[tuple[str, str], str] = {}
    problems: list[Problem] = []
    for name, plan in draft.catalog.plans.items():
        if current.plans.get(name) == plan:
            continue
        earlier = versions.get(name, ())
        at_once = bool(earlier) and moment.effective is not None
        effective_at = moment.effective if at_once and moment.effective is not None else moment.now
        versions[name] = (*earlier, PlanVersion(plan, len(earlier) + 1, effective_at, at_once))
        if earlier:
            when = f"from {rfc3339(effective_at)} on" if at_once else "for periods that begin from now on"
            notes["plans", name] = f"version {len(earlier) + 1}, {when}"
        if earlier and not at_once and _is_running(name, current, moment.now):
            found = period_problems(current.plans[name], plan)
            problems += [Problem(f"{draft.paths['plans', name]}.{key}", message) for key, message in found]
        if at_once and name in moment.closed and not moment.into_closed:
            until = rfc3339(moment.closed[name])
            message = f"the change would take effect at {rfc3339(effective_at)}, and it is invoiced until {until}"
            problems.append(Problem(draft.paths["plans", name], f"{message}; {REACHES_BACK}"))
    return versions, notes, problems


def _is_running(plan: str, current: Catalog, now: datetime) -> bool:
    """Whether a subscription is or will be on a plan."""
    return any(
        step.plan == plan and (end is None or end > now)
        for found in current.subscriptions.values()
        for step, end in found.stretches
    )


def _currency_problems(draft: Draft, current: Catalog) -> list[Problem]:
    """Return a problem for each subscribed plan whose currency the file changes."""
    subscribed = {step.plan for found in current.subscriptions.values() for step, _ in found.stretches}
    return [
        Problem(
            f"{draft.paths['plans', name]}.currency",
            f'expected "{current.plans[name].currency}", as the plan\'s subscriptions are billed, got '
            f'"{plan.currency}"; make a new plan for another currency',
        )
        for name, plan in draft.catalog.plans.items()
        if name in subscribed and plan.currency != current.plans[name].currency
    ]


def _boundary_problems(
    settled: SettledDraft, current: Catalog, floor_us: int | None, summed: Collection[Boundary]
) -> list[Problem]:
    """Return a problem for each new boundary inside a window whose single events are not there."""
    problems = []
    for boundary in boundaries_to_look_up(settled, current):
        message = boundary_problem(boundary.at, floor_us, summed=boundary in summed)
        if message is not None:
            path = settled.draft.paths[boundary.section, boundary.name]
            problems.append(Problem(f"{path}.{boundary.key}" if boundary.key else path, message))
    return problems


def _implicit_meters_kept(draft: Draft, current: Catalog, used: Collection[str]) -> dict[str, Meter]:
    """Return the implicit meters to write down: those with usage, whose event type a meter names from now on.

    Without that they would stop counting, since only an event type that no meter names counts by itself.
    """
    named = {meter.event_type for meter in current.meters.values()}
    types = {meter.event_type for meter in draft.catalog.meters.values()} - named
    taken = current.meters.keys() | draft.catalog.meters.keys()
    return {name: implicit_meter(name) for name in sorted(types) if name in used and name not in taken}


def _section(catalog: Catalog, section: str) -> Mapping[str, Entry]:
    """Return one section of a catalog."""
    sections: dict[str, Mapping[str, Entry]] = {
        "meters": catalog.meters,
        "plans": catalog.plans,
        "customers": catalog.customers,
        "subscriptions": catalog.subscriptions,
    }
    return sections[section]


def _flat(value: object, path: str = "") -> dict[str, str]:
    """Return every leaf of a table as text, by its path."""
    if isinstance(value, dict):
        children = [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}[{number}]", child) for number, child in enumerate(value)]
    else:
        return {path: str(value).lower() if isinstance(value, bool) else str(value)}
    return {leaf: text for at, child in children for leaf, text in _flat(child, at).items()}
