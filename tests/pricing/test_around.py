"""What goes around the prices of a period: minimum, maximum, commitment and discounts, on both its parts."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.money import Rounding
from flusher.pricing.period import BillingPeriod, Interval, Period
from flusher.pricing.plan import ChargeTime, Commitment, Discount, Fixed, FixedPrice, PerUnit, Plan, UsagePrice
from flusher.pricing.rate import Measure, rate_advance, rate_arrears
from tests.pricing.support import JULY, SPAN, WHOLE_JULY, lines_of, usage_of

COMMITMENT, DISCOUNT, MAXIMUM, MINIMUM, PRICE = (
    ChargeKind.COMMITMENT,
    ChargeKind.DISCOUNT,
    ChargeKind.MAXIMUM,
    ChargeKind.MINIMUM,
    ChargeKind.PRICE,
)
CALLS = UsagePrice("calls", "calls", PerUnit(Decimal(1)))


def terms(
    advance: str | None = None,
    *discounts: Discount,
    minimum: str | None = None,
    maximum: str | None = None,
    commitment: Commitment | None = None,
) -> Plan:
    """A plan of calls at 1, and of a fee in advance."""
    fee = [] if advance is None else [FixedPrice("base", Fixed(Decimal(advance), ChargeTime.IN_ADVANCE))]
    low, high = (None if limit is None else Decimal(limit) for limit in (minimum, maximum))
    return Plan("pro", "usd", (*fee, CALLS), minimum=low, maximum=high, discounts=discounts, commitment=commitment)


def percent(value: str, duration: int | None = None, name: str = "off") -> Discount:
    return Discount(name, percent=Decimal(value), duration=duration)


def amount(value: str, duration: int | None = None, name: str = "off") -> Discount:
    return Discount(name, amount=Decimal(value), duration=duration)


def arrears(plan: Plan, quantity: str, billing: BillingPeriod = WHOLE_JULY, committed: str = "0") -> tuple[Charge, ...]:
    usage = usage_of(plan, billing, {"calls": [Measure(Decimal(quantity))]})
    return rate_arrears(plan, SPAN, billing, usage, committed=Decimal(committed))


def amounts(charges: tuple[Charge, ...]) -> list[tuple[ChargeKind, str]]:
    return [(charge.kind, str(charge.amount)) for charge in charges]


def month(number: int) -> BillingPeriod:
    ends = (datetime(2025, number, 1, tzinfo=UTC), datetime(2025, number + 1, 1, tzinfo=UTC))
    return BillingPeriod(Period(*ends), Period(*ends))


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", [(PRICE, "0"), (MINIMUM, "40.00"), (MAXIMUM, "0")]),
        ("35", [(PRICE, "35.00"), (MINIMUM, "5.00"), (MAXIMUM, "0")]),
        ("40", [(PRICE, "40.00"), (MINIMUM, "0"), (MAXIMUM, "0")]),
        ("90.01", [(PRICE, "90.01"), (MINIMUM, "0"), (MAXIMUM, "-0.01")]),
    ],
)
def test_an_invoices_limits_count_both_parts_of_the_period(
    quantity: str, expected: list[tuple[ChargeKind, str]]
) -> None:
    # Given a fee of 10 in advance, and 50 to 100 in all
    assert amounts(arrears(terms("10", minimum="50", maximum="100"), quantity)) == expected


def test_a_charge_of_nothing_is_there_without_lines() -> None:
    charges = arrears(terms(None, percent("10"), minimum="5", maximum="9"), "7")
    assert [(charge.kind, charge.name, len(charge.lines)) for charge in charges] == [
        (PRICE, "calls", 1),
        (MINIMUM, "minimum", 0),
        (MAXIMUM, "maximum", 0),
        (DISCOUNT, "off", 1),
    ]
    assert {charge.period for charge in charges} == {JULY}


def test_a_maximum_may_give_back_what_was_paid_in_advance() -> None:
    charges = arrears(terms("100", maximum="30"), "5")
    assert amounts(charges) == [(PRICE, "5.00"), (MAXIMUM, "-75.00")]
    (line,) = charges[1].lines
    assert (line.kind.value, line.price, line.description) == ("maximum", "maximum", "maximum, of 30")
    assert line.working == "30 - 105 = -75; rounded half up to 0.01: -75.00"


def test_a_prices_own_limits_come_before_the_invoices() -> None:
    plan = replace(terms(minimum="10"), prices=(replace(CALLS, minimum=Decimal(8)),))
    assert amounts(arrears(plan, "1")) == [(PRICE, "8.00"), (MINIMUM, "2.00")]


YEARLY = Commitment(Decimal(1000), Interval.YEAR)


def test_a_commitment_is_trued_up_at_its_end_by_what_is_missing_of_all_its_periods() -> None:
    december = BillingPeriod(*[Period(datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))] * 2)
    plan = terms("10", commitment=YEARLY)
    # Given 700 charged from January to November, and 10 + 90 in December
    assert amounts(arrears(plan, "90", december, committed="700")) == [(PRICE, "90.00"), (COMMITMENT, "200.00")]
    assert amounts(arrears(plan, "90", december, committed="900")) == [(PRICE, "90.00"), (COMMITMENT, "0")]
    # When a month before the last one is rated, then nothing is due for it
    assert amounts(arrears(plan, "90", month(11), committed="0")) == [(PRICE, "90.00")]
    (line,) = arrears(plan, "90", december, committed="700")[1].lines
    assert (line.kind.value, line.price, line.description) == ("minimum", "commitment", "commitment, of 1,000 a year")
    assert (line.period.start.month, line.period.end) == (1, december.period.end)


def test_a_commitment_comes_after_the_limits_and_before_the_discounts() -> None:
    plan = terms("10", percent("10"), minimum="50", commitment=Commitment(Decimal(60), Interval.MONTH))
    # 10 in advance, 5 of calls, 35 to the minimum, 10 to the commitment; 10 % of the 50 in arrears
    assert amounts(arrears(plan, "5")) == [
        (PRICE, "5.00"),
        (MINIMUM, "35.00"),
        (COMMITMENT, "10.00"),
        (DISCOUNT, "-5.00"),
    ]


@pytest.mark.parametrize(
    ("discount", "advance", "quantity", "off_advance", "off_arrears"),
    [
        (percent("20"), "10", "90", "-2.00", "-18.00"),
        (percent("20"), "0.03", "0.03", "-0.01", "-0.01"),
        (percent("100"), "10", "90", "-10.00", "-90.00"),
        (percent("33.3333"), "10", "0", "-3.33", "0"),
        (percent("0"), "10", "90", "0", "0"),
        (amount("5"), "10", "90", "-5.00", "0"),
        (amount("30"), "10", "90", "-10.00", "-20.00"),
        (amount("500"), "10", "90", "-10.00", "-90.00"),
        (amount("4.995"), "10", "90", "-5.00", "0"),
    ],
)
def test_a_discount_is_taken_off_the_advance_part_first(
    discount: Discount, advance: str, quantity: str, off_advance: str, off_arrears: str
) -> None:
    plan = terms(advance, discount)
    in_advance, in_arrears = rate_advance(plan, SPAN, WHOLE_JULY), arrears(plan, quantity)
    assert [str(charges[-1].amount) for charges in (in_advance, in_arrears)] == [off_advance, off_arrears]
    assert {charges[-1].kind for charges in (in_advance, in_arrears)} == {DISCOUNT}


def test_each_discount_takes_from_what_the_earlier_ones_left() -> None:
    plan = terms("100", percent("10", name="ten"), amount("120", name="fixed"), percent("50", name="half"))
    # 100 - 10 - 90 - 0 in advance; 100 - 10 - 30 - 30 in arrears
    assert [str(charge.amount) for charge in rate_advance(plan, SPAN, WHOLE_JULY)[1:]] == ["-10.00", "-90.00", "0"]
    assert [str(charge.amount) for charge in arrears(plan, "100")[1:]] == ["-10.00", "-30.00", "-30.00"]


def test_a_discount_on_what_a_maximum_gives_back_gives_back_too() -> None:
    # Given 100 paid in advance, less a discount, of which a maximum leaves 40
    for discount, off_advance, off_arrears, paid in (
        (percent("10"), "-10.00", "6.00", "36.00"),
        (amount("70"), "-70.00", "30.00", "0.00"),
    ):
        plan = terms("100", discount, maximum="40")
        charges = (*rate_advance(plan, SPAN, WHOLE_JULY), *arrears(plan, "0"))
        # Then the discount is that of the 40, and never more than they
        assert [str(charge.amount) for charge in charges if charge.kind is DISCOUNT] == [off_advance, off_arrears]
        assert str(sum(charge.amount for charge in charges)) == paid


@pytest.mark.parametrize(("number", "expected"), [(1, "-10.00"), (3, "-10.00"), (4, None), (12, None)])
def test_a_discount_lasts_as_many_periods_as_it_says(number: int, expected: str | None) -> None:
    # Given a subscription of January 1 with three months at 10 % off
    start = datetime(2025, number, 1, tzinfo=UTC)
    end = datetime(2025 + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    billing = BillingPeriod(*[Period(start, end)] * 2)
    found = [str(charge.amount) for charge in arrears(terms(None, percent("10", 3)), "100", billing)[1:]]
    assert found == ([] if expected is None else [expected])


def test_discounts_are_rounded_as_the_plan_says() -> None:
    plan = terms(None, percent("50"))
    for rounding, off in ((Rounding.HALF_UP, "-0.03"), (Rounding.HALF_EVEN, "-0.02")):
        assert str(arrears(replace(plan, rounding=rounding), "0.05")[-1].amount) == off


def test_a_discounts_line_says_what_it_takes_off_and_why() -> None:
    plan = terms("10", percent("12.5", name="launch"), amount("30", name="sorry"))
    percent_line, amount_line = (charge.lines[0] for charge in arrears(plan, "90")[1:])
    assert (percent_line.kind.value, percent_line.price, percent_line.description) == (
        "discount",
        "launch",
        "launch, 12.5 % off",
    )
    assert percent_line.working == "12.5 % of 90 = 11.25; rounded half up to 0.01: -11.25"
    assert amount_line.description == "sorry, 30 off"
    assert amount_line.working == ("30, at most 87.5, of which 8.75 in advance; rounded half up to 0.01: -21.25")


def test_nothing_in_advance_means_no_charge_in_advance() -> None:
    assert rate_advance(terms(None, percent("10"), minimum="5"), SPAN, WHOLE_JULY) == ()


def test_all_lines_have_ids_of_their_own() -> None:
    plan = terms("10", percent("10"), minimum="50", commitment=Commitment(Decimal(60), Interval.MONTH))
    ids = [line.id for line in lines_of((*rate_advance(plan, SPAN, WHOLE_JULY), *arrears(plan, "5")))]
    assert len(ids) == len(set(ids)) == 6
