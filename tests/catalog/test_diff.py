"""What applying a file changes, and what it may not change."""

import pytest

from flusher.catalog.diff import Changes, Difference, compare, implicit_meter, names_to_look_up, settle_draft
from flusher.catalog.model import EMPTY, Catalog
from flusher.catalog.problem import CatalogError
from sidecar.contract.meters import Meter
from tests.catalog.support import FULL, METER, PLAN, PRICE, SUBSCRIPTION, catalog, draft, moment_of

BASE = METER + PLAN + SUBSCRIPTION


def changes(text: str, current: Catalog = EMPTY, used: tuple[str, ...] = ()) -> Changes:
    return compare(settle_draft(draft(text, current), current, moment_of(current)), current, used)


def refused(text: str, current: Catalog, used: tuple[str, ...] = ()) -> dict[str, str]:
    with pytest.raises(CatalogError) as caught:
        changes(text, current, used)
    return {problem.path: problem.code for problem in caught.value.problems}


def test_a_first_file_adds_everything() -> None:
    found = changes(FULL)
    assert [(change.section, change.name, change.before) for change in found.changes] == [
        ("meters", "api_call", None),
        ("plans", "pro", None),
        ("customers", "cus_123456", None),
        ("subscriptions", "cus_123456/pro", None),
    ]
    assert found.after == catalog(FULL)


def test_the_same_file_again_changes_nothing_however_it_is_written() -> None:
    again = (
        FULL.replace('"0.01"', '"0.0100"')
        .replace('["eu", "us"]', '["us", "eu"]')
        .replace("up_to = 1000,", 'up_to = "1000",')
    )
    found = changes(again, catalog(FULL))
    assert not found.changes
    assert not found.change_meters


def test_what_a_file_leaves_out_stays() -> None:
    found = changes('[[customers]]\nid = "new"\n', catalog(FULL))
    assert [change.name for change in found.changes] == ["new"]
    assert found.after.meters == catalog(FULL).meters
    assert not found.change_meters


def test_a_change_says_which_keys_differ() -> None:
    text = PLAN.replace('"0.01"', '"0.02"') + '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = 5\n'
    (change,) = changes(text, catalog(BASE)).changes
    assert change.differences == (
        Difference("prices[0].unit_price", "0.01", "0.02"),
        Difference("prices[1].name", None, "fee"),
        Difference("prices[1].model", None, "fixed"),
        Difference("prices[1].amount", None, "5"),
        Difference("prices[1].charge", None, "in_arrears"),
    )


@pytest.mark.parametrize(
    "keys",
    [
        'aggregation = "count"',
        'field = "properties.bytes"',
        'group_by = ["region"]',
        'filter = {region = ["eu"]}',
    ],
)
def test_a_meter_with_usage_cannot_change_what_it_counts(keys: str) -> None:
    assert refused(METER + keys, catalog(METER), ("api_call",)) == {"meters[0]": "meter_in_use"}
    # Without usage it can
    assert changes(METER + keys, catalog(METER)).change_meters


def test_a_meter_with_usage_cannot_move_to_another_event_type() -> None:
    text = METER.replace('event_type = "api_call"', 'event_type = "request"')
    assert refused(text, catalog(METER), ("api_call",)) == {"meters[0]": "meter_in_use"}


def test_a_new_meter_cannot_take_the_name_under_which_events_count_already_in_another_way() -> None:
    # Given events of a type that no meter named, counted as the sum of their units
    assert refused(METER + 'aggregation = "count"', EMPTY, ("api_call",)) == {"meters[0]": "meter_in_use"}
    # Then a meter that says just that is fine
    assert changes(METER, EMPTY, ("api_call",)).after.meters == {"api_call": Meter("api_call", "api_call")}


def test_an_event_type_that_counted_by_itself_goes_on_when_a_meter_uses_it() -> None:
    text = METER.replace('name = "api_call"', 'name = "calls"') + 'aggregation = "count"\n'
    # Given usage of the event type by itself
    found = changes(text, EMPTY, ("api_call",))
    # Then the meter that it had is written down beside the new one
    assert found.after.meters["api_call"] == implicit_meter("api_call")
    assert [change.name for change in found.changes if change.note] == ["api_call"]
    # And without usage there is nothing to keep
    assert list(changes(text).after.meters) == ["calls"]


def test_a_meter_that_names_the_event_type_already_is_not_doubled() -> None:
    text = METER.replace('name = "api_call"', 'name = "calls"') + 'aggregation = "count"\n'
    assert list(changes(text, catalog(METER), ("api_call",)).after.meters) == ["api_call", "calls"]


def test_usage_is_looked_up_for_the_files_meters_and_their_event_types() -> None:
    text = METER.replace('name = "api_call"', 'name = "calls"')
    assert names_to_look_up(draft(text)) == {"calls", "api_call"}


def test_a_subscribed_plan_keeps_its_currency() -> None:
    text = PLAN.replace("usd", "eur")
    assert refused(text, catalog(BASE)) == {"plans[0].currency": "catalog_invalid"}
    assert changes(text, catalog(METER + PLAN)).changes


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('customer = "cus_1"', 'id = "cus_1/pro"\ncustomer = "cus_2"', "subscriptions[0].customer"),
        ("07-01", "07-02", "subscriptions[0].start"),
    ],
)
def test_what_a_subscription_is_cannot_change(old: str, new: str, path: str) -> None:
    assert refused(SUBSCRIPTION.replace(old, new), catalog(BASE)) == {path: "catalog_invalid"}


def test_a_subscriptions_end_can_be_set_moved_and_taken_off() -> None:
    # Given an open subscription, its end is set
    ended = changes(SUBSCRIPTION + "end = 2025-09-01T00:00:00Z\n", catalog(BASE))
    assert ended.changes[0].differences == (Difference("end", None, "2025-09-01T00:00:00Z"),)
    # And taken off again
    assert changes(SUBSCRIPTION, ended.after).changes[0].differences == (
        Difference("end", "2025-09-01T00:00:00Z", None),
    )


def test_every_refusal_is_reported_at_once() -> None:
    text = METER + 'aggregation = "count"\n' + PLAN.replace("usd", "eur") + SUBSCRIPTION.replace("07-01", "07-02")
    assert list(refused(text, catalog(BASE), ("api_call",))) == [
        "meters[0]",
        "plans[0].currency",
        "subscriptions[0].start",
    ]


def test_a_plan_may_drop_and_add_prices() -> None:
    text = PLAN.replace(PRICE, '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = 5\n')
    assert changes(text, catalog(BASE)).after.plans["pro"].meters == frozenset()
