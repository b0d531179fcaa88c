"""`taximeter invoice --sink meters` and `taximeter meters`, as an operator meets them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.invoicing import metering
from tests.invoicing.metering import hours_ago
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

Command = Callable[..., int]
V1 = "POST /v1/billing/meter_events"
STREAM = "POST /v2/billing/meter_event_stream"


@pytest.fixture
def ledger(world: World, stand_in: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> World:
    """A ledger with usage, and a Stripe that knows its customer and one of its meters."""
    world.apply(metering.CATALOG)
    stand_in.test.add_customer("ann")
    stand_in.test.add_meter("requests")
    world.use("ann", "10.5", hours_ago(3))
    for name, value in {
        "STRIPE_API_KEY": "sk_test_x",
        "STRIPE_API_BASE": stand_in.base_url,
        "TAXIMETER_STRIPE_RATE": "1000",
        "TAXIMETER_STRIPE_METERS": "api_call=requests",
    }.items():
        monkeypatch.setenv(name, value)
    return world


def report(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_usage_is_sent_once_and_the_report_says_what_is_carried(
    ledger: World, stand_in: StripeStandIn, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("invoice", "--sink", "meters", "--json") == 0
    first = report(capsys)
    assert taximeter("invoice", "--sink", "meters", "--json") == 0
    second = report(capsys)

    carried = [{"meter": "api_call", "customers": 1, "units": "0.5"}]
    assert first == {
        "sent": [{"meter": "api_call", "events": 1, "units": "10"}],
        "carried": carried,
        "parked": [],
        "waiting": [],
    }
    assert second == {"sent": [], "carried": carried, "parked": [], "waiting": []}
    (event,) = stand_in.test.meter_events
    assert event["payload"] == {"stripe_customer_id": "ann", "value": "10"}


def test_the_stream_is_used_when_the_setting_says_so(
    ledger: World, stand_in: StripeStandIn, taximeter: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXIMETER_STRIPE_METER_API", "v2")

    assert taximeter("invoice", "--sink", "meters") == 0

    assert (len(stand_in.calls_to(V1)), len(stand_in.calls_to(STREAM))) == (0, 1)


def test_a_dry_run_shows_what_would_be_sent_and_sends_and_keeps_nothing(
    ledger: World, stand_in: StripeStandIn, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("invoice", "--sink", "meters", "--dry-run", "--json") == 0

    (waiting,) = report(capsys)["waiting"]
    assert (waiting["meter"], waiting["events"], waiting["units"]) == ("api_call", 1, "10")
    assert stand_in.calls == []
    assert ledger.connection.execute("SELECT count(*) FROM metered_hours").fetchone() == (0,)


def test_a_parked_event_is_listed_and_decided_on(
    ledger: World, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.use("eve", 4, hours_ago(2))

    assert taximeter("invoice", "--sink", "meters", "--json") == 1
    (parked,) = report(capsys)["parked"]
    assert (parked["customer"], parked["reason"]) == ("eve", "stripe_meter_event_customer_not_found")
    assert taximeter("meters", "--json") == 0
    assert report(capsys) == {"meter_events": [parked]}
    assert taximeter("meters", "sent", parked["id"], "--reason", "billed by hand") == 0
    assert taximeter("meters", "sent", parked["id"], "--reason", "again") == 1
    assert taximeter("invoice", "--sink", "meters") == 0


def test_events_wait_for_a_stripe_that_does_not_answer(
    ledger: World, stand_in: StripeStandIn, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.fault(V1, "after", "drop", times=4)

    assert taximeter("invoice", "--sink", "meters", "--json") == 75
    (waiting,) = report(capsys)["waiting"]
    assert (waiting["reason"], waiting["events"], waiting["units"]) == ("stripe_unavailable", 1, "10")
    assert taximeter("invoice", "--sink", "meters") == 0

    assert len(stand_in.test.meter_events) == 1


def test_a_ledger_that_meters_at_stripe_does_not_invoice_there(
    ledger: World, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taximeter("invoice", "--sink", "meters") == 0

    assert taximeter("invoice") == 1

    assert "error: stripe_sink_differs: this ledger's usage is sent to Stripe as meters" in capsys.readouterr().err


def test_a_ledger_that_invoices_at_stripe_does_not_meter_there(
    ledger: World, stand_in: StripeStandIn, taximeter: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.subscribe("ann", end="2025-08-01T00:00:00Z")
    ledger.use("ann", 12345, utc(2025, 7, 5))
    ledger.run(utc(2025, 8, 1), stripe=True)

    assert taximeter("invoice", "--sink", "meters") == 1

    assert "error: stripe_sink_differs: this ledger's invoices go to Stripe (there are 1)" in capsys.readouterr().err
    assert stand_in.test.meter_events == []


def test_another_account_is_refused(
    ledger: World,
    stand_in: StripeStandIn,
    taximeter: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert taximeter("invoice", "--sink", "meters") == 0
    stand_in.give_key("sk_test_other", "acct_other")
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_other")

    assert taximeter("invoice", "--sink", "meters") == 1

    assert "error: stripe_account_changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "status", "told"),
    [
        ("STRIPE_API_KEY", "", 1, "stripe_key_missing"),
        ("STRIPE_API_KEY", "sk_live_x", 2, "usage_invalid: the Stripe key is a live one"),
        (
            "TAXIMETER_STRIPE_METERS",
            "peak",
            1,
            "config_invalid: TAXIMETER_STRIPE_METERS: expected meters that are sums",
        ),
        ("TAXIMETER_STRIPE_METER_API", "v3", 1, "config_invalid: TAXIMETER_STRIPE_METER_API: expected v1"),
        ("TAXIMETER_STRIPE_METERS_SINCE", "2020-01-01", 1, "config_invalid: TAXIMETER_STRIPE_METERS_SINCE: expected a"),
        ("TAXIMETER_STRIPE_METERS_SINCE", "soon", 1, "config_invalid: TAXIMETER_STRIPE_METERS_SINCE: expected a date"),
    ],
)
def test_settings_that_can_not_be_used_are_refused_before_anything_is_sent(
    ledger: World,
    stand_in: StripeStandIn,
    taximeter: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    status: int,
    told: str,
) -> None:
    monkeypatch.setenv(name, value)

    assert taximeter("invoice", "--sink", "meters") == status

    assert told in capsys.readouterr().err
    assert stand_in.calls == []


def test_a_live_key_asks_and_nobody_said_yes(
    ledger: World,
    stand_in: StripeStandIn,
    taximeter: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_x")
    monkeypatch.setenv("TAXIMETER_STRIPE_COLLECT", "false")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "n\n", raising=False)

    assert taximeter("invoice", "--sink", "meters", "--live") == 1

    told = capsys.readouterr().err
    assert "send 1 meter events (10 units) to Stripe, LIVE? [y/N]" in told
    assert "not_confirmed" in told
    assert stand_in.live.meter_events == []
