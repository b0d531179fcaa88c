"""Model percentage: of money, with a fee, free events and limits for each event."""

from decimal import Decimal

import pytest

from flusher.pricing.line import Line
from flusher.pricing.percentage import Percentage
from flusher.pricing.plan import UsagePrice
from flusher.pricing.rate import Measure, Need, Run, needs
from tests.pricing.support import JULY, SPAN, WHOLE_JULY, arrears, plan, run_of


def percentage(
    rate: str,
    fee: str = "0",
    free: int = 0,
    minimum: str | None = None,
    maximum: str | None = None,
) -> Percentage:
    limits = [None if limit is None else Decimal(limit) for limit in (minimum, maximum)]
    return Percentage(Decimal(rate), Decimal(fee), free, *limits)


def pay(model: Percentage, *units: str, free_units: str = "0") -> tuple[Line, ...]:
    """The lines of events of these units."""
    price = UsagePrice("fees", "payments", model, Decimal(free_units))
    return arrears(plan(price), WHOLE_JULY, {"payments": [run_of(*units)]})


@pytest.mark.parametrize(
    ("model", "units", "amount"),
    [
        (percentage("1.2"), ["1000"], "12.00"),
        (percentage("1.2"), ["0.5", "0.333333333"], "0.01"),
        (percentage("0", "0.3"), ["1", "1", "1"], "0.90"),
        (percentage("2.9", "0.3"), ["100", "50"], "4.95"),
        (percentage("100"), ["19.99"], "19.99"),
        (percentage("0.0000000001"), ["1000000000000"], "1.00"),
    ],
)
def test_rate_and_fee_for_every_event(model: Percentage, units: list[str], amount: str) -> None:
    (line,) = pay(model, *units)
    assert str(line.amount) == amount


def test_the_first_events_are_free_and_the_others_pay() -> None:
    model = percentage("10", "1", free=2)
    assert pay(model, "100", "100") == ()
    (line,) = pay(model, "100", "100", "30", "20")
    assert (str(line.amount), line.quantity, line.unit_price) == ("7.00", Decimal(50), Decimal("0.1"))
    assert line.description == "fees, 10 % of 50 in 2 events, plus 1 for each, after 2 events free"


def test_a_run_may_begin_free_and_end_paying() -> None:
    # Given three equal events in one run, of which two are free
    price = UsagePrice("fees", "payments", percentage("10", "1", free=2))
    measure = Measure(Decimal(30), (), 3, (Run(Decimal(10), 3),))
    # Then one of them pays
    (line,) = arrears(plan(price), WHOLE_JULY, {"payments": [measure]})
    assert str(line.amount) == "2.00"


@pytest.mark.parametrize(
    ("model", "units", "amount"),
    [
        (percentage("1", minimum="2"), ["100", "300"], "5.00"),
        (percentage("1", maximum="2"), ["100", "300"], "3.00"),
        (percentage("1", "1", minimum="3", maximum="4"), ["100", "250", "500"], "10.50"),
        (percentage("1", minimum="2", maximum="2"), ["1", "9999"], "4.00"),
        (percentage("1", free=1, minimum="2"), ["100", "100", "100"], "4.00"),
        (percentage("1", maximum="0"), ["100"], "0.00"),
        # Rate and fee together are what is limited, and an event that takes back is limited too
        (percentage("1", "1", maximum="1.5"), ["100"], "1.50"),
        (percentage("1", minimum="2"), ["100", "-50"], "4.00"),
        (percentage("1", free=1), ["100", "-50"], "0.00"),
    ],
)
def test_each_event_is_limited_by_itself(model: Percentage, units: list[str], amount: str) -> None:
    (line,) = pay(model, *units)
    assert str(line.amount) == amount


def test_the_sum_is_rounded_once() -> None:
    # Given three events of 0.4 cents each, one by one or in sum
    model, limited = percentage("1"), percentage("1", maximum="1000")
    # Then they cost 1.2 cents together, not three times nothing
    assert [str(pay(one, "0.4", "0.4", "0.4")[0].amount) for one in (model, limited)] == ["0.01", "0.01"]


def test_limits_that_bind_nothing_change_nothing() -> None:
    units = ["12.34", "0.01", "999", "5"]
    (bare,), (limited,) = pay(percentage("2.9", "0.3"), *units), pay(percentage("2.9", "0.3", maximum="999999"), *units)
    assert bare.amount == limited.amount


@pytest.mark.parametrize("units", [["0"], ["-5"], ["100", "-100"], []])
def test_nothing_in_sum_costs_nothing_fees_included(units: list[str]) -> None:
    assert pay(percentage("1", "1"), *units) == ()
    assert pay(percentage("1", "1", minimum="1"), *units) == ()


def test_free_units_come_off_the_money() -> None:
    (line,) = pay(percentage("10", "1"), "30", "40", free_units="50")
    assert (str(line.amount), line.description) == (
        "4.00",
        "fees, 10 % of 20 in 2 events, plus 1 for each, after 50 units free",
    )
    assert pay(percentage("10", "1"), "30", "20", free_units="50") == ()


def test_each_group_has_its_own_free_events_where_groups_are_priced_apart() -> None:
    price = UsagePrice("fees", "payments", percentage("10", free=1), per_group=True)
    shown = [run_of("10", "20", region="eu"), run_of("30", region="us"), run_of("40", "50", "60", region="za")]
    lines = arrears(plan(price), WHOLE_JULY, {"payments": shown})
    assert [(dict(line.dimensions or ()), str(line.amount)) for line in lines] == [
        ({"region": "eu"}, "2.00"),
        ({"region": "za"}, "11.00"),
    ]


@pytest.mark.parametrize(
    ("model", "free_events"),
    [
        (percentage("1"), None),
        (percentage("1", "0.3"), None),
        (percentage("1", free=3), 3),
        (percentage("1", minimum="1"), 0),
        (percentage("1", maximum="1"), 0),
    ],
)
def test_single_events_are_asked_for_only_where_they_decide(model: Percentage, free_events: int | None) -> None:
    price = UsagePrice("fees", "payments", model)
    assert needs(plan(price), SPAN, WHOLE_JULY) == (Need("payments", JULY, free_events, per_group=False),)


def test_events_whose_units_are_missing_are_not_rated() -> None:
    price = UsagePrice("fees", "payments", percentage("1", minimum="1"))
    with pytest.raises(ValueError, match="expected the units of each of 3 events, got those of 1"):
        arrears(plan(price), WHOLE_JULY, {"payments": [Measure(Decimal(30), (), 3, (Run(Decimal(10), 1),))]})


def test_the_working_shows_what_the_limits_did() -> None:
    (line,) = pay(percentage("1.2", "0.1", maximum="0.6"), "50", "10")
    assert line.working == (
        "1.2 % of 60 + 2 x 0.1 = 0.92; with the limits of each event 0.82; rounded half up to 0.01: 0.82"
    )
    assert line.description == "fees, 1.2 % of 60 in 2 events, plus 0.1, at most 0.6 for each"
