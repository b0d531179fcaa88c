"""Model matrix: what a unit costs depends on its group."""

from decimal import Decimal

import pytest

from flusher.pricing.line import Dimensions, Line, dimensions_of
from flusher.pricing.matrix import Entry, Matrix
from flusher.pricing.plan import UsagePrice
from flusher.pricing.rate import Measure, Need, needs
from tests.pricing.support import JULY, SPAN, WHOLE_JULY, arrears, plan


def matrix(*entries: tuple[dict[str, str], str]) -> Matrix:
    return Matrix(tuple(Entry(dimensions_of(match), Decimal(price)) for match, price in entries))


EVERYTHING = matrix(({"region": "eu", "size": "big"}, "5"), ({"region": "eu"}, "3"), ({}, "1"))
NO_REST = matrix(({"region": "eu"}, "3"))


def used(region: str, size: str, quantity: str) -> Measure:
    return Measure(Decimal(quantity), (("region", region), ("size", size)))


def rate(model: Matrix, *shown: Measure, free_units: str = "0", per_group: bool = False) -> tuple[Line, ...]:
    price = UsagePrice("calls", "calls", model, Decimal(free_units), per_group)
    return arrears(plan(price), WHOLE_JULY, {"calls": list(shown)})


def shown_as(lines: tuple[Line, ...]) -> list[tuple[Dimensions | None, str, str]]:
    return [(line.dimensions, str(line.quantity), str(line.amount)) for line in lines]


def test_a_group_pays_what_the_first_entry_that_matches_says() -> None:
    lines = rate(EVERYTHING, used("eu", "big", "2"), used("eu", "small", "10"), used("us", "big", "100"))
    assert shown_as(lines) == [
        ((("region", "eu"), ("size", "big")), "2", "10.00"),
        ((("region", "eu"),), "10", "30.00"),
        ((), "100", "100.00"),
    ]
    assert [line.description for line in lines] == [
        "calls, 2 units (region eu, size big)",
        "calls, 10 units (region eu)",
        "calls, 100 units (all others)",
    ]
    assert len({line.id for line in lines}) == 3


def test_the_order_of_entries_decides_and_not_how_much_they_say() -> None:
    swapped = matrix(({"region": "eu"}, "3"), ({"region": "eu", "size": "big"}, "5"), ({}, "1"))
    assert shown_as(rate(swapped, used("eu", "big", "2"))) == [((("region", "eu"),), "2", "6.00")]


def test_groups_of_one_entry_are_one_line_and_rounded_once() -> None:
    lines = rate(matrix(({}, "0.004")), *(used("eu", size, "1") for size in "abc"))
    assert shown_as(lines) == [((), "3", "0.01")]
    assert lines[0].description == "calls, 3 units"


def test_what_no_entry_matches_is_free() -> None:
    assert rate(NO_REST, used("us", "big", "100")) == ()
    assert shown_as(rate(NO_REST, used("us", "big", "100"), used("eu", "big", "1.5"))) == [
        ((("region", "eu"),), "1.5", "4.50")
    ]


def test_a_group_without_the_property_matches_only_what_names_none() -> None:
    assert shown_as(rate(EVERYTHING, Measure(Decimal(4), (("region", ""), ("size", ""))))) == [((), "4", "4.00")]
    assert rate(NO_REST, Measure(Decimal(4))) == ()


@pytest.mark.parametrize(("eu", "us", "expected"), [("5", "-9", ["15.00"]), ("-5", "9", ["9.00"]), ("-5", "-9", [])])
def test_corrections_are_netted_within_an_entry_and_cost_nothing_below_zero(
    eu: str, us: str, expected: list[str]
) -> None:
    shown = [used("eu", "small", eu), used("us", "small", us)]
    assert [amount for _, _, amount in shown_as(rate(EVERYTHING, *shown))] == expected


@pytest.mark.parametrize(
    ("free_units", "expected"), [("1", ["5.00", "30.00"]), ("2", ["30.00"]), ("5.5", ["19.50"]), ("12", [])]
)
def test_free_units_are_used_up_by_the_entries_in_their_order(free_units: str, expected: list[str]) -> None:
    lines = rate(EVERYTHING, used("eu", "big", "2"), used("eu", "small", "10"), free_units=free_units)
    assert [str(line.amount) for line in lines] == expected


def test_free_units_are_named_where_they_were_used() -> None:
    lines = rate(EVERYTHING, used("eu", "big", "3"), used("us", "big", "10"), free_units="2")
    assert [line.description for line in lines] == [
        "calls, 1 unit (region eu, size big), after 2 units free",
        "calls, 10 units (all others)",
    ]


def test_units_that_nothing_matches_use_up_no_free_units() -> None:
    lines = rate(NO_REST, used("us", "big", "100"), used("eu", "big", "5"), free_units="2")
    assert [str(line.amount) for line in lines] == ["9.00"]


def test_groups_priced_apart_have_a_line_and_free_units_each() -> None:
    shown = [used("eu", "big", "3"), used("eu", "small", "3"), used("us", "big", "1")]
    lines = rate(EVERYTHING, *shown, free_units="1", per_group=True)
    assert shown_as(lines) == [
        ((("region", "eu"), ("size", "big")), "2", "10.00"),
        ((("region", "eu"), ("size", "small")), "2", "6.00"),
    ]


def test_groups_are_asked_for() -> None:
    price = UsagePrice("calls", "calls", EVERYTHING)
    assert needs(plan(price), SPAN, WHOLE_JULY) == (Need("calls", JULY, None, per_group=True),)
