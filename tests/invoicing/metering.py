"""What the tests of the meter sink share: usage of today's hours, and what adds up to what."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from flusher.invoicing.meter_events import HOUR, floor_hour
from flusher.invoicing.meter_usage import Held, Wanted, take_usage
from tests.invoicing.world import World

METERS = ("api_call", "tokens")

CATALOG = """
[[meters]]
name = "api_call"
event_type = "api_call"
aggregation = "sum"
field = "units"

[[meters]]
name = "tokens"
event_type = "tokens"
aggregation = "sum"
field = "units"
"""


def hours_ago(hours: int) -> datetime:
    """Return the start of a UTC hour that has ended."""
    return floor_hour(datetime.now(UTC)) - hours * HOUR


def take(world: World, since: datetime | None = None, customer: str | None = None) -> list[Held]:
    wanted = Wanted(METERS, since or hours_ago(30 * 24), customer=customer, window=timedelta(0))
    return take_usage(world.connection, wanted, lambda _done, _of: None)


def total(world: World, statement: str, *values: object) -> Decimal:
    row = world.connection.execute(statement, values).fetchone()
    return Decimal(row[0] or 0) if row else Decimal(0)


def in_events(world: World, customer: str, meter: str, *states: str) -> Decimal:
    return total(
        world,
        "SELECT sum(units) FROM metered_events WHERE customer = %s AND meter = %s AND state = ANY(%s)",
        customer,
        meter,
        list(states),
    )


def carried(world: World, customer: str, meter: str) -> Decimal:
    return total(world, "SELECT units FROM metered_carries WHERE customer = %s AND meter = %s", customer, meter)


def used(world: World, users: list[str], meter: str) -> Decimal:
    return total(world, "SELECT sum(units) FROM usage WHERE user_id = ANY(%s) AND meter = %s", users, meter)


def assert_taken(world: World, customer: str, meter: str, users: list[str] | None = None) -> None:
    """Everything that was used is in an event or carried, to the last digit."""
    events = in_events(world, customer, meter, "pending", "sent", "parked")
    assert events + carried(world, customer, meter) == used(world, users or [customer], meter)
    assert carried(world, customer, meter) < 1
