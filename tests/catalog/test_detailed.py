"""Meters that keep each event: named so in the file, or because a price looks at single events."""

import pytest

from flusher.catalog.detailed import changes_what_is_kept
from flusher.catalog.diff import Changes, compare, names_to_look_up, settle_draft
from flusher.catalog.model import EMPTY, Catalog
from flusher.catalog.problem import CatalogError
from tests.catalog.support import METER, SUBSCRIPTION, catalog, draft, moment_of

PERCENTAGE = '[[plans.prices]]\nmeter = "api_call"\nmodel = "percentage"\nrate = "1.2"\n'
FREE = "free_events = 5\n"
PLAN = f'[[plans]]\nname = "pro"\ncurrency = "usd"\n{PERCENTAGE}'
DETAILED = METER + "detailed = true\n"


def changes(text: str, current: Catalog = EMPTY, used: tuple[str, ...] = ()) -> Changes:
    return compare(settle_draft(draft(text, current), current, moment_of(current)), current, used)


def refused(text: str, current: Catalog, used: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    with pytest.raises(CatalogError) as caught:
        changes(text, current, used)
    return {problem.path: (problem.code, str(problem)) for problem in caught.value.problems}


def detailed(text: str, current: Catalog = EMPTY) -> bool:
    return changes(text, current).after.meters["api_call"].detailed


def test_a_price_that_looks_at_single_events_makes_its_meter_keep_them() -> None:
    assert not detailed(METER + PLAN)
    assert detailed(METER + PLAN + FREE)
    assert detailed(METER + PLAN + 'maximum_per_event = "3"\n')
    # also one that is in force already, and has no usage yet
    found = changes(PLAN + FREE, catalog(METER))
    assert [(change.section, change.name, change.note) for change in found.changes][:1] == [
        ("meters", "api_call", "detailed from now on: a price looks at single events of it")
    ]
    assert found.change_meters
    assert "api_call" in names_to_look_up(draft(PLAN + FREE, catalog(METER)))


def test_a_subscription_s_own_price_does_so_too() -> None:
    own = SUBSCRIPTION + "[[subscriptions.overrides.prices]]\n" + PERCENTAGE.partition("\n")[2] + FREE
    assert detailed(METER + PLAN + own)


def test_the_same_file_again_leaves_it_so() -> None:
    text = METER + PLAN + FREE
    in_force = changes(text).after
    assert in_force.meters["api_call"].detailed
    assert changes(text, in_force).changes == ()
    assert changes(METER, in_force).changes == ()
    # nor can it be taken back while the price is there
    assert changes(METER + "detailed = false\n", in_force).changes == ()


def test_a_meter_with_usage_can_t_begin_to_keep_events_and_can_t_stop() -> None:
    # given usage of a meter that only sums
    problems = refused(PLAN + FREE, catalog(METER), used=("api_call",))
    ((path, (code, message)),) = problems.items()
    assert (path, code) == ("plans[0].prices[0].meter", "meter_in_use")
    assert "add a meter of another name with detailed = true" in message
    assert refused(DETAILED, catalog(METER), used=("api_call",))["meters[0]"][0] == "meter_in_use"
    # and of one that keeps events
    assert (
        refused(METER + "detailed = false\n", catalog(DETAILED), used=("api_call",))["meters[0]"][0] == "meter_in_use"
    )
    assert changes(PLAN + FREE, catalog(DETAILED), used=("api_call",)).after.meters["api_call"].detailed


def test_a_maximum_keeps_events_whatever_it_says() -> None:
    peak = METER + 'aggregation = "max"\n'
    assert len(changes(peak + "detailed = true\n", catalog(peak), used=("api_call",)).changes) == 1


@pytest.mark.parametrize(
    ("text", "current", "changed"),
    [
        (METER, EMPTY, False),
        (DETAILED, EMPTY, True),
        (METER + 'aggregation = "max"\n', EMPTY, True),
        (METER + 'aggregation = "avg"\n', EMPTY, False),
        (METER + PLAN + FREE, EMPTY, True),
        (PLAN + FREE, catalog(METER), True),
        (PLAN + FREE, catalog(DETAILED), False),
        (DETAILED, catalog(DETAILED), False),
        (DETAILED, catalog(METER), True),
    ],
)
def test_drains_are_held_where_meters_begin_to_keep_events(text: str, current: Catalog, changed: bool) -> None:
    found = draft(text, current)
    merged = current.with_entries(found.catalog)
    assert changes_what_is_kept(found.catalog, merged, current) is changed
