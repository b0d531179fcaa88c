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


LONG = """
[[plans]]
name = "pro"
currency = "usd"
commitment = {amount = 100, interval = "year"}
[[plans.prices]]
name = "base"
model = "fixed"
amount = 30
interval = "quarter"
[[plans.prices]]
meter = "api_call"
model = "per_unit"
unit_price = "0.01"
interval = "quarter"
[[plans.prices]]
name = "small"
model = "fixed"
amount = 1
interval = "day"
"""


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('interval = "quarter"\n[[plans.prices]]\nmeter', "[[plans.prices]]\nmeter", "plans[0].prices[0].interval"),
        ('name = "base"', 'name = "other"', "plans[0].prices"),
        ('meter = "api_call"\n', 'name = "api_call"\nmeter = "more"\n', "plans[0].prices[1].meter"),
        ('commitment = {amount = 100, interval = "year"}', "", "plans[0].commitment"),
        ('interval = "year"}', 'interval = "quarter"}', "plans[0].commitment"),
        ('currency = "usd"', 'currency = "usd"\nanchor = "anniversary"', "plans[0].interval"),
    ],
)
def test_an_ordinary_version_leaves_no_running_period_of_a_price_to_nobody(old: str, new: str, path: str) -> None:
    meters = METER + METER.replace("api_call", "more")
    text = LONG.replace(old, new)
    current = catalog(meters + LONG + SUBSCRIPTION)
    # Given prices and a commitment that run for longer than the plan's months
    assert refused(text, current) == {path: "catalog_invalid"}
    # Then the moment has to be said, at which they end; or nobody is on the plan
    effective = moment_of(current, effective="2025-07-25")
    assert compare(settle_draft(draft(text, current), current, effective), current, ()).changes
    assert changes(text, catalog(meters + LONG)).changes
    assert changes(text, catalog(meters + LONG + SUBSCRIPTION + "end = 2025-07-15T00:00:00Z\n")).changes


def test_an_ordinary_version_may_change_amounts_and_short_prices() -> None:
    current = catalog(METER + LONG + SUBSCRIPTION)
    for old, new in (('"0.01"', '"0.02"'), ("amount = 100", "amount = 200"), ('name = "small"', 'name = "tiny"')):
        assert changes(LONG.replace(old, new), current).changes
    monthly = LONG.replace('interval = "year"}', 'interval = "month"}')
    none = LONG.replace('commitment = {amount = 100, interval = "year"}\n', "")
    assert changes(none, catalog(METER + monthly + SUBSCRIPTION)).changes
