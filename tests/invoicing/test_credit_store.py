"""Grants and draws in a real database: granted once, drawn once, never below zero."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from threading import Barrier

import psycopg
import pytest

from flusher.database import connect
from flusher.invoicing.credit_store import grant, list_standings, lock_grants, record_draws, void_grant
from flusher.invoicing.credits import Draw, Grant, GrantKind, draw
from sidecar.contract.codes import TaximeterError
from tests.invoicing.world import World, utc

JULY = utc(2025, 7, 1)
KEY = ("c1", "usd")


def make(name: str, amount: str = "10", *, customer: str = "c1", currency: str = "usd") -> Grant:
    whole = Decimal(amount)
    return Grant(name, customer, currency, name, GrantKind.PREPAID, whole, whole, 100, JULY, JULY)


@pytest.fixture
def invoices(world: World) -> list[str]:
    """Ids of stored invoices to draw for."""
    world.subscribe("c1", end="2025-09-01T00:00:00Z")
    return [made.id for made in world.run().invoices]


def test_a_grant_that_is_repeated_stays_as_it_is(world: World) -> None:
    assert grant(world.connection, [make("a"), make("b")]) == {"a", "b"}
    assert grant(world.connection, [make("b", "99"), make("c")]) == {"c"}
    assert [found.grant.amount for found in list_standings(world.connection, ["c1"])] == [10, 10, 10]


def test_only_grants_of_the_customer_and_the_currency_that_have_something_left_are_found(world: World) -> None:
    grant(world.connection, [make("a"), make("b", currency="eur"), make("c", customer="c2"), make("d")])
    void_grant(world.connection, "d", "a mistake")
    found = lock_grants(world.connection, [KEY, ("c2", "usd"), ("c3", "usd")])
    ids = {key: [one.id for one in several] for key, several in found.items()}
    assert ids == {KEY: ["a"], ("c2", "usd"): ["c"], ("c3", "usd"): []}


def test_draws_of_several_invoices_are_taken_off_at_once(world: World, invoices: list[str]) -> None:
    grant(world.connection, [make("a"), make("b")])
    first, second = invoices
    draws = {first: [Draw("a", Decimal(4)), Draw("b", Decimal(1))], second: [Draw("a", Decimal(6))]}
    record_draws(world.connection, draws)
    standings = {found.grant.id: found for found in list_standings(world.connection, ["c1"])}
    assert {name: found.grant.remaining for name, found in standings.items()} == {"a": 0, "b": 9}
    drawn = {found.invoice: found.amount for found in standings["a"].draws}
    assert drawn == {first: 4, second: 6}


def test_a_grant_never_goes_below_zero(world: World, invoices: list[str]) -> None:
    grant(world.connection, [make("a")])
    with pytest.raises(psycopg.errors.CheckViolation):
        record_draws(world.connection, {invoices[0]: [Draw("a", Decimal(11))]})
    assert list_standings(world.connection, ["c1"])[0].grant.remaining == 10
    assert list_standings(world.connection, ["c1"])[0].draws == ()


def test_a_draw_is_never_changed(world: World, invoices: list[str]) -> None:
    grant(world.connection, [make("a")])
    record_draws(world.connection, {invoices[0]: [Draw("a", Decimal(1))]})
    for change in ("UPDATE credit_draws SET amount = 2", "DELETE FROM credit_draws", "DELETE FROM credit_grants"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            world.connection.execute(change)


def test_two_runs_at_once_never_draw_a_unit_twice(world: World, invoices: list[str]) -> None:
    # given two grants, and two runs that each want more than half of them
    grant(world.connection, [make("a"), make("b")])
    ready = Barrier(2)

    def run(invoice: str) -> Decimal:
        with connect(world.url) as connection:
            ready.wait(10)
            found = lock_grants(connection, [KEY])[KEY]
            draws = draw(found, Decimal(15), utc(2025, 8, 1))
            record_draws(connection, {invoice: draws})
            connection.commit()
        return sum((one.amount for one in draws), Decimal(0))

    # when both run
    with ThreadPoolExecutor(2) as pool:
        drawn = sorted(pool.map(run, invoices))

    # then one got all that it wanted, the other what was left
    assert drawn == [5, 15]
    assert [found.grant.remaining for found in list_standings(world.connection, ["c1"])] == [0, 0]


def test_what_is_left_of_a_grant_can_be_taken_back_once(world: World, invoices: list[str]) -> None:
    grant(world.connection, [make("a")])
    record_draws(world.connection, {invoices[0]: [Draw("a", Decimal(4))]})
    assert void_grant(world.connection, "a", "refunded") == 6
    (found,) = list_standings(world.connection, grant_ids=["a"])
    assert (found.voided, found.void_reason) == (Decimal(6), "refunded")
    assert found.grant == replace(make("a"), remaining=Decimal(0))
    with pytest.raises(TaximeterError, match="already"):
        void_grant(world.connection, "a", "again")
    with pytest.raises(TaximeterError, match="no grant"):
        void_grant(world.connection, "b", "never there")
