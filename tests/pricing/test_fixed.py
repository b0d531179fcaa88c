"""Model fixed: a fee for a period, prorated by the second."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from flusher.pricing.fixed import ChargeTime, Fixed
from flusher.pricing.line import Line
from flusher.pricing.money import Rounding
from flusher.pricing.period import BillingPeriod, Cycle, Period, Span, billing_periods
from flusher.pricing.plan import FixedPrice, Plan
from flusher.pricing.share import share
from tests.pricing.support import JULY, WHOLE_JULY, advance, arrears


def fee(amount: str, billing: BillingPeriod, currency: str = "usd", rounding: str = "half_up") -> Line:
    plan = Plan("pro", currency, (FixedPrice("base", Fixed(Decimal(amount))),), Cycle(), Rounding(rounding))
    (line,) = arrears(plan, billing, {})
    return line


def july(start: str, end: str) -> BillingPeriod:
    instants = [datetime.fromisoformat(f"2025-07-{text}").replace(tzinfo=UTC) for text in (start, end)]
    return BillingPeriod(Period(*instants), JULY)


def test_a_whole_period_costs_the_whole_fee() -> None:
    line = fee("49.99", WHOLE_JULY)
    assert (str(line.amount), line.description, str(line.quantity)) == ("49.99", "base", "1")
    assert line.unit_price == Decimal("49.99")
    assert line.meter is None


@pytest.mark.parametrize(
    ("start", "end", "amount", "description"),
    [
        ("01", "16", "15.00", "base, 15 of 31 days"),
        ("01T00:00:00", "01T00:00:01", "0.00", "base, 1 of 2,678,400 seconds"),
        ("01T12:00:00", "31T23:00:00", "30.46", "base, 2,631,600 of 2,678,400 seconds"),
    ],
)
def test_a_partial_period_costs_its_share_by_the_second(start: str, end: str, amount: str, description: str) -> None:
    line = fee("31", july(start, end))
    assert (str(line.amount), line.description) == (amount, description)


def test_a_share_is_rounded_once_and_exactly() -> None:
    # Given a share of exactly half a cent (1/4 of 0.02), half up gives a cent, half even none
    half_of = BillingPeriod(
        Period(datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 2, 8, tzinfo=UTC)),
        Period(datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)),
    )
    assert str(fee("0.02", half_of).amount) == "0.01"
    assert str(fee("0.02", half_of, rounding="half_even").amount) == "0.00"


def test_the_days_of_a_leap_february_are_counted() -> None:
    start, end = datetime(2024, 2, 15, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
    (billing,) = billing_periods(Cycle(), Span(start, None, start), end)
    line = fee("29", billing)
    assert (str(line.amount), line.description) == ("15.00", "base, 15 of 29 days")


def test_a_fee_is_billed_when_its_charge_says() -> None:
    # Given a plan with a fee in advance and one in arrears
    plan = Plan(
        "pro",
        "usd",
        (
            FixedPrice("seat", Fixed(Decimal(10), ChargeTime.IN_ADVANCE)),
            FixedPrice("support", Fixed(Decimal(20), ChargeTime.IN_ARREARS)),
        ),
    )
    # Then each is in one of the two calls
    assert [line.price for line in advance(plan, WHOLE_JULY)] == ["seat"]
    assert [line.price for line in arrears(plan, WHOLE_JULY, {})] == ["support"]


def test_a_fee_of_zero_is_shown() -> None:
    assert str(fee("0", WHOLE_JULY, currency="jpy").amount) == "0"


def test_no_period_is_charged_twice_when_a_month_is_split() -> None:
    # Given a month cut into two parts, their exact shares add up to the whole
    parts = [july("01", "11"), BillingPeriod(Period(july("11", "12").period.start, JULY.end), JULY)]
    shares = [share(part) for part in parts]
    assert sum(covered for covered, _ in shares) == shares[0][1]
