"""The worked examples that Stripe, Lago, OpenMeter and Orb publish: their numbers, each with its source.

Where a page gives prices without a worked total (Orb's often do), the test says so, and the total is arithmetic.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import pytest

from flusher.pricing.line import Line, total
from flusher.pricing.period import BillingPeriod, Cycle, Interval, Period
from flusher.pricing.plan import (
    Commitment,
    Entry,
    Fixed,
    FixedPrice,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Plan,
    RateTier,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.rate import Measure, rate_arrears
from tests.pricing.support import SPAN, WHOLE_JULY, arrears, lines_of, plan, rate_model, run_of, tiers, usage_of

STRIPE_TIERED = "https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing"
STRIPE_TIERS = "https://stripe.com/docs/billing/subscriptions/tiers"
STRIPE_OVERAGES = "https://docs.stripe.com/billing/subscriptions/usage-based-v1/use-cases/flat-fee-and-overages"
LAGO = "https://getlago.com/docs/guide/plans/charges/charge-models"
LAGO_REPOSITORY = "https://github.com/getlago/lago-docs/blob/502a9e7/docs/guide/05_plans"
LAGO_MODELS_OF_2023 = f"{LAGO_REPOSITORY}/charges/price-models"
LAGO_MINIMUM = "https://getlago.com/docs/guide/plans/charges/spending-minimum"
LAGO_CONTRACT = "https://getlago.com/docs/guide/lago-cloud/contract-billing"
LAGO_COMMITMENT = "https://github.com/getlago/lago-api/pull/1787"
LAGO_SUBSCRIPTION = f"{LAGO_REPOSITORY}/subscription.md"
LAGO_PLAN = f"{LAGO_REPOSITORY}/plan-model.md"
OPENMETER_MODELS = "https://openmeter.io/docs/billing/product-catalog/pricing-models"
OPENMETER_DISCOUNTS = "https://openmeter.io/docs/billing/invoicing/discounts"
OPENMETER_RATING = "https://github.com/openmeterio/openmeter/tree/7e57a39/openmeter/billing/rating/service/rate"
OPENMETER_DELTA = (
    "https://github.com/openmeterio/openmeter/blob/7e57a39/openmeter/billing/charges/usagebased/service/rating/delta"
    "/README.md"
)
ORB_PRICES = "https://docs.withorb.com/product-catalog/price-configuration"
ORB_CATALOG = "https://docs.withorb.com/product-catalog/build-catalog"
ORB_FIRST_PLAN = "https://docs.withorb.com/tutorials/first-plan"


class Example(NamedTuple):
    """What a quantity costs, as `source` has it."""

    source: str
    model: UsageModel
    quantity: str
    total: str


FONTS = tiers(("5", "7"), ("10", "6.5"), (None, "6"))
OLD_TIERS = tiers(("5", "5"), ("10", "4"), ("15", "3"), ("20", "2"), (None, "1"))
STRIPE = [
    *(
        Example(STRIPE_TIERED, Volume(FONTS), *row)
        for row in (("1", "7"), ("5", "35"), ("6", "39"), ("20", "120"), ("25", "150"))
    ),
    Example(STRIPE_TIERED, Graduated(FONTS), "5", "35"),
    *(
        Example(STRIPE_TIERS, PerUnit(Decimal(5)), *row)
        for row in (("1", "5"), ("5", "25"), ("6", "30"), ("20", "100"), ("25", "125"))
    ),
    *(
        Example(STRIPE_TIERS, Volume(OLD_TIERS), *row)
        for row in (("1", "5"), ("5", "25"), ("6", "24"), ("20", "40"), ("25", "25"))
    ),
    Example(STRIPE_TIERS, Graduated(OLD_TIERS), "6", "29"),
]
LAGO_VOLUME = tiers(
    ("10000", "0.0010", "10"), ("50000", "0.0008", "10"), ("100000", "0.0006", "10"), (None, "0.0004", "10")
)
LAGO_RATES = GraduatedPercentage(
    (
        RateTier(Decimal(1000), Decimal(1), Decimal(200)),
        RateTier(Decimal(10000), Decimal(2), Decimal(300)),
        RateTier(None, Decimal(3), Decimal(400)),
    )
)
LAGO_MODELS = [
    Example(f"{LAGO_MODELS_OF_2023}/standard.md", PerUnit(Decimal("0.05")), "1000", "50"),
    Example(f"{LAGO}/volume", Volume(LAGO_VOLUME), "65000", "49"),
    # Transactions of $500, $550 and $4,000 cost $205, $306 and $80, one after the other
    Example(f"{LAGO}/graduated-percentage", LAGO_RATES, "500", "205"),
    Example(f"{LAGO}/graduated-percentage", LAGO_RATES, "1050", "511"),
    Example(f"{LAGO}/graduated-percentage", LAGO_RATES, "5050", "591"),
]
OPENMETER_GRADUATED = Graduated(tiers(("5", "0", "100"), ("10", "0", "50"), ("15", "5"), (None, "1")))
OPENMETER_VOLUME = Volume(tiers(("5", "0", "100"), ("10", "0", "150"), ("15", "10"), (None, "5")))
OPENMETER_PACKAGE = Package(Decimal(10), Decimal(15))
OPENMETER = [
    Example(OPENMETER_MODELS, PerUnit(Decimal("0.01")), "10000", "100"),
    Example(OPENMETER_DELTA, PerUnit(Decimal(10)), "5", "50"),
    Example(OPENMETER_DELTA, PerUnit(Decimal(10)), "8", "80"),
    Example(OPENMETER_DELTA, Volume(tiers(("15", "10"), (None, "5"))), "15", "150"),
    Example(OPENMETER_DELTA, Volume(tiers(("15", "10"), (None, "5"))), "16", "80"),
    Example(f"{OPENMETER_RATING}/tieredgraduated_test.go", OPENMETER_GRADUATED, "12", "160"),
    Example(f"{OPENMETER_RATING}/tieredgraduated_test.go", OPENMETER_GRADUATED, "22", "182"),
    *(
        Example(f"{OPENMETER_RATING}/tieredvolume_test.go", OPENMETER_VOLUME, *row)
        for row in (
            ("3", "100"),
            ("5", "100"),
            ("7", "150"),
            ("14", "140"),
            ("15", "150"),
            ("16", "80"),
            ("100", "500"),
        )
    ),
    Example(f"{OPENMETER_RATING}/package_test.go", OPENMETER_PACKAGE, "0", "0"),
    Example(f"{OPENMETER_RATING}/package_test.go", OPENMETER_PACKAGE, "5", "15"),
    Example(f"{OPENMETER_RATING}/package_test.go", OPENMETER_PACKAGE, "10", "15"),
    Example(f"{OPENMETER_RATING}/package_test.go", OPENMETER_PACKAGE, "22", "45"),
    Example(f"{OPENMETER_RATING}/unit_test.go", PerUnit(Decimal(100)), "10", "1000"),
]
ORB_BULK = Volume(tiers(("10", "0.50"), (None, "0.40")))
ORB = [Example(ORB_PRICES, ORB_BULK, "10", "5.00"), Example(ORB_PRICES, ORB_BULK, "101", "40.40")]


@pytest.mark.parametrize("example", [*STRIPE, *LAGO_MODELS, *OPENMETER, *ORB])
def test_a_quantity_costs_what_is_published(example: Example) -> None:
    assert total(rate_model(example.model, example.quantity)) == Decimal(example.total), example.source


def test_stripes_flat_fee_and_overages() -> None:
    # STRIPE_OVERAGES has the prices: a licence of 100, 1,000 tokens at nothing, more at 0.04
    tokens = UsagePrice("tokens", "tokens", Graduated(tiers(("1000", "0"), (None, "0.04"))))
    terms = plan(FixedPrice("licence", Fixed(Decimal(100))), tokens)
    for used, expected in (("1000", "100.00"), ("1001", "100.04")):
        lines = arrears(terms, WHOLE_JULY, {"tokens": [Measure(Decimal(used))]})
        assert str(total(lines)) == expected, STRIPE_OVERAGES


def test_lagos_package_with_free_units() -> None:
    # 201 units, of which 100 are free, at $5 for 100
    lines = rate_model(Package(Decimal(100), Decimal(5)), "201", free_units="100")
    assert total(lines) == 10, f"{LAGO_MODELS_OF_2023}/package.md"


def test_lagos_fourth_transaction_pays_rate_and_fee() -> None:
    # Three free events, 1.2 % and $0.10 for each other one: transactions of $200, $100, $100 and $50
    model = Percentage(Decimal("1.2"), Decimal("0.10"), free_events=3)
    for count, expected in ((1, "0"), (2, "0"), (3, "0"), (4, "0.70")):
        shown = {"payments": [run_of(*("200", "100", "100", "50")[:count])]}
        lines = arrears(plan(UsagePrice("fees", "payments", model)), WHOLE_JULY, shown)
        assert total(lines) == Decimal(expected), f"{LAGO_MODELS_OF_2023}/percentage.md"


def kinds(lines: tuple[Line, ...]) -> list[tuple[str, Decimal]]:
    return [(line.kind.value, line.amount) for line in lines]


def limited(
    model: UsageModel, quantity: str, minimum: str | None = None, maximum: str | None = None
) -> tuple[Line, ...]:
    low, high = (None if limit is None else Decimal(limit) for limit in (minimum, maximum))
    price = UsagePrice("calls", "calls", model, minimum=low, maximum=high)
    return arrears(plan(price), WHOLE_JULY, {"calls": [Measure(Decimal(quantity))]})


def test_lagos_spending_minimum() -> None:
    # Users at $0.010 each that come to $50, against a minimum of $100
    lines = limited(PerUnit(Decimal("0.010")), "5000", minimum="100")
    assert kinds(lines) == [("usage", Decimal(50)), ("minimum", Decimal(50))], LAGO_MINIMUM


@pytest.mark.parametrize(
    ("source", "fee", "usage", "commitment", "true_up"),
    [
        (LAGO_CONTRACT, "0", "800", "1000", "200"),
        (LAGO_CONTRACT, "0", "1300", "1000", "0"),
        # A subscription of $50, 3 units at $10, and $100 at least
        (LAGO_COMMITMENT, "50", "30", "100", "20"),
    ],
)
def test_lagos_minimum_commitment(source: str, fee: str, usage: str, commitment: str, true_up: str) -> None:
    prices = (FixedPrice("base", Fixed(Decimal(fee))), UsagePrice("calls", "calls", PerUnit(Decimal(1))))
    terms = Plan("pro", "usd", prices, commitment=Commitment(Decimal(commitment), Interval.MONTH))
    shown = usage_of(terms, WHOLE_JULY, {"calls": [Measure(Decimal(usage))]})
    charges = rate_arrears(terms, SPAN, WHOLE_JULY, shown)
    assert charges[-1].amount == Decimal(true_up), source
    assert total(lines_of(charges)) == max(Decimal(commitment), Decimal(fee) + Decimal(usage)), source


@pytest.mark.parametrize(
    ("source", "month", "day", "expected"),
    [
        # $50 a month from August 10: 22 of 31 days
        (LAGO_SUBSCRIPTION, 8, 10, "35.48"),
        # $50 a month after a trial until April 6: 25 of 30 days
        (LAGO_PLAN, 4, 6, "41.67"),
    ],
)
def test_lagos_prorated_fees(source: str, month: int, day: int, expected: str) -> None:
    full = Period(datetime(2022, month, 1, tzinfo=UTC), datetime(2022, month + 1, 1, tzinfo=UTC))
    part = BillingPeriod(Period(full.start.replace(day=day), full.end), full)
    lines = arrears(Plan("pro", "usd", (FixedPrice("base", Fixed(Decimal(50))),), Cycle()), part, {})
    assert total(lines) == Decimal(expected), source


@pytest.mark.parametrize(
    ("source", "lines", "expected"),
    [
        ("package_test.go", limited(OPENMETER_PACKAGE, "0", minimum="100"), [("minimum", 100)]),
        ("unit_test.go", limited(PerUnit(Decimal(10)), "0", minimum="100"), [("minimum", 100)]),
        ("unit_test.go", limited(PerUnit(Decimal(10)), "10", maximum="100"), [("usage", 100)]),
        ("unit_test.go", limited(PerUnit(Decimal(10)), "12", maximum="100"), [("usage", 120), ("maximum", -20)]),
        ("package_test.go", limited(OPENMETER_PACKAGE, "10", maximum="100"), [("usage", 15)]),
        ("package_test.go", limited(OPENMETER_PACKAGE, "110", maximum="100"), [("usage", 165), ("maximum", -65)]),
        ("tieredvolume_test.go", limited(OPENMETER_VOLUME, "5", minimum="150"), [("usage", 100), ("minimum", 50)]),
        ("tieredvolume_test.go", limited(OPENMETER_VOLUME, "5", minimum="100"), [("usage", 100)]),
        ("tieredvolume_test.go", limited(OPENMETER_VOLUME, "100", minimum="100"), [("usage", 500)]),
        ("tieredvolume_test.go", limited(OPENMETER_VOLUME, "5", maximum="100"), [("usage", 100)]),
        ("tieredvolume_test.go", limited(OPENMETER_VOLUME, "7", maximum="125"), [("usage", 150), ("maximum", -25)]),
        (
            "tieredgraduated_test.go",
            limited(OPENMETER_GRADUATED, "2", minimum="1000"),
            [("usage", 100), ("minimum", 900)],
        ),
    ],
)
def test_openmeters_minimum_and_maximum_spend(
    source: str, lines: tuple[Line, ...], expected: list[tuple[str, int]]
) -> None:
    assert kinds(lines) == [(kind, Decimal(amount)) for kind, amount in expected], f"{OPENMETER_RATING}/{source}"


def test_openmeters_maximum_spend_over_several_tiers() -> None:
    # 22 units come to 182, and are held at 170
    lines = limited(OPENMETER_GRADUATED, "22", maximum="170")
    assert [amount for _, amount in kinds(lines)] == [100, 50, 25, 7, -12], (
        f"{OPENMETER_RATING}/tieredgraduated_test.go"
    )


def test_openmeters_usage_discount() -> None:
    # 500 units off 300, 550 and 650 units so far leave 0, 50 and 150
    for used, expected in (("300", []), ("550", ["50"]), ("650", ["150"])):
        lines = rate_model(PerUnit(Decimal(1)), used, free_units="500")
        assert [str(line.quantity) for line in lines] == expected, OPENMETER_DISCOUNTS


@pytest.mark.parametrize(("size", "used", "packages"), [("10", "4", 1), ("10", "11", 2), ("5", "4", 1), ("5", "6", 2)])
def test_orbs_packages(size: str, used: str, packages: int) -> None:
    # A package of ten costs 0.80; of those of five the page has no price
    (line,) = rate_model(Package(Decimal(size), Decimal("0.80")), used)
    assert (line.quantity, line.amount) == (Decimal(packages), packages * Decimal("0.80")), ORB_PRICES


def test_orbs_tiers_end_with_their_last_unit() -> None:
    # ORB_PRICES has the prices alone: the first ten at 0.50, the others at 0.10; `last_unit` is inclusive
    lines = rate_model(Graduated(tiers(("10", "0.50"), (None, "0.10"))), "11")
    assert [(line.quantity, str(line.unit_price)) for line in lines] == [(Decimal(10), "0.50"), (Decimal(1), "0.10")], (
        ORB_PRICES
    )
    # ORB_CATALOG: 5 a GB for the first 100 GB, 10 thereafter
    lines = rate_model(Graduated(tiers(("100", "5"), (None, "10"))), "100")
    assert total(lines) == 500, ORB_CATALOG


def test_orbs_basis_points_with_a_limit_for_each_payment() -> None:
    # ORB_PRICES has the prices alone: 25 basis points, at most $25 for a payment
    model = Percentage(Decimal("0.25"), maximum_per_event=Decimal(25))
    for payments, expected in ((["10000"], "25.00"), (["20000"], "25.00"), (["1000", "20000"], "27.50")):
        lines = arrears(plan(UsagePrice("fees", "payments", model)), WHOLE_JULY, {"payments": [run_of(*payments)]})
        assert str(total(lines)) == expected, ORB_PRICES


def test_orbs_minimum_spend() -> None:
    # ORB_FIRST_PLAN has the prices alone: $1 a call, and $10 at least whatever is used
    for used, expected in (("0", 10), ("4", 10), ("11", 11)):
        assert total(limited(PerUnit(Decimal(1)), used, minimum="10")) == expected, ORB_FIRST_PLAN


def test_orbs_matrix_prices_by_several_dimensions() -> None:
    # ORB_FIRST_PLAN names region and machine size as the dimensions; prices are ours
    matrix = Matrix((Entry((("region", "eu"), ("size", "large")), Decimal("0.2")), Entry((), Decimal("0.1"))))
    shown = [run_of("10", region="eu", size="large"), run_of("10", region="us", size="large")]
    lines = arrears(plan(UsagePrice("hours", "hours", matrix)), WHOLE_JULY, {"hours": shown})
    assert [str(line.amount) for line in lines] == ["2.00", "1.00"], ORB_FIRST_PLAN
