"""Tables of plans that the tests of their readers share."""

from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from flusher.catalog.price_reader import read_price
from flusher.catalog.reader import Report, Table
from flusher.pricing.money import Rounding
from flusher.pricing.period import Interval
from flusher.pricing.plan import (
    Commitment,
    Credit,
    Discount,
    Overrides,
    Price,
)

Values = dict[str, object]
PRICE: Values = {"meter": "calls", "model": "per_unit", "unit_price": "1"}
PLAN: Values = {"name": "pro", "currency": "usd", "prices": [PRICE]}
REST: Values = {"match": {}, "unit_price": "1"}
EU: Values = {"match": {"region": "eu"}, "unit_price": "1"}


_T = TypeVar("_T")


def read(reader: Callable[[Table], _T | None], values: Values) -> _T:
    """What a table says; fails with its problems."""
    report = Report()
    found = reader(Table(report, "", values))
    assert report.problems == []
    assert found is not None
    return found


def price_of(values: Values) -> Price:
    """The price of a table."""
    found = read_price(Table(Report(), "", values))
    assert found is not None
    return found


def problems(reader: Callable[[Table], object], values: Values) -> dict[str, str]:
    report = Report()
    assert reader(Table(report, "", values)) is None
    return {problem.path: problem.message for problem in report.problems}


def usage_price(**keys: object) -> Values:
    return {"meter": "calls", **keys}


EVERYTHING: Values = {
    "rounding": "half_even",
    "minimum": "10",
    "maximum": "1000",
    "threshold": "250",
    "discounts": [{"percent": "12.5", "duration": 3}, {"name": "sorry", "amount": "5"}],
    "commitment": {"amount": "1200", "interval": "year"},
    "credits": [
        {"name": "welcome", "amount": "20"},
        {
            "name": "prepaid",
            "amount": "100",
            "priority": 5,
            "expires_days": 365,
            "cost_basis": "0.8",
            "every_period": True,
        },
    ],
    "trial": {"days": 14},
}
READ = Overrides(
    rounding=Rounding.HALF_EVEN,
    minimum=Decimal(10),
    maximum=Decimal(1000),
    discounts=(Discount("discount", percent=Decimal("12.5"), duration=3), Discount("sorry", amount=Decimal(5))),
    commitment=Commitment(Decimal(1200), Interval.YEAR),
    credits=(
        Credit("welcome", Decimal(20)),
        Credit("prepaid", Decimal(100), 5, 365, Decimal("0.8"), every_period=True),
    ),
    trial_days=14,
    threshold=Decimal(250),
)
