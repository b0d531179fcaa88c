"""Whole plans against an oracle in exact fractions: every model, and everything around them."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.pricing.charge import Charge, ChargeKind
from flusher.pricing.line import total
from flusher.pricing.money import currency
from flusher.pricing.plan import Graduated, Tier
from flusher.pricing.rate import needs, rate_advance, rate_arrears
from tests.pricing.dice import Case, Dice, readings
from tests.pricing.oracle import Cost, cost
from tests.pricing.support import lines_of, rate_model

SEEDS, THROWS = 10, 1_000
"""Ten thousand random plans, usages and periods."""


def expected(case: Case) -> Cost:
    period = (case.billing.period.start, case.billing.period.end)
    return cost(case.plan, (case.span.start, case.end), period, case.number, case.events, Fraction(case.committed))


def prices_of(charges: Iterable[Charge]) -> dict[tuple[str, object], list[Fraction]]:
    return {
        (charge.name, charge.period.start): [Fraction(line.amount) for line in charge.lines]
        for charge in charges
        if charge.kind is ChargeKind.PRICE
    }


def amounts_of(charges: Iterable[Charge], kind: ChargeKind) -> list[Fraction]:
    return [Fraction(charge.amount) for charge in charges if charge.kind is kind]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_period_costs_what_the_oracle_says(seed: int) -> None:
    dice = Dice(seed)
    for throw in range(THROWS):
        # Given a random plan, subscription, period and usage
        case = dice.case()
        usage = readings(case, needs(case.plan, case.span, case.billing))
        # When the period is rated
        arrears = rate_arrears(case.plan, case.span, case.billing, usage, committed=case.committed)
        advance = rate_advance(case.plan, case.span, case.billing)
        # Then every line is the oracle's, to the last digit, and so is everything around
        where, wanted = f"seed {seed}, throw {throw}: {case}", expected(case)
        assert prices_of(arrears) == wanted.arrears, where
        assert prices_of(advance) == wanted.advance, where
        assert sum(amounts_of(arrears, ChargeKind.MINIMUM)) == wanted.minimum, where
        assert sum(amounts_of(arrears, ChargeKind.MAXIMUM)) == wanted.maximum, where
        assert sum(amounts_of(arrears, ChargeKind.COMMITMENT)) == wanted.commitment, where
        assert amounts_of(arrears, ChargeKind.DISCOUNT) == [-off for off in wanted.off_arrears], where
        assert amounts_of(advance, ChargeKind.DISCOUNT) == ([-off for off in wanted.off_advance] if advance else []), (
            where
        )
        check_lines(case, (*arrears, *advance), where)


def check_lines(case: Case, charges: tuple[Charge, ...], where: str) -> None:
    """Lines sum to the total, which is 0 or more; each is in steps of the currency, and has its own id and working."""
    lines = lines_of(charges)
    assert total(lines) == sum((charge.amount for charge in charges), Decimal(0)) >= 0, where
    assert all(line.amount % currency(case.plan.currency).step == 0 for line in lines), where
    assert len({line.id for line in lines}) == len(lines), where
    assert all(line.working.endswith(format(line.amount, "f")) for line in lines), where


def decimals(below: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(0, below * 10**places).map(lambda number: Decimal(number).scaleb(-places))


@st.composite
def tier_rows(draw: st.DrawFn, *, fees: bool) -> tuple[Tier, ...]:
    ends = sorted(draw(st.sets(decimals(20_000, 3).filter(bool), max_size=5)))
    fee = decimals(50, 2) if fees else st.just(Decimal(0))
    return tuple(Tier(end, draw(decimals(100, 12)), draw(fee)) for end in [*ends, None])


def exact(tiers: tuple[Tier, ...], quantity: Decimal) -> Fraction:
    return sum((Fraction(part.amount) for part in Graduated(tiers).parts(quantity)), Fraction(0))


@settings(max_examples=300, deadline=None)
@given(tier_rows(fees=False), st.data())
def test_graduated_prices_are_continuous_where_there_is_no_flat_fee(
    tiers: tuple[Tier, ...], data: st.DataObject
) -> None:
    # Given graduated tiers without fees, and a boundary
    boundary = data.draw(st.sampled_from([tier.up_to or Decimal(1) for tier in tiers]))
    nano = Decimal("0.000000001")
    # Then a nano more costs at most what a nano costs at the dearest tier
    dearest = max(Fraction(tier.unit_price) for tier in tiers)
    assert 0 <= exact(tiers, boundary + nano) - exact(tiers, boundary) <= dearest * Fraction(nano)


@settings(max_examples=300, deadline=None)
@given(tier_rows(fees=True), decimals(30_000, 9), decimals(30_000, 9))
def test_more_units_never_cost_less_in_graduated(tiers: tuple[Tier, ...], one: Decimal, other: Decimal) -> None:
    fewer, more = sorted((one, other))
    model = Graduated(tiers)
    assert total(rate_model(model, str(fewer))) <= total(rate_model(model, str(more)))


@settings(max_examples=300, deadline=None)
@given(tier_rows(fees=True), decimals(30_000, 9))
def test_a_line_multiplies_out(tiers: tuple[Tier, ...], quantity: Decimal) -> None:
    for line in rate_model(Graduated(tiers), str(quantity)):
        fee = tiers[(line.tier or 0) - 1].flat_fee
        off = Fraction(line.quantity) * Fraction(line.unit_price) + Fraction(fee) - Fraction(line.amount)
        assert abs(off) <= Fraction(1, 200)
