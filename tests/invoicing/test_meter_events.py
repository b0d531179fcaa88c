"""What becomes of usage that is metered at Stripe: whole units, in order, and nothing lost or made up."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flusher.invoicing.meter_events import (
    HOUR,
    Carry,
    Change,
    Pair,
    Whole,
    choose_names,
    cut,
    floor_hour,
    identifier,
    read_names,
    settled_until,
)
from flusher.invoicing.settle import Clock, Producer, Settled, settlement
from sidecar.contract.codes import TaximeterError
from sidecar.contract.units import NANO

START = datetime(2025, 7, 1, tzinfo=UTC)
LATEST = START + 10 * HOUR


def changes(*nanos: int) -> list[Change]:
    return [Change(START + place * HOUR, change) for place, change in enumerate(nanos)]


def test_a_rest_below_one_unit_goes_with_the_next_event() -> None:
    made, carry = cut(changes(NANO * 3 // 2, NANO // 4, NANO // 4), Carry(), LATEST)

    assert made == [Whole(START, 1, 1), Whole(START + 2 * HOUR, 1, 2)]
    assert carry == Carry(0, 2)


def test_less_usage_than_before_is_carried_until_more_came() -> None:
    first, carry = cut(changes(-5 * NANO), Carry(NANO // 2, 7), LATEST)
    then, rest = cut(changes(4 * NANO, 3 * NANO), carry, LATEST)

    assert first == []
    assert carry == Carry(NANO // 2 - 5 * NANO, 7)
    assert then == [Whole(START + HOUR, 2, 8)]
    assert rest == Carry(NANO // 2, 8)


def test_whole_units_that_are_carried_are_sent_without_new_usage() -> None:
    assert cut([], Carry(4 * NANO, 1), LATEST) == ([Whole(LATEST, 4, 2)], Carry(0, 2))


@given(st.lists(st.integers(-(10**13), 10**13)), st.integers(-(10**12), 10**10))
def test_events_and_carry_are_what_was_used(nanos: list[int], carried: int) -> None:
    made, carry = cut(changes(*nanos), Carry(carried, 3), LATEST)

    assert sum(whole.units for whole in made) * NANO + carry.nanos == sum(nanos) + carried
    assert carry.nanos < NANO
    assert all(whole.units > 0 for whole in made)
    assert [whole.number for whole in made] == list(range(4, 4 + len(made)))


def test_identifiers_differ_with_everything_that_an_event_is_of() -> None:
    one = Whole(START, 5, 1)
    made = {
        identifier("ledger", Pair("a", "bc"), one),
        identifier("ledger", Pair("ab", "c"), one),
        identifier("other", Pair("a", "bc"), one),
        identifier("ledger", Pair("a", "bc"), one._replace(number=2)),
        identifier("ledger", Pair("a", "bc"), one._replace(hour=START + HOUR)),
    }

    assert len(made) == 5
    assert identifier("ledger", Pair("a", "bc"), one) in made
    assert all(len(found) <= 100 for found in made)


@given(st.integers(0, 300), st.lists(st.one_of(st.none(), st.integers(-300, 300)), max_size=3), st.integers(0, 240))
def test_the_last_settled_hour_is_settled_and_the_next_is_not(past: int, behind: list[int | None], window: int) -> None:
    now = START + timedelta(minutes=past)
    producers = tuple(
        Producer(str(place), "", None if minutes is None else now - timedelta(minutes=minutes))
        for place, minutes in enumerate(behind)
    )
    clock = Clock(now, producers)

    until = settled_until(clock, timedelta(minutes=window))

    assert until == floor_hour(until)
    assert isinstance(settlement(until, clock, timedelta(minutes=window)), Settled)
    assert not isinstance(settlement(until + HOUR, clock, timedelta(minutes=window)), Settled)


def test_meters_are_named_as_the_setting_says_or_as_here() -> None:
    assert choose_names(read_names("tokens = llm_tokens, calls"), ["calls", "tokens", "rows"]) == {
        "tokens": "llm_tokens",
        "calls": "calls",
    }
    assert choose_names({}, ["rows", "calls"]) == {"calls": "calls", "rows": "rows"}


@pytest.mark.parametrize("text", ["calls,", "calls,calls=x", "=x"])
def test_a_setting_that_names_no_meter_or_one_twice_is_refused(text: str) -> None:
    with pytest.raises(TaximeterError, match="TAXIMETER_STRIPE_METERS: expected meters"):
        read_names(text)


@pytest.mark.parametrize(
    ("wanted", "told"), [({"peak": "peak"}, "sums or counts, got 'peak'"), ({"calls": "x" * 101}, "at most 100")]
)
def test_meters_that_stripe_could_not_add_up_or_name_are_refused(wanted: dict[str, str], told: str) -> None:
    with pytest.raises(TaximeterError, match=told):
        choose_names(wanted, ["calls"])
