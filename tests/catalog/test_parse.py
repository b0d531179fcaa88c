"""Good catalog files: what they mean, and what is assumed where they say nothing."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from flusher.catalog.model import Customer, Subscription
from flusher.catalog.parse import parse
from flusher.catalog.plan_reader import plan_table, read_plan
from flusher.catalog.reader import Report, Table
from flusher.pricing.money import Rounding
from flusher.pricing.period import Anchor, Cycle, Interval
from flusher.pricing.plan import (
    ChargeTime,
    Fixed,
    FixedPrice,
    Graduated,
    Package,
    PerUnit,
    Plan,
    Tier,
    UsagePrice,
    Volume,
)
from sidecar.contract.meters import Meter
from tests.catalog.support import FULL, METER, PLAN, PRICE, SUBSCRIPTION, catalog

JULY = datetime(2025, 7, 1, tzinfo=UTC)


def test_the_file_of_the_documentation() -> None:
    read = catalog(FULL)
    assert read.meters == {
        "api_call": Meter("api_call", "api_call", "sum", "units", ("region",), {"region": ("eu", "us")})
    }
    tiers = (
        Tier(Decimal(1000)),
        Tier(Decimal(10000), Decimal("0.01")),
        Tier(None, Decimal("0.005")),
    )
    assert read.plans == {"pro": Plan("pro", "usd", (UsagePrice("calls", "api_call", Graduated(tiers)),))}
    assert read.customers == {"cus_123456": Customer("cus_123456", ("cus_123456",), "cus_123456")}
    assert read.subscriptions == {"cus_123456/pro": Subscription("cus_123456/pro", "cus_123456", "pro", JULY)}


def test_what_is_left_out_has_its_default() -> None:
    read = catalog(METER + PLAN + SUBSCRIPTION + '[[customers]]\nid = "cus_1"\n')
    assert read.meters["api_call"] == Meter("api_call", "api_call")
    assert read.plans["pro"].cycle == Cycle(Interval.MONTH, Anchor.CALENDAR)
    assert read.plans["pro"].rounding is Rounding.HALF_UP
    assert read.plans["pro"].prices[0].name == "api_call"
    assert read.customers["cus_1"] == Customer("cus_1", ("cus_1",), "cus_1")
    assert read.subscriptions["cus_1/pro"].end is None


def test_an_empty_file_is_an_empty_catalog() -> None:
    assert not catalog("").meters


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'meter = "api_call"\nmodel = "per_unit"\nunit_price = 2\nfree_units = "0.5"',
            UsagePrice("api_call", "api_call", PerUnit(Decimal(2)), Decimal("0.5")),
        ),
        (
            'meter = "api_call"\nmodel = "volume"\ntiers = [{up_to = "1.5", flat_fee = 3}, {unit_price = "0"}]',
            UsagePrice(
                "api_call", "api_call", Volume((Tier(Decimal("1.5"), flat_fee=Decimal(3)), Tier(None, Decimal(0))))
            ),
        ),
        (
            'meter = "api_call"\nmodel = "package"\npackage_size = 100\npackage_price = "4.99"',
            UsagePrice("api_call", "api_call", Package(Decimal(100), Decimal("4.99"))),
        ),
        (
            'name = "base"\nmodel = "fixed"\namount = "10"\ncharge = "in_advance"',
            FixedPrice("base", Fixed(Decimal(10), ChargeTime.IN_ADVANCE)),
        ),
        ('name = "base"\nmodel = "fixed"\namount = 10', FixedPrice("base", Fixed(Decimal(10), ChargeTime.IN_ARREARS))),
    ],
)
def test_every_model_is_read(keys: str, expected: UsagePrice) -> None:
    text = METER + f'[[plans]]\nname = "pro"\ncurrency = "USD"\n[[plans.prices]]\n{keys}\n'
    plan = catalog(text).plans["pro"]
    assert plan.prices == (expected,)
    # And what is stored of it is read back as the same plan
    report = Report()
    assert read_plan(Table(report, "", plan_table(plan))) == plan
    assert not report.problems


def test_times_with_an_offset_are_turned_into_utc() -> None:
    text = METER + PLAN + SUBSCRIPTION.replace("2025-07-01T00:00:00Z", "2025-07-01T02:00:00+02:00")
    start = catalog(text).subscriptions["cus_1/pro"].start
    assert (start, start.tzinfo, start.utcoffset()) == (JULY, UTC, timedelta())


def test_meters_are_normalised_so_that_order_changes_nothing() -> None:
    text = METER + 'group_by = ["zone", "region"]\nfilter = {b = ["2", 1, true], a = ["x"]}\n'
    meter = catalog(text).meters["api_call"]
    assert meter.group_by == ("region", "zone")
    assert list(meter.filter.items()) == [("a", ("x",)), ("b", ("1", "2", "true"))]


def test_a_count_needs_no_field() -> None:
    assert catalog(METER + 'aggregation = "count"\n').meters["api_call"].field == "units"


def test_a_file_may_use_what_is_in_force_already() -> None:
    # Given a catalog with a meter and a plan, a file may hold a subscription or a further plan alone
    current = catalog(METER + PLAN)
    assert catalog(SUBSCRIPTION, current).subscriptions
    assert catalog(PLAN.replace('"pro"', '"max"'), current).plans


def test_one_subscription_may_begin_when_another_ends() -> None:
    text = METER + PLAN + SUBSCRIPTION + "end = 2025-08-01T00:00:00Z\n"
    text += SUBSCRIPTION.replace("07-01", "08-01") + 'id = "second"\n'
    assert len(catalog(text).subscriptions) == 2


def test_two_subscriptions_may_run_together_on_different_meters() -> None:
    text = METER + PLAN + SUBSCRIPTION
    text += METER.replace("api_call", "storage") + PLAN.replace("api_call", "storage").replace('"pro"', '"disk"')
    text += SUBSCRIPTION.replace('"pro"', '"disk"')
    assert len(catalog(text).subscriptions) == 2


def test_every_entry_knows_its_place() -> None:
    paths = parse(FULL).paths
    assert paths["plans", "pro"] == "plans[0]"
    assert paths["subscriptions", "cus_123456/pro"] == "subscriptions[0]"


def test_a_byte_order_and_comments_are_no_matter() -> None:
    assert catalog("# prices\n" + METER + PLAN + PRICE.replace("[[plans.prices]]", '[[plans.prices]]\nname = "b"'))
