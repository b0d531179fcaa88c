"""Which grants an invoice draws from: order, bounds, and what a plan brings."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.invoicing.credits import (
    Draw,
    Grant,
    GrantKind,
    after,
    carried_grant,
    carry,
    credit_lines,
    draw,
    grants_due,
    is_usable,
)
from flusher.pricing.period import Period
from flusher.pricing.plan import Credit
from tests.invoicing.world import utc

JULY = Period(utc(2025, 7, 1), utc(2025, 8, 1))
AT = JULY.end


def make(
    name: str,
    remaining: str = "10",
    *,
    priority: int = 100,
    expires: datetime | None = None,
    effective: datetime = JULY.start,
    granted: datetime = JULY.start,
    currency: str = "usd",
) -> Grant:
    amount = Decimal(remaining)
    kind = GrantKind.PREPAID
    return Grant(name, "c1", currency, name, kind, amount, amount, priority, effective, granted, expires)


def names(draws: list[Draw]) -> list[str]:
    return [found.grant_id for found in draws]


def test_draws_go_by_priority_then_expiry_then_age_then_id() -> None:
    in_order = [
        make("z", priority=0),
        make("y", expires=AT + timedelta(days=1), granted=utc(2025, 7, 9)),
        make("x", expires=AT + timedelta(days=2)),
        make("w", granted=utc(2025, 6, 1)),
        make("a", granted=utc(2025, 6, 2)),
        make("b", granted=utc(2025, 6, 2)),
    ]
    assert names(draw(reversed(in_order), Decimal(1000), AT)) == ["z", "y", "x", "w", "a", "b"]


def test_the_last_draw_takes_no_more_than_is_due() -> None:
    assert draw([make("a", "10"), make("b", "10")], Decimal("12.34"), AT) == [
        Draw("a", Decimal(10)),
        Draw("b", Decimal("2.34")),
    ]


@pytest.mark.parametrize("due", ["0", "-5"])
def test_nothing_is_drawn_where_nothing_is_due(due: str) -> None:
    assert draw([make("a")], Decimal(due), AT) == []


@pytest.mark.parametrize(
    ("effective", "expires", "usable"),
    [
        (AT, None, True),
        (AT + timedelta(microseconds=1), None, False),
        (JULY.start, AT, False),
        (JULY.start, AT + timedelta(microseconds=1), True),
    ],
)
def test_a_grant_is_used_from_when_it_is_effective_until_before_it_expires(
    effective: datetime, expires: datetime | None, usable: bool
) -> None:
    assert bool(draw([make("a", effective=effective, expires=expires)], Decimal(1), AT)) is usable


def test_a_fraction_of_the_smallest_amount_of_the_currency_is_left_in_the_grant() -> None:
    assert draw([make("a", "10.005")], Decimal(50), AT) == [Draw("a", Decimal("10.00"))]
    assert draw([make("a", "0.9", currency="jpy")], Decimal(50), AT) == []


CENTS = st.integers(min_value=0, max_value=5000).map(lambda cents: Decimal(cents) / 100)
MOMENTS = st.integers(min_value=-40, max_value=40).map(lambda days: AT + timedelta(days=days))


@st.composite
def grants(draw_value: st.DrawFn) -> list[Grant]:
    found = []
    for number in range(draw_value(st.integers(min_value=0, max_value=8))):
        effective = draw_value(MOMENTS)
        life = draw_value(st.none() | st.integers(min_value=1, max_value=60))
        expires = None if life is None else effective + timedelta(days=life)
        remaining = draw_value(CENTS)
        grant = make(f"g{number}", "50", priority=draw_value(st.integers(min_value=0, max_value=2)), expires=expires)
        found.append(replace(grant, remaining=remaining, effective_at=effective, granted_at=draw_value(MOMENTS)))
    return found


@given(grants(), st.lists(CENTS, max_size=4))
def test_invoices_in_a_row_draw_what_there_is_and_never_more(found: list[Grant], dues: list[Decimal]) -> None:
    usable = sum((grant.remaining for grant in found if is_usable(grant, AT)), Decimal(0))
    left, drawn = found, Decimal(0)
    for due in dues:
        draws = draw(left, due, AT)
        taken = sum((one.amount for one in draws), Decimal(0))
        # As much as is due, or all that there is.
        assert taken == min(due, usable - drawn)
        left = after(left, draws)
        drawn += taken
    assert all(Decimal(0) <= now.remaining <= before.remaining for now, before in zip(left, found, strict=True))
    assert sum((before.remaining - now.remaining for now, before in zip(left, found, strict=True))) == drawn


@given(grants(), CENTS)
def test_a_grant_is_touched_only_when_every_one_before_it_is_used_up(found: list[Grant], due: Decimal) -> None:
    draws = draw(found, due, AT)
    left = {grant.id: grant.remaining for grant in after(found, draws)}
    assert all(left[name] == 0 for name in names(draws)[:-1])
    touched = set(names(draws))
    by_id = {grant.id: grant for grant in found}
    for grant in found:
        if is_usable(grant, AT) and left[grant.id] and grant.id not in touched:
            assert all(by_id[name].priority <= grant.priority for name in touched)


def test_a_line_says_what_is_left_of_the_grant_that_it_draws_from() -> None:
    found = [replace(make("Welcome", "100"), remaining=Decimal(80))]
    (line,) = credit_lines(found, [Draw("Welcome", Decimal("12.50"))], JULY, scope="inv_1")
    assert (line.kind, line.price, line.amount, line.meter) == ("credit", "Welcome", Decimal("-12.50"), None)
    assert line.description == "Credit Welcome: 67.5 of 100 USD remain"


def test_lines_of_two_grants_of_one_name_have_ids_of_their_own() -> None:
    pair = [replace(make("a"), name="gift"), replace(make("b"), name="gift")]
    lines = credit_lines(pair, [Draw("a", Decimal(1)), Draw("b", Decimal(1))], JULY, scope="inv_1")
    assert len({line.id for line in lines}) == 2


def test_a_negative_total_becomes_credit_of_the_same_amount_that_comes_first_and_never_expires() -> None:
    grant = carried_grant("inv_1", "c1", "usd", Decimal("-7.25"), AT)
    line = carry(Decimal("-7.25"), grant, JULY, scope="inv_1")
    assert (line.kind, line.amount) == ("credit", Decimal("7.25"))
    assert (grant.amount, grant.remaining, grant.priority, grant.expires_at) == (
        Decimal("7.25"),
        Decimal("7.25"),
        0,
        None,
    )
    assert grant.id == carried_grant("inv_1", "c1", "usd", Decimal("-7.25"), AT).id
    assert grant.id != carried_grant("inv_2", "c1", "usd", Decimal("-7.25"), AT).id
    assert draw([grant], Decimal(5), AT) == [Draw(grant.id, Decimal(5))]


def test_a_plan_grants_once_with_the_first_period_or_with_every_one() -> None:
    terms = [
        Credit("welcome", Decimal(50)),
        Credit("monthly", Decimal(10), priority=5, expires_days=40, every_period=True),
    ]
    first = grants_due(terms, "c1/pro", "c1", "usd", JULY.start, first=True)
    second = grants_due(terms, "c1/pro", "c1", "usd", JULY.end, first=False)
    assert [grant.name for grant in first] == ["welcome", "monthly"]
    assert [grant.name for grant in second] == ["monthly"]
    assert (second[0].effective_at, second[0].expires_at, second[0].priority) == (AT, AT + timedelta(days=40), 5)
    assert len({grant.id for grant in first + second}) == 3
    assert first == grants_due(terms, "c1/pro", "c1", "usd", JULY.start, first=True)


def test_two_credits_of_one_name_are_both_granted() -> None:
    terms = [Credit("gift", Decimal(50)), Credit("gift", Decimal(5))]
    found = grants_due(terms, "c1/pro", "c1", "usd", JULY.start, first=True)
    assert len({grant.id for grant in found}) == 2
