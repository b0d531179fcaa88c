"""What subscriptions have otherwise, and what plans ask of meters: problems that show only together."""

import pytest

from tests.catalog.support import METER, PLAN, PRICE, SUBSCRIPTION, catalog, problems

OVERRIDES = METER + PLAN + SUBSCRIPTION


@pytest.mark.parametrize(
    ("keys", "path", "says"),
    [
        ('overrides = {minimum = "-1"}', "subscriptions[0].overrides.minimum", "0 or more"),
        ("overrides = {minimum = 1.5}", "subscriptions[0].overrides.minimum", 'write it in quotes: "1.5"'),
        ("overrides = {discounts = []}", "subscriptions[0].overrides.discounts", "unknown key"),
        ("overrides = 5", "subscriptions[0].overrides", "expected a table"),
        (
            'overrides = {prices = [{meter = "none", model = "per_unit", unit_price = 1}]}',
            "subscriptions[0].overrides.prices[0].meter",
            "the name of a meter",
        ),
        (
            'overrides = {prices = [{meter = "api_call", model = "per_unit", unit_price = 1, per_group = true}]}',
            "subscriptions[0].overrides.prices[0].per_group",
            "a meter with group_by",
        ),
        (
            'overrides = {prices = [{meter = "api_call", model = "per_unit", unit_price = 1, interval = "week"}]}',
            "subscriptions[0].overrides.prices[0].interval",
            "divides the plan's",
        ),
        ('commitment = {amount = 5, interval = "day"}', "subscriptions[0].commitment.interval", "a multiple of it"),
    ],
)
def test_what_a_subscription_has_otherwise_is_checked_with_its_plan_and_its_meters(
    keys: str, path: str, says: str
) -> None:
    found = problems(OVERRIDES + keys)
    assert list(found) == [path]
    assert says in found[path]


def test_a_plan_that_no_longer_goes_with_a_subscriptions_own_terms_is_refused() -> None:
    current = catalog(OVERRIDES + 'overrides = {minimum = "10"}\n')
    found = problems(PLAN.replace(PRICE, f'maximum = "5"\n{PRICE}'), current)
    assert list(found) == ["plans[0]"]
    assert 'subscription "cus_1/pro" has overrides.minimum of its own' in found["plans[0]"]


def test_a_meter_that_no_longer_gives_what_a_plan_asks_for_is_refused() -> None:
    current = catalog(METER + PLAN.replace('"per_unit"\nunit_price = "0.01"', '"percentage"\nrate = 1'))
    found = problems(METER + 'aggregation = "unique"\nfield = "properties.x"\n', current)
    assert list(found) == ["meters[0]"]
    assert 'price "api_call" of plan "pro": expected a meter with aggregation "sum"' in found["meters[0]"]
