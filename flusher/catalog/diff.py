"""Compares a catalog file with the catalog in force: what it adds, what it changes, and what it may not change.

Nothing is ever removed: an entry that the file leaves out stays as it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from flusher.catalog.encode import Entry, entry_table
from flusher.catalog.model import METER_IN_USE, Catalog, counts_the_same
from flusher.catalog.parse import Draft
from flusher.catalog.problem import CatalogError, Problem
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
    return frozenset(meters) | frozenset(meter.event_type for meter in meters.values())


Boundary = tuple[str, str, datetime]
"""A subscription's name, `start` or `end`, and when that is: inside a window."""


def boundaries_to_look_up(draft: Draft, current: Catalog) -> list[Boundary]:
    """Return the new boundaries inside windows, for which `compare` has to know whether events there are summed up."""
    found: list[Boundary] = []
    for name, wanted in draft.catalog.subscriptions.items():
        before = current.subscriptions.get(name)
        for key, moment, known in (
            ("start", wanted.start, before.start if before else None),
            ("end", wanted.end, before.end if before else None),
        ):
            if moment is not None and moment != known and (moment - _EPOCH) % timedelta(seconds=WINDOW_S):
                found.append((name, key, moment))
    return found


def compare(
    draft: Draft,
    current: Catalog,
    used: Collection[str],
    floor_us: int | None = None,
    summed: Collection[Boundary] = (),
) -> Changes:
    """Return what applying the file changes.

    `used` holds those of `names_to_look_up` under which usage was counted; single events up to `floor_us`
    (microseconds since the epoch) are dropped, and in the windows of `summed` boundaries they are summed up. Raises
    CatalogError, with every problem, where the file would change what must stay: what a meter with usage counts
    (`meter_in_use`), a subscribed plan's currency, or a subscription's customer, plan or start; and where a period
    would be rated from single events that are not there.
    """
    problems = [
        *_meter_problems(draft, current, used),
        *_currency_problems(draft, current),
        *_subscription_problems(draft, current),
        *_boundary_problems(draft, current, floor_us, summed),
    ]
    if problems:
        raise CatalogError(problems)
    kept = _implicit_meters_kept(draft, current, used)
    wanted = draft.catalog.with_entries(Catalog(meters=kept))
    changes = [
        Change(section, name, before.get(name), entry, _note(section, name, kept))
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


def _currency_problems(draft: Draft, current: Catalog) -> list[Problem]:
    """Return a problem for each subscribed plan whose currency the file changes."""
    subscribed = {found.plan for found in current.subscriptions.values()}
    return [
        Problem(
            f"{draft.paths['plans', name]}.currency",
            f'expected "{current.plans[name].currency}", as the plan\'s subscriptions are billed, got '
            f'"{plan.currency}"; make a new plan for another currency',
        )
        for name, plan in draft.catalog.plans.items()
        if name in subscribed and plan.currency != current.plans[name].currency
    ]


def _subscription_problems(draft: Draft, current: Catalog) -> list[Problem]:
    """Return a problem for each key of a subscription that the file changes and that is fixed."""
    problems = []
    for name, found in draft.catalog.subscriptions.items():
        before = current.subscriptions.get(name)
        if before is None:
            continue
        for difference in Change("subscriptions", name, before, found).differences:
            if difference.path != "end":
                path = f"{draft.paths['subscriptions', name]}.{difference.path}"
                message = (
                    f'expected "{difference.before}", as subscription "{name}" has it, got "{difference.after}"; '
                    f"set its end, and add another subscription with an id of its own"
                )
                problems.append(Problem(path, message))
    return problems


def _boundary_problems(
    draft: Draft, current: Catalog, floor_us: int | None, summed: Collection[Boundary]
) -> list[Problem]:
    """Return a problem for each new boundary inside a window whose single events are not there (design 2.4)."""
    problems = []
    for boundary in boundaries_to_look_up(draft, current):
        name, key, moment = boundary
        if floor_us is not None and (moment - _EPOCH) // timedelta(microseconds=1) <= floor_us:
            why = "dropped"
        elif boundary in summed:
            why = "summed up"
        else:
            continue
        message = (
            f"expected a quarter of an hour, such as 10:15:00, got {moment.isoformat()}: single events of that "
            f"time are {why}, and what lies before and behind it inside its 15 minutes can't be told apart"
        )
        problems.append(Problem(f"{draft.paths['subscriptions', name]}.{key}", message))
    return problems


def _implicit_meters_kept(draft: Draft, current: Catalog, used: Collection[str]) -> dict[str, Meter]:
    """Return the implicit meters to write down: those with usage, whose event type a meter names from now on.

    Without that they would stop counting, since only an event type that no meter names counts by itself.
    """
    named = {meter.event_type for meter in current.meters.values()}
    types = {meter.event_type for meter in draft.catalog.meters.values()} - named
    taken = current.meters.keys() | draft.catalog.meters.keys()
    return {name: implicit_meter(name) for name in sorted(types) if name in used and name not in taken}


def _note(section: str, name: str, kept: Mapping[str, Meter]) -> str:
    """Return why an entry that is not in the file changes."""
    if section == "meters" and name in kept:
        return "counted by itself until now; written down so that it keeps counting"
    return ""


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
