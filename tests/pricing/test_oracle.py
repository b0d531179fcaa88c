"""Every model against an oracle: exact fractions, written from interface.md's table and not from the code.

The oracle walks single boundaries and knows neither tiers as objects nor Decimal. At least 2,000 examples.
"""

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from hypothesis import given, settings
from hypothesis import strategies as st

from flusher.pricing.money import Rounding, currency
from flusher.pricing.plan import Graduated, Package, PerUnit, Plan, Tier, UsageModel, UsagePrice, Volume
from flusher.pricing.rate import Measure
from tests.pricing.support import WHOLE_JULY, arrears

STEPS = {"usd": Fraction(1, 100), "jpy": Fraction(1), "kwd": Fraction(1, 100), "isk": Fraction(1)}
Row = tuple[Fraction | None, Fraction, Fraction]


def decimals(below: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(0, below * 10**places).map(lambda number: Decimal(number).scaleb(-places))


unit_prices = decimals(100, 12) | decimals(10, 3) | st.just(Decimal(0))
fees = decimals(50, 2) | st.just(Decimal(0))
quantities = decimals(30_000, 9) | st.integers(0, 30_000).map(Decimal)


@st.composite
def tier_rows(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = sorted(draw(st.sets(decimals(20_000, 3).filter(bool) | st.integers(1, 20_000).map(Decimal), max_size=5)))
    return tuple(Tier(end, draw(unit_prices), draw(fees)) for end in [*ends, None])


def rounded(amount: Fraction, code: str, rounding: Rounding) -> Fraction:
    """To the nearest step; a tie up, or to the even step."""
    steps = amount / STEPS[code]
    lower = floor(steps)
    if steps - lower == Fraction(1, 2):
        return (lower + 1 if rounding is Rounding.HALF_UP or lower % 2 else lower) * STEPS[code]
    return floor(steps + Fraction(1, 2)) * STEPS[code]


def oracle(model: UsageModel, quantity: Fraction, code: str, rounding: Rounding) -> list[Fraction]:
    """The lines' amounts."""
    if quantity <= 0:
        return []
    exact: list[Fraction] = []
    if isinstance(model, PerUnit):
        exact = [quantity * Fraction(model.unit_price)]
    elif isinstance(model, Package):
        exact = [ceil(quantity / Fraction(model.package_size)) * Fraction(model.package_price)]
    else:
        ends = [None if tier.up_to is None else Fraction(tier.up_to) for tier in model.tiers]
        begins = [Fraction(0), *[end for end in ends if end is not None]]
        for begin, end, tier in zip(begins, ends, model.tiers, strict=True):
            if quantity <= begin:
                continue
            if isinstance(model, Volume):
                exact = [quantity * Fraction(tier.unit_price) + Fraction(tier.flat_fee)]
            else:
                inside = quantity - begin if end is None or quantity < end else end - begin
                exact.append(inside * Fraction(tier.unit_price) + Fraction(tier.flat_fee))
    return [rounded(amount, code, rounding) for amount in exact]


models = st.one_of(
    st.builds(PerUnit, unit_prices),
    st.builds(Graduated, tier_rows()),
    st.builds(Volume, tier_rows()),
    st.builds(Package, decimals(5_000, 3).filter(bool), fees),
)


@settings(max_examples=2_500, deadline=None)
@given(
    models,
    quantities,
    decimals(500, 2) | st.just(Decimal(0)),
    st.sampled_from(sorted(STEPS)),
    st.sampled_from(list(Rounding)),
)
def test_every_line_is_what_the_oracle_says(
    model: UsageModel, quantity: Decimal, free_units: Decimal, code: str, rounding: Rounding
) -> None:
    # Given a random price and quantity
    price = UsagePrice("calls", "calls", model, free_units)
    # When it is rated
    plan = Plan("pro", code, (price,), rounding=rounding)
    lines = arrears(plan, WHOLE_JULY, {"calls": [Measure(quantity)]})
    # Then its lines are the oracle's, to the last digit, and what they say multiplies to what they bill
    priced = Fraction(quantity) - Fraction(free_units)
    assert [Fraction(line.amount) for line in lines] == oracle(model, priced, code, rounding)
    for line in lines:
        fee = 0 if line.tier is None or isinstance(model, PerUnit | Package) else model.tiers[line.tier - 1].flat_fee
        exact = Fraction(line.quantity) * Fraction(line.unit_price) + Fraction(fee)
        assert Fraction(line.amount) == rounded(exact, code, rounding)
        assert Fraction(line.amount) % Fraction(currency(code).step) == 0


@settings(max_examples=500, deadline=None)
@given(tier_rows(), st.data())
def test_graduated_prices_are_continuous_where_there_is_no_flat_fee(
    rows: tuple[Tier, ...], data: st.DataObject
) -> None:
    # Given graduated tiers without fees, and a boundary
    plain_tiers = tuple(Tier(tier.up_to, tier.unit_price) for tier in rows)
    boundary = data.draw(st.sampled_from([tier.up_to or Decimal(1) for tier in plain_tiers]))
    nano = Decimal("0.000000001")

    # Then a nano more costs at most what a nano costs at the dearest tier
    def exact(quantity: Decimal) -> Fraction:
        parts = Graduated(plain_tiers).parts(quantity)
        return sum((Fraction(part.quantity) * Fraction(part.unit_price) for part in parts), Fraction(0))

    dearest = max(Fraction(tier.unit_price) for tier in plain_tiers)
    assert 0 <= exact(boundary + nano) - exact(boundary) <= dearest * Fraction(nano)
