"""The catalog in a real PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
import pytest
from psycopg.rows import TupleRow

from flusher.catalog.model import Customer
from flusher.catalog.problem import CatalogError
from flusher.catalog_store import (
    apply_catalog,
    load_catalog,
    load_customer,
    load_customers_of,
    load_plan_versions,
    load_subscriptions,
)
from flusher.database import connect
from flusher.sql import query
from sidecar.contract.codes import TaximeterError, TryAgainError
from tests.catalog.support import FULL, METER, PLAN, SUBSCRIPTION, catalog, leave_invoice

Connection = psycopg.Connection[TupleRow]
BASE = METER + PLAN + SUBSCRIPTION


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as opened:
        yield opened


def use(connection: Connection, meter: str) -> None:
    """Leave a row of usage."""
    connection.execute(
        "INSERT INTO usage (shard, user_id, meter, window_start, units, events) VALUES (0, 'u', %s, now(), 1, 1)",
        (meter,),
    )


def revisions(connection: Connection) -> list[tuple[int, list[dict[str, object]]]]:
    rows = connection.execute("SELECT revision, meters FROM revisions ORDER BY revision").fetchall()
    return [(row[0], row[1]) for row in rows]


def test_what_is_applied_is_what_is_loaded(connection: Connection) -> None:
    applied = apply_catalog(connection, FULL)
    assert load_catalog(connection) == catalog(FULL)
    assert applied.plan_versions == {"pro": 1}


def test_every_value_survives_the_database(connection: Connection) -> None:
    text = (
        METER + 'filter = {a = ["b", "c"]}\ngroup_by = ["x", "y"]\n' + PLAN + 'per_group = true\nfree_units = "0.5"\n'
    )
    text += '[[plans.prices]]\nname = "fee"\nmodel = "fixed"\namount = "0.1"\ncharge = "in_advance"\n'
    text += '[[plans.prices]]\nname = "v"\nmeter = "api_call"\nmodel = "volume"\ntiers = [{flat_fee = 1}]\n'
    text += (
        '[[plans.prices]]\nname = "p"\nmeter = "api_call"\nmodel = "package"\npackage_size = "1.5"\npackage_price = 2\n'
    )
    text += '[[customers]]\nid = "cus_1"\nuser_ids = ["z", "a", "m"]\nstripe_customer = "cus_S"\n'
    text += SUBSCRIPTION.replace("00:00:00Z", "02:00:00.123456+02:00") + "end = 2025-09-01T00:00:00Z\n"
    apply_catalog(connection, text)
    assert load_catalog(connection) == catalog(text)


def test_meters_get_a_revision_that_says_what_they_are(connection: Connection) -> None:
    assert apply_catalog(connection, FULL).revision == 1
    assert revisions(connection)[-1] == (
        1,
        [
            {
                "name": "api_call",
                "event_type": "api_call",
                "aggregation": "sum",
                "field": "units",
                "group_by": ["region"],
                "filter": {"region": ["eu", "us"]},
            }
        ],
    )


def test_a_revision_is_made_only_when_meters_change(connection: Connection) -> None:
    apply_catalog(connection, FULL)
    # Given a file that changes a plan, and one that changes nothing
    assert apply_catalog(connection, FULL.replace('"0.01"', '"0.02"')).revision == 1
    assert apply_catalog(connection, FULL.replace('"0.01"', '"0.02"')).plan_versions == {}
    # When a meter is added, the next revision holds all meters
    applied = apply_catalog(connection, METER.replace("api_call", "disk"))
    assert applied.revision == 2
    assert [meter["name"] for meter in revisions(connection)[-1][1]] == ["api_call", "disk"]


def test_a_changed_plan_is_a_new_version_and_the_old_one_stays(connection: Connection) -> None:
    before = datetime.now(UTC)
    apply_catalog(connection, BASE)
    applied = apply_catalog(connection, PLAN.replace('"0.01"', '"0.02"'))
    versions = load_plan_versions(connection)["pro"]
    assert applied.plan_versions == {"pro": 2}
    assert [version.version for version in versions] == [1, 2]
    assert versions[0].plan == catalog(BASE).plans["pro"]
    assert versions[1].plan != versions[0].plan
    assert before < versions[0].effective_at < versions[1].effective_at
    assert load_plan_versions(connection, "other") == {}


def test_a_dry_run_tells_everything_and_changes_nothing(connection: Connection) -> None:
    applied = apply_catalog(connection, FULL, dry_run=True)
    assert [change.name for change in applied.changes.changes] == ["api_call", "pro", "cus_123456", "cus_123456/pro"]
    assert applied.revision == 1
    assert load_catalog(connection) == catalog("")
    assert len(revisions(connection)) == 1


def test_a_bad_file_changes_nothing(connection: Connection) -> None:
    apply_catalog(connection, BASE)
    before = load_catalog(connection)
    # Given a file whose last entry alone is bad
    with pytest.raises(CatalogError):
        apply_catalog(connection, FULL + '[[customers]]\nid = ""\n')
    assert load_catalog(connection) == before
    assert len(revisions(connection)) == 2


def test_a_meter_with_usage_stays_what_it_is(connection: Connection) -> None:
    apply_catalog(connection, METER)
    use(connection, "api_call")
    with pytest.raises(CatalogError) as caught:
        apply_catalog(connection, METER + 'aggregation = "count"\n')
    assert caught.value.code == "meter_in_use"


def test_an_event_type_with_usage_keeps_its_own_meter(connection: Connection) -> None:
    use(connection, "api_call")
    apply_catalog(connection, METER.replace('name = "api_call"', 'name = "calls"'))
    assert sorted(load_catalog(connection).meters) == ["api_call", "calls"]


def test_users_move_between_customers_in_one_file(connection: Connection) -> None:
    def text(one: str, other: str) -> str:
        return f'[[customers]]\nid = "a"\nuser_ids = {one}\n[[customers]]\nid = "b"\nuser_ids = {other}\n'

    apply_catalog(connection, text('["u", "v"]', '["w"]'))
    apply_catalog(connection, text('["w"]', '["v", "u"]'))
    assert load_customer(connection, "a").user_ids == ("w",)
    assert load_customer(connection, "b").user_ids == ("v", "u")


def test_a_customer_without_an_entry_is_its_own_user_unless_that_belongs_to_another(connection: Connection) -> None:
    apply_catalog(connection, '[[customers]]\nid = "a"\nuser_ids = ["u"]\n')
    assert load_customer(connection, "x") == Customer("x", ("x",), "x")
    assert load_customer(connection, "u") == Customer("u", (), "u")


def test_subscriptions_are_found_by_customer(connection: Connection) -> None:
    apply_catalog(connection, BASE + SUBSCRIPTION.replace("cus_1", "cus_2"))
    assert [found.id for found in load_subscriptions(connection)] == ["cus_1/pro", "cus_2/pro"]
    assert [found.id for found in load_subscriptions(connection, "cus_2")] == ["cus_2/pro"]


def test_an_end_is_written_and_taken_off(connection: Connection) -> None:
    apply_catalog(connection, BASE)
    apply_catalog(connection, SUBSCRIPTION + "end = 2025-09-01T00:00:00Z\n")
    assert load_subscriptions(connection)[0].end == datetime(2025, 9, 1, tzinfo=UTC)
    apply_catalog(connection, SUBSCRIPTION)
    assert load_subscriptions(connection)[0].end is None


def test_two_at_once_are_applied_one_after_the_other(make_database: Callable[..., str]) -> None:
    # Given four that apply files with a meter each, at the same time
    url = make_database()

    def apply(number: int) -> None:
        with connect(url) as connection:
            apply_catalog(connection, METER.replace("api_call", f"m{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(apply, range(4), timeout=60))
    # Then each got a revision of its own, and the last one holds all meters
    with connect(url) as connection:
        assert [(number, len(meters)) for number, meters in revisions(connection)] == [(n, n) for n in range(5)]


@pytest.mark.parametrize("held_by", ["lock_catalog", "hold_catalog"])
def test_an_apply_that_waits_too_long_for_another_or_for_a_run_can_be_tried_again(
    database_url: str, connection: Connection, held_by: str
) -> None:
    with connect(database_url) as other:
        other.execute(query(held_by))
        connection.execute("SET lock_timeout = '50ms'")
        connection.commit()
        with pytest.raises(TryAgainError, match="the catalog is being changed"):
            apply_catalog(connection, METER)


def test_a_stored_version_that_this_program_cannot_read_is_named(connection: Connection) -> None:
    apply_catalog(connection, BASE)
    connection.execute("""UPDATE plan_versions SET definition = definition || '{"currency": "zzz"}'""")
    with pytest.raises(TaximeterError, match=r"version 1 .* plan pro\.currency") as caught:
        load_plan_versions(connection)
    assert caught.value.code == "schema_outdated"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO meters VALUES ('', 'e', 'sum', 'units', '[]', '{}')",
        "INSERT INTO meters VALUES ('m', 'e', 'median', 'units', '[]', '{}')",
        "INSERT INTO meters VALUES ('m', 'e', 'sum', 'bytes', '[]', '{}')",
        "INSERT INTO plan_versions VALUES ('pro', 0, now(), '{}')",
        "INSERT INTO plan_versions VALUES ('pro', 9, now(), '[]')",
        "INSERT INTO subscriptions VALUES ('s', 'c', 'none', now())",
        "INSERT INTO subscriptions VALUES ('s', 'c', 'pro', now(), now())",
        "INSERT INTO customer_users VALUES ('u', 'nobody', 0)",
    ],
)
def test_the_schema_itself_refuses_what_no_catalog_holds(connection: Connection, statement: LiteralString) -> None:
    apply_catalog(connection, BASE)
    with pytest.raises(psycopg.IntegrityError):
        connection.execute(statement)


def test_a_period_that_would_be_rated_from_dropped_events_is_refused(connection: Connection) -> None:
    # given that single events of July are dropped
    apply_catalog(connection, METER + PLAN)
    connection.execute("UPDATE ledger SET event_floor_next = '2025-07-31 23:59:59.999999Z'")

    def subscribe(name: str, start: str, end: str = "") -> None:
        until = f"end = {end}\n" if end else ""
        apply_catalog(
            connection,
            f'[[subscriptions]]\nid = "{name}"\ncustomer = "{name}"\nplan = "pro"\nstart = {start}\n{until}',
        )

    # then a period may begin there on a quarter of an hour, or later inside of one
    subscribe("a", "2025-07-10T10:15:00Z", "2025-08-10T10:07:30Z")
    with pytest.raises(CatalogError, match=r"subscriptions\[0\]\.start: expected a quarter of an hour"):
        subscribe("b", "2025-07-10T10:07:30Z")
    with pytest.raises(CatalogError, match=r"subscriptions\[0\]\.end: expected a quarter of an hour"):
        subscribe("c", "2025-07-10T10:15:00Z", "2025-07-20T10:07:30Z")
    # and what was there before stays
    connection.execute("INSERT INTO subscriptions VALUES ('d', 'd', 'pro', '2025-07-10 10:07:30Z')")
    subscribe("d", "2025-07-10T10:07:30Z", "2025-09-01T00:00:00Z")


def test_a_version_can_take_effect_at_once_at_any_moment(connection: Connection) -> None:
    apply_catalog(connection, BASE)
    moment = datetime(2025, 7, 10, 15, tzinfo=UTC)
    # When a changed plan is applied from a moment on, and then again as usual
    applied = apply_catalog(connection, PLAN.replace('"0.01"', '"0.02"'), effective=moment)
    apply_catalog(connection, PLAN.replace('"0.01"', '"0.03"'))
    # Then the one is used from that moment on, the other by periods that begin from now on
    versions = load_plan_versions(connection)["pro"]
    assert [version.at_once for version in versions] == [False, True, False]
    assert versions[1].effective_at == moment
    assert versions[2].effective_at > versions[0].effective_at
    assert applied.changes.changes[0].note == "version 2, from 2025-07-10T15:00:00Z on"


def test_a_subscription_of_the_file_changes_its_plan_and_takes_what_it_has_otherwise(connection: Connection) -> None:
    apply_catalog(connection, BASE + PLAN.replace('"pro"', '"max"'))
    text = SUBSCRIPTION.replace('"pro"', '"max"') + 'id = "cus_1/pro"\ndiscounts = [{name = "x", percent = "5"}]\n'
    # When the file says another plan, from a moment on
    apply_catalog(connection, text, effective=datetime(2025, 7, 10, tzinfo=UTC))
    (found,) = load_subscriptions(connection)
    assert (found.plan, [change.plan for change in found.changes]) == ("pro", ["max"])
    assert found.changes[0].overrides.discounts[0].percent == 5
    # Then the same file again changes nothing
    assert not apply_catalog(connection, text).changes.changes
    assert load_catalog(connection).subscriptions == {found.id: found}


def test_nothing_reaches_behind_what_is_invoiced_unless_told(connection: Connection) -> None:
    apply_catalog(connection, BASE + SUBSCRIPTION.replace("cus_1", "cus_2"))
    leave_invoice(connection, "cus_1/pro", "2025-08-01T00:00:00Z")
    dear = PLAN.replace('"0.01"', '"0.02"')
    early = datetime(2025, 7, 15, tzinfo=UTC)
    # Then neither a plan nor an end of a subscription may be changed from before that
    with pytest.raises(CatalogError) as caught:
        apply_catalog(connection, dear + SUBSCRIPTION + "end = 2025-07-20T00:00:00Z\n", effective=early)
    assert [problem.path for problem in caught.value.problems] == ["plans[0]", "subscriptions[0].end"]
    assert "it is invoiced until 2025-08-01T00:00:00Z" in caught.value.problems[0].message
    # But from then on
    apply_catalog(connection, dear, effective=datetime(2025, 8, 1, tzinfo=UTC))
    # And when it is told to, whoever was billed by the plan is rated anew
    apply_catalog(connection, PLAN, effective=early, into_closed=True)
    assert connection.execute("SELECT subscription, since FROM reratings").fetchall() == [("cus_1/pro", early)]


def test_a_moment_inside_a_window_of_summed_rows_is_refused_for_everybody_on_the_plan(connection: Connection) -> None:
    apply_catalog(connection, BASE)
    connection.execute("CREATE TABLE events_p PARTITION OF events FOR VALUES FROM ('2025-07-01') TO ('2025-08-01')")
    connection.execute(
        "INSERT INTO events (shard, revision, events, received_at, user_id, source, event_type, units, event_time,"
        " fingerprint, event_key) VALUES (0, 0, 5, now(), 'cus_1', '', 'api_call', 5, '2025-07-10T15:00:00Z', %s, %s)",
        (b"f" * 8, b"k" * 16),
    )
    inside = datetime(2025, 7, 10, 15, 7, tzinfo=UTC)
    with pytest.raises(CatalogError, match=r"plans\[0\]: expected a quarter of an hour"):
        apply_catalog(connection, PLAN.replace('"0.01"', '"0.02"'), effective=inside)
    assert apply_catalog(connection, PLAN.replace('"0.01"', '"0.02"'), effective=inside.replace(minute=15))


def test_a_customer_has_a_time_zone(connection: Connection) -> None:
    apply_catalog(connection, '[[customers]]\nid = "a"\ntime_zone = "Australia/Lord_Howe"\n')
    found = load_customer(connection, "a")
    assert str(found.zone) == "Australia/Lord_Howe"
    assert load_customer(connection, "b").zone is UTC


def test_customers_and_subscriptions_are_read_in_pages(connection: Connection) -> None:
    apply_catalog(
        connection, BASE + SUBSCRIPTION.replace("cus_1", "cus_2") + '[[customers]]\nid = "o"\nuser_ids = ["u"]\n'
    )
    assert [found.id for found in load_subscriptions(connection, limit=1)] == ["cus_1/pro"]
    assert [found.id for found in load_subscriptions(connection, after="cus_1/pro", limit=5)] == ["cus_2/pro"]
    assert load_subscriptions(connection, "cus_1", after="cus_1/pro") == []
    assert load_customers_of(connection, ["u", "o", "x"]) == {
        "o": Customer("o", ("u",), "o"),
        "u": Customer("u", (), "u"),
        "x": Customer("x", ("x",), "x"),
    }


def test_events_of_a_trial_are_needed_by_nobody(connection: Connection) -> None:
    # Given a plan with a trial of 14 days, and one that had none until August
    trial = PLAN.replace('"pro"', '"try"').replace("[[plans.prices]]", "trial = {days = 14}\n[[plans.prices]]")
    apply_catalog(connection, METER + PLAN + trial)
    longer = PLAN.replace("[[plans.prices]]", "trial = {days = 90}\n[[plans.prices]]")
    apply_catalog(connection, longer, effective=datetime(2025, 8, 1, tzinfo=UTC))
    rows = {
        "plan": 'plan = "try"',
        "own": 'plan = "try"\ntrial = {days = 3}',
        "short": 'plan = "try"\nend = 2025-07-15T00:00:00Z',
        "before": 'plan = "pro"',
    }
    for name, keys in rows.items():
        text = f'[[subscriptions]]\nid = "{name}"\ncustomer = "{name}"\nstart = 2025-07-01T00:00:00Z\n{keys}\n'
        apply_catalog(connection, text)
    # Then each needs its events from the start of its billing on, and one that ends in its trial never any
    needed = connection.execute("SELECT needed_by, since FROM events_needed ORDER BY since").fetchall()
    assert [(text.split()[1].rstrip(","), since) for text, since in needed] == [
        ("before", datetime(2025, 7, 1, tzinfo=UTC)),
        ("own", datetime(2025, 7, 4, tzinfo=UTC)),
        ("plan", datetime(2025, 7, 15, tzinfo=UTC)),
    ]
