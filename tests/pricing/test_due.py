"""Prices with an interval of their own: which of their periods are due with which billed period."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.pricing.due import commitment_period, fits, in_advance, in_arrears
from flusher.pricing.period import Anchor, BillingPeriod, Cycle, Interval, Period, Span, billing_periods
from flusher.pricing.plan import ChargeTime, Commitment, Fixed, FixedPrice, PerUnit, Plan, Price, UsagePrice
from flusher.pricing.rate import Measure, Need, Reading, needs, rate_advance, rate_arrears
from tests.pricing.support import lines_of

DAY, WEEK, MONTH, QUARTER, YEAR = Interval


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days(*texts: str) -> list[tuple[datetime, datetime]]:
    """Periods from text to text."""
    return [(at(start), at(end)) for start, end in pairwise(texts)]


def span(start: str, end: str | None = None, anchor: str | None = None) -> Span:
    return Span(at(start), None if end is None else at(end), at(anchor or start))


def plan(*prices: Price, interval: Interval = MONTH, anchor: Anchor = Anchor.CALENDAR) -> Plan:
    return Plan("pro", "usd", prices, Cycle(interval, anchor))


def bounds(found: Iterable[BillingPeriod]) -> list[tuple[datetime, datetime]]:
    return [(own.period.start, own.period.end) for own in found]


def month(number: int, year: int = 2025) -> BillingPeriod:
    """A whole calendar month."""
    (found,) = billing_periods(Cycle(), span(f"{year}-{number:02}-01"), at(f"{year}-{number:02}-02"))
    return found


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        *((one, one, True) for one in Interval),
        *((DAY, other, True) for other in Interval),
        *((WEEK, other, False) for other in (MONTH, QUARTER, YEAR)),
        *((one, other, True) for one, other in product((MONTH, QUARTER, YEAR), repeat=2)),
    ],
)
def test_intervals_that_divide_each_other_fit(one: Interval, other: Interval, *, expected: bool) -> None:
    assert fits(one, other) is fits(other, one) is expected


def test_a_longer_price_is_due_in_arrears_when_its_own_period_ends() -> None:
    # Given a monthly plan with a quarterly price, from the first of February
    running = span("2025-02-01")
    # Then only March has its quarter, which began with the subscription
    due = [bounds(in_arrears(plan(), QUARTER, running, month(number))) for number in (2, 3, 4, 5, 6)]
    assert due == [[], days("2025-02-01", "2025-04-01"), [], [], days("2025-04-01", "2025-07-01")]


def test_a_longer_fee_in_advance_is_due_when_its_own_period_begins() -> None:
    running = span("2025-02-01")
    due = [bounds(in_advance(plan(), QUARTER, running, month(number))) for number in (2, 3, 4, 5)]
    assert due == [days("2025-02-01", "2025-04-01"), [], days("2025-04-01", "2025-07-01"), []]


def test_a_longer_price_ends_with_the_subscription() -> None:
    # Given a subscription that ends within May, then so does its quarter
    running = span("2025-01-01", "2025-05-11")
    may = BillingPeriod(Period(at("2025-05-01"), at("2025-05-11")), month(5).full)
    (own,) = in_arrears(plan(), QUARTER, running, may)
    assert (own.period, own.full) == (
        Period(at("2025-04-01"), at("2025-05-11")),
        Period(at("2025-04-01"), at("2025-07-01")),
    )


def test_a_shorter_price_has_all_its_periods_within_the_billed_one() -> None:
    running = span("2024-01-01")
    found = bounds(in_arrears(plan(), DAY, running, month(2, 2024)))
    assert (len(found), found[0], found[-1]) == (
        29,
        *days("2024-02-01", "2024-02-02"),
        *days("2024-02-29", "2024-03-01"),
    )
    assert bounds(in_advance(plan(), DAY, running, month(2, 2024))) == found


def test_weeks_go_with_days() -> None:
    running = span("2025-07-07")
    week = BillingPeriod(Period(at("2025-07-14"), at("2025-07-21")), Period(at("2025-07-14"), at("2025-07-21")))
    assert len(bounds(in_arrears(plan(interval=WEEK), DAY, running, week))) == 7
    sunday = BillingPeriod(Period(at("2025-07-20"), at("2025-07-21")), Period(at("2025-07-20"), at("2025-07-21")))
    due = bounds(in_arrears(plan(interval=DAY), WEEK, running, sunday))
    assert due == days("2025-07-14", "2025-07-21")


def test_an_anniversarys_quarter_ends_with_its_third_month() -> None:
    # Given a subscription of January 31, whose months end on the 28th, the 31st and the 30th
    running = span("2025-01-31")
    anniversary = plan(anchor=Anchor.ANNIVERSARY)
    months = [*billing_periods(anniversary.cycle, running, at("2025-04-01"))]
    assert [bounds(in_arrears(anniversary, QUARTER, running, billing)) for billing in months] == [
        [],
        [],
        days("2025-01-31", "2025-04-30"),
    ]


def test_new_terms_begin_a_period_anew_and_keep_the_anchor() -> None:
    # Given terms that changed on February 10 of a subscription of January 15
    running = span("2025-02-10", None, "2025-01-15")
    anniversary = plan(anchor=Anchor.ANNIVERSARY)
    first, second, third = (*billing_periods(anniversary.cycle, running, at("2025-04-01")),)
    assert bounds(in_arrears(anniversary, QUARTER, running, third)) == days("2025-02-10", "2025-04-15")
    assert bounds(in_arrears(anniversary, QUARTER, running, second)) == []
    assert bounds(in_advance(anniversary, QUARTER, running, first)) == days("2025-02-10", "2025-04-15")


def test_what_is_needed_and_charged_follows_the_prices_own_periods() -> None:
    # Given a quarterly plan with a monthly price of 10 units at 1, then 2
    price = UsagePrice("calls", "calls", PerUnit(Decimal(2)), free_units=Decimal(10), interval=MONTH)
    terms, running = plan(price, interval=QUARTER), span("2025-01-01")
    (billing,) = billing_periods(terms.cycle, running, at("2025-01-02"))
    wanted = needs(terms, running, billing)
    assert wanted == tuple(Need("calls", month(number).period) for number in (1, 2, 3))
    # When 8, 12 and 30 units are used
    usage = {
        need: Reading((Measure(Decimal(quantity)),), 1) for need, quantity in zip(wanted, (8, 12, 30), strict=True)
    }
    charges = rate_arrears(terms, running, billing, usage)
    # Then each month has its own free units, and is a charge of its own, at zero too
    assert [(charge.period, str(charge.amount), charge.quantity) for charge in charges] == [
        (month(1).period, "0", Decimal(8)),
        (month(2).period, "4.00", Decimal(12)),
        (month(3).period, "40.00", Decimal(30)),
    ]
    assert [line.period for line in lines_of(charges)] == [month(2).period, month(3).period]


def test_a_fee_is_prorated_over_its_own_period() -> None:
    # Given a yearly fee of 365 in advance in a monthly plan, from December 22
    fee = FixedPrice("base", Fixed(Decimal(365), ChargeTime.IN_ADVANCE), YEAR)
    terms, running = plan(fee), span("2025-12-22")
    first, january, february = (*billing_periods(terms.cycle, running, at("2026-02-02")),)
    # Then the rest of the year costs ten days, and the next one all of it, at once
    charged = [rate_advance(terms, running, billing) for billing in (first, january, february)]
    assert [[(str(charge.amount), charge.period.end) for charge in charges] for charges in charged] == [
        [("10.00", at("2026-01-01"))],
        [("365.00", at("2027-01-01"))],
        [],
    ]
    assert lines_of(charged[0])[0].description == "base, 10 of 365 days"


def test_days_follow_the_customers_clock() -> None:
    # Given Berlin in March, when a day has 23 hours
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2025, 2, 28, 23, tzinfo=UTC)
    running = Span(start, None, start, berlin)
    (march,) = billing_periods(Cycle(), running, start + timedelta(days=1))
    lengths = [end - begin for begin, end in bounds(in_arrears(plan(), DAY, running, march))]
    assert (len(lengths), sorted(set(lengths))) == (31, [timedelta(hours=23), timedelta(hours=24)])


def test_after_a_change_of_the_zone_nothing_is_due_twice() -> None:
    # Given July in Berlin's time after a June in UTC, which ended two hours after Berlin's did
    berlin = ZoneInfo("Europe/Berlin")
    running = Span(at("2025-01-01"), None, at("2025-01-01"), berlin)
    july = BillingPeriod(
        Period(at("2025-07-01"), at("2025-07-31T22:00:00")),
        Period(at("2025-06-30T22:00:00"), at("2025-07-31T22:00:00")),
    )
    # Then its first day begins with it
    found = bounds(in_arrears(plan(), DAY, running, july))
    assert (len(found), found[0], found[-1][1]) == (31, *days("2025-07-01", "2025-07-01T22:00:00"), july.period.end)


def test_a_commitment_ends_with_its_own_period_or_the_subscription() -> None:
    terms = replace(plan(), commitment=Commitment(Decimal(100), QUARTER))
    running = span("2025-01-01", "2025-05-16")
    months = [*billing_periods(terms.cycle, running, at("2025-06-01"))]
    assert [commitment_period(terms, running, billing) for billing in months] == [
        None,
        None,
        Period(at("2025-01-01"), at("2025-04-01")),
        None,
        Period(at("2025-04-01"), at("2025-05-16")),
    ]
    assert commitment_period(plan(), running, months[-1]) is None


FITTING = [(one, other) for one, other in product(Interval, repeat=2) if fits(one, other)]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(FITTING),
    st.sampled_from(list(Anchor)),
    st.integers(0, 500 * 86_400),
    st.integers(1, 500),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_own_periods_cover_a_subscription_without_gap_or_overlap(
    intervals: tuple[Interval, Interval], anchor: Anchor, start_s: int, length: int, zone: str
) -> None:
    # Given a subscription of any length, a plan's interval and a price's
    begin = at("2023-01-01") + timedelta(seconds=start_s)
    running = Span(begin, begin + timedelta(days=length), begin, UTC if zone == "UTC" else ZoneInfo(zone))
    terms = plan(interval=intervals[0], anchor=anchor)
    billed = [*billing_periods(terms.cycle, running, begin + timedelta(days=length))]
    # When every billed period has its due ones
    arrears = [own for billing in billed for own in bounds(in_arrears(terms, intervals[1], running, billing))]
    advance = [own for billing in billed for own in bounds(in_advance(terms, intervals[1], running, billing))]
    # Then together they are the subscription, each once, and what is in advance is the same as what is in arrears
    assert arrears == advance
    assert [arrears[0][0], *(end for _, end in arrears)] == [*(first for first, _ in arrears), running.end]
    assert arrears[0][0] == begin
