"""What becomes of a subscription that is to be otherwise: from when on, and what it may not reach behind."""

from dataclasses import replace
from datetime import UTC
from decimal import Decimal

import pytest

from flusher.catalog.changing import Moment, Settled, settle
from flusher.catalog.model import PlanChange, PlanVersion, Subscription
from flusher.catalog.zones import zone_named
from flusher.pricing.plan import Overrides, Plan
from tests.catalog.support import instant

PLANS = {
    name: (PlanVersion(Plan(name, currency, ()), 1, instant("2025-01-01")),)
    for name, currency in (("pro", "usd"), ("team", "usd"), ("euro", "eur"))
}
PRO = Subscription("s", "c", "pro", instant("2025-06-10"))
TEAM = replace(PRO, plan="team")


def moment(
    now: str = "2025-07-20", effective: str | None = None, invoiced: str | None = None, *, into_closed: bool = False
) -> Moment:
    return Moment(
        instant(now),
        PLANS,
        {} if invoiced is None else {"s": instant(invoiced)},
        effective=None if effective is None else instant(effective),
        into_closed=into_closed,
    )


def changed(found: Settled) -> list[tuple[str, str]]:
    assert not found.faults
    return [(change.plan, f"{change.at:%Y-%m-%dT%H:%M}") for change in found.subscription.changes]


def test_a_subscription_that_is_new_or_as_it_was_has_nothing_to_settle() -> None:
    assert settle(PRO, None, UTC, moment()) == Settled(PRO)
    assert settle(PRO, PRO, UTC, moment()) == Settled(PRO)


def test_another_plan_begins_with_the_period_after_the_running_one() -> None:
    found = settle(TEAM, PRO, UTC, moment())
    assert changed(found) == [("team", "2025-08-01T00:00")]
    assert found.note == "from 2025-08-01T00:00:00Z on"
    # And the period ends by the customer's clock
    assert changed(settle(TEAM, PRO, zone_named("Europe/Berlin"), moment())) == [("team", "2025-07-31T22:00")]


def test_other_overrides_are_a_change_too() -> None:
    own = Overrides(minimum=Decimal(5))
    found = settle(replace(PRO, overrides=own), PRO, UTC, moment())
    assert found.subscription.changes == (PlanChange(instant("2025-08-01"), "pro", own),)


@pytest.mark.parametrize("effective", ["2025-07-03", "2025-07-20T12:34:56", "2025-11-01"])
def test_a_change_may_take_effect_at_any_moment_of_an_open_period_or_later(effective: str) -> None:
    found = settle(TEAM, PRO, UTC, moment(effective=effective, invoiced="2025-07-01"))
    assert [change.at for change in found.subscription.changes] == [instant(effective)]
    assert found.rerated_since is None


def test_a_change_reaches_behind_what_is_invoiced_only_when_told() -> None:
    (fault,) = settle(TEAM, PRO, UTC, moment(effective="2025-06-30", invoiced="2025-07-01")).faults
    assert fault[0] == "plan"
    assert "invoiced until 2025-07-01T00:00:00Z" in fault[1]
    found = settle(TEAM, PRO, UTC, moment(effective="2025-06-30", invoiced="2025-07-01", into_closed=True))
    assert changed(found) == [("team", "2025-06-30T00:00")]
    assert found.rerated_since == instant("2025-06-30")


def test_a_change_up_to_the_start_is_what_the_subscription_begins_with() -> None:
    found = settle(TEAM, PRO, UTC, moment(effective="2025-01-01"))
    assert found.subscription == TEAM


def test_before_the_first_period_a_change_waits_for_it() -> None:
    # Given one that begins later
    assert settle(TEAM, PRO, UTC, moment(now="2025-05-01")).subscription == TEAM
    # And one in its trial
    trial = replace(PRO, overrides=Overrides(trial_days=5))
    found = settle(TEAM, trial, UTC, moment(now="2025-06-12"))
    assert changed(found) == [("team", "2025-06-15T00:00")]
    assert found.subscription.overrides == trial.overrides


def test_a_later_word_takes_the_place_of_what_was_to_come() -> None:
    # Given a change that is to come
    planned = replace(PRO, changes=(PlanChange(instant("2025-08-01"), "team"),))
    # When another one comes first, it is dropped
    own = replace(PRO, plan="team", overrides=Overrides(minimum=Decimal(1)))
    found = settle(own, planned, UTC, moment(effective="2025-07-25"))
    assert [change.at for change in found.subscription.changes] == [instant("2025-07-25")]
    assert "the change of 2025-08-01T00:00:00Z is dropped" in found.note
    # And going back to the plan of today leaves no change at all
    assert settle(PRO, planned, UTC, moment()).subscription == PRO


@pytest.mark.parametrize(
    ("wanted", "before", "key"),
    [
        (replace(PRO, customer="other"), PRO, "customer"),
        (replace(PRO, start=instant("2025-06-11")), PRO, "start"),
        (replace(PRO, plan="euro"), PRO, "plan"),
        (replace(PRO, end=instant("2025-06-30T23:59")), PRO, "end"),
        (replace(TEAM, end=instant("2025-08-01")), replace(PRO, end=instant("2025-08-01")), "plan"),
        (replace(TEAM, end=instant("2025-07-10")), replace(PRO, end=instant("2025-07-10")), "plan"),
        (
            replace(PRO, end=instant("2025-08-01"), overrides=Overrides(trial_days=1)),
            replace(PRO, end=instant("2025-08-01")),
            "overrides",
        ),
    ],
)
def test_what_cannot_be_is_named_by_its_key(wanted: Subscription, before: Subscription, key: str) -> None:
    # Given a subscription that is invoiced until July
    found = settle(wanted, before, UTC, moment(invoiced="2025-07-01"))
    assert [name for name, _ in found.faults] == [key]
    assert found.subscription.changes == ()


def test_an_end_is_set_moved_and_taken_off_down_to_what_is_invoiced() -> None:
    for end in (instant("2025-07-01"), instant("2025-07-15T13:00"), None):
        found = settle(replace(PRO, end=end), PRO, UTC, moment(invoiced="2025-07-01"))
        assert found == Settled(replace(PRO, end=end))
