"""Every aggregation on real servers, whatever the order, the drains and the faults, against plain Python."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from flusher.catalog_store import apply_catalog, load_meters
from flusher.database import connect
from flusher.invoicing.quantities import SummedWindow, read_usage
from flusher.ledger import Ledger
from flusher.pricing.line import dimensions_of
from flusher.pricing.measure import Measure, Need, Reading
from flusher.pricing.period import Period
from flusher.proof import Proof, verify
from flusher.quarantine import discard, list_quarantine, retry
from flusher.usage import Part, Range
from flusher.usage import read_usage as read_usage_parts
from sidecar.contract.codes import TryAgainError
from sidecar.contract.event import Event
from sidecar.contract.identity import shard_of
from sidecar.contract.units import NANO, to_decimal
from tests.flusher.meters_oracle import Group, Happened, shown
from tests.protocol.system import JULY_US, System, an_event
from tests.protocol.voiding import a_void

DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USERS = ("ann", "bob", "cat")
REGIONS = ("eu", "us", None)

AGGREGATIONS = ("sum", "count", "max", "min", "avg", "latest", "unique", "weighted_sum")


def catalog() -> str:
    """Returns a meter of every aggregation: plain, grouped, and of a property with a filter; some of them detailed."""
    meters = []
    for aggregation in AGGREGATIONS:
        of_property = 'field = "properties.size"\n' if aggregation != "count" else ""
        plain = of_property if aggregation == "unique" else ""
        head = f'event_type = "call"\naggregation = "{aggregation}"\n'
        narrow = 'group_by = ["region", "plan"]\nfilter = {plan = ["pro", "7"]}\n'
        meters += [
            f'[[meters]]\nname = "{aggregation}"\n{head}{plain}',
            f'[[meters]]\nname = "{aggregation}_grouped"\n{head}{plain}group_by = ["region"]\n',
            f'[[meters]]\nname = "{aggregation}_filtered"\n{head}{of_property}{narrow}',
        ]
    meters.append('[[meters]]\nname = "payments"\nevent_type = "call"\ngroup_by = ["region"]\ndetailed = true\n')
    return "".join(meters)


def happenings(dice: random.Random, count: int) -> list[tuple[Happened, Event]]:
    """Returns random events of four days, each as the oracle sees it and as it is sent; some share their time."""
    found = []
    for number in range(count):
        time_us = JULY_US + dice.choice((dice.randrange(4 * DAY_US), dice.randrange(40) * DAY_US // 10))
        nanos = dice.choice((dice.randrange(-5, 50) * NANO, dice.randrange(NANO * 1000)))
        properties: dict[str, object] = {"session": number}
        if (region := dice.choice(REGIONS)) is not None:
            properties["region"] = region
        if dice.random() < 0.8:
            properties["size"] = dice.randrange(-3, 8)
        if dice.random() < 0.7:
            properties["plan"] = dice.choice(("pro", "free", 7))
        text = msgspec.json.encode(properties, order="sorted").decode()
        user = dice.choice(USERS)
        sent = an_event(f"e-{number}", user_id=user, event_type="call", nanos=nanos, time_us=time_us, properties=text)
        found.append((Happened(user, time_us, sent.key, to_decimal(nanos), properties), sent))
    return found


def periods(dice: random.Random) -> Iterator[tuple[int, int]]:
    """Yields whole days, ends inside windows, a period inside one window, and one that nothing happened in."""
    yield JULY_US // DAY_US * DAY_US, (JULY_US // DAY_US + 5) * DAY_US
    for _ in range(5):
        start = JULY_US - DAY_US // 2 + dice.randrange(4 * DAY_US)
        yield start, start + dice.randrange(1, 2 * DAY_US)
    yield JULY_US + DAY_US, JULY_US + DAY_US + 60_000_000
    yield JULY_US + 30 * DAY_US, JULY_US + 31 * DAY_US


def period(start_us: int, end_us: int) -> Period:
    return Period(EPOCH + timedelta(microseconds=start_us), EPOCH + timedelta(microseconds=end_us))


def values_of(measure: Measure) -> list[Decimal]:
    return [run.units for run in measure.runs for _ in range(run.events)]


def check(system: System, happened: list[Happened], dice: random.Random) -> None:
    """Compares what is read with the oracle: every meter, several periods and sets of users, all in one go."""
    with connect(system.database_url) as connection:
        meters = {meter.name: meter for meter in load_meters(connection)}
        asked: list[tuple[tuple[str, ...], Need]] = []
        for start_us, end_us in periods(dice):
            users = tuple(dice.sample(USERS, dice.randrange(1, 4)))
            for name in meters:
                for per_group in (False, True):
                    free = dice.randrange(6) if name == "payments" else None
                    asked.append((users, Need(name, period(start_us, end_us), free, per_group)))
        found = read_usage(connection, asked)
    assert len(found) == len(asked)
    for (users, need), reading in zip(asked, found, strict=True):
        assert not isinstance(reading, SummedWindow)
        start_us, end_us = ((at - EPOCH) // timedelta(microseconds=1) for at in (need.period.start, need.period.end))
        wanted = shown(meters[need.meter], happened, users, start_us, end_us, per_group=need.per_group)
        got: dict[Group, Measure] = {measure.dimensions: measure for measure in reading.measures}
        figures = {group: (one.quantity, one.events) for group, one in got.items()}
        assert figures == {group: (one.quantity, one.events) for group, one in wanted.items()}, (users, need)
        assert reading.events == sum(one.events for one in wanted.values())
        if need.free_events is not None:
            for group, one in wanted.items():
                values, free = values_of(got[group]), need.free_events
                assert sorted(values[:free]) == sorted(one.values[:free]), (users, need)
                assert sorted(values[free:]) == sorted(one.values[free:]), (users, need)


def check_report(system: System, happened: list[Happened], part: Part | None) -> None:
    """Compares what is reported of four days and a quarter with the oracle, part by part."""
    start_us = JULY_US // DAY_US * DAY_US + 6 * 3_600_000_000
    span = period(start_us, start_us + 4 * DAY_US + 900_000_000)
    with connect(system.database_url) as connection:
        meters = {meter.name: meter for meter in load_meters(connection)}
        rows = list(read_usage_parts(connection, Range(span.start, span.end), part=part))
    found: dict[tuple[str, str, Group, datetime], tuple[Decimal, int]] = {}
    for row in rows:
        found[row.customer, row.meter, dimensions_of(row.dimensions), row.span.start] = row.units, row.events
    assert len(found) == len(rows)
    wanted: dict[tuple[str, str, Group, datetime], tuple[Decimal, int]] = {}
    edges = list(edges_of(span, part))
    for start, end in pairwise(edges):
        bounds = [(at - EPOCH) // timedelta(microseconds=1) for at in (start, end)]
        for name, meter in meters.items():
            for customer, users in (("acme", ("ann", "bob")), ("cat", ("cat",))):
                for group, one in shown(meter, happened, users, bounds[0], bounds[1], per_group=True).items():
                    if one.events or one.quantity:
                        wanted[customer, name, group, start] = one.quantity, one.events
    assert found == wanted


def edges_of(span: Period, part: Part | None) -> Iterator[datetime]:
    """Yields where the parts of a range begin, and its end."""
    at, length = span.start, {Part.HOUR: timedelta(hours=1), Part.DAY: timedelta(days=1)}
    while at < span.end:
        yield at
        if part is None or part is Part.MONTH:
            break
        at = EPOCH + ((at - EPOCH) // length[part] + 1) * length[part]
    yield span.end


@pytest.mark.parametrize("part", [None, Part.HOUR, Part.DAY, Part.MONTH])
async def test_a_report_shows_every_aggregation_part_by_part(system: System, part: Part | None) -> None:
    # given a customer of two users, one without an entry, and random events of both
    dice = random.Random(11)
    customer = '[[customers]]\nid = "acme"\nuser_ids = ["ann", "bob"]\n'
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog() + customer)
    made = happenings(dice, 90)
    for first in range(0, len(made), 30):
        await system.send([event for _, event in made[first : first + 30]])
        await system.flush()
    # then each part shows what plain Python makes of it; levels go on in parts without events
    check_report(system, [one for one, _ in made], part)


async def test_the_view_by_hour_is_the_report_by_hour(system: System) -> None:
    # given levels, maxima and averages of some hours
    dice = random.Random(12)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog())
    await system.send([event for _, event in happenings(dice, 30)])
    await system.flush()
    span = period(JULY_US // DAY_US * DAY_US, (JULY_US // DAY_US + 5) * DAY_US)
    with connect(system.database_url) as connection:
        rows = read_usage_parts(connection, Range(span.start, span.end), part=Part.HOUR)
        reported = {
            (row.customer, row.meter, dimensions_of(row.dimensions), row.span.start, row.units, row.events)
            for row in rows
        }
        shown_by_view = connection.execute(
            "SELECT customer, meter, dimensions, window_start, units, events FROM usage_by_hour "
            "WHERE window_start < %s",
            (span.end,),
        ).fetchall()
    assert {(*row[:2], dimensions_of(row[2]), row[3].astimezone(UTC), *row[4:]) for row in shown_by_view} == reported


@pytest.mark.parametrize("seed", range(3))
async def test_every_aggregation_is_the_same_however_events_are_split_over_drains(system: System, seed: int) -> None:
    # given meters of every aggregation
    dice = random.Random(seed)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog())
    # when random events come in random order, in random parts with drains between them, and some of them again
    made = happenings(dice, 90)
    dice.shuffle(made)
    rest = made
    while rest:
        size = dice.randrange(1, 40)
        some, rest = rest[:size], rest[size:]
        again = [event for _, event in dice.sample(made[: len(made) - len(rest)], min(3, len(made) - len(rest)))]
        await system.send([*(event for _, event in some), *again])
        if dice.random() < 0.6:
            await system.flush()
            check(system, [one for one, _ in made[: len(made) - len(rest)]], dice)
    await system.flush()
    # then what is read is what plain Python makes of all of them
    check(system, [one for one, _ in made], dice)


async def test_users_of_several_shards_are_one_customer(
    redis_url: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    # given users on different shards, some of whose events are voided later on
    system = System(redis_url, make_database(shards=3), tmp_path)
    try:
        dice = random.Random(3)
        with connect(system.database_url, autocommit=True) as connection:
            apply_catalog(connection, catalog())
        made = happenings(dice, 60)
        await system.send([event for _, event in made[:40]])
        await system.flush()
        await system.send([*(a_void(event) for _, event in made[30:45]), *(event for _, event in made[40:])])
        await system.flush()
        # then what is read is what plain Python makes of the others
        assert {event.user_id for _, event in made} == set(USERS)
        assert len({shard_of(user, 3) for user in USERS}) > 1
        check(system, [one for one, _ in made[:30] + made[45:]], dice)
        assert (await prove(system)).ok
    finally:
        await system.close()


async def test_a_flusher_that_ends_behind_the_commit_keeps_each_value_once(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given events in Redis
    dice = random.Random(7)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog())
    made = happenings(dice, 40)
    await system.send([event for _, event in made])

    # when the flusher ends between the commit and the publishing, and another one goes on
    def end(*_: object) -> None:
        raise TryAgainError("redis_unavailable", "ended here")

    with monkeypatch.context() as ending:
        ending.setattr(system.worker._source, "publish", end)
        with pytest.raises(TryAgainError):
            await asyncio.to_thread(system.worker.run_once)
    await system.send([event for _, event in made[:10]])
    await system.flush()
    # then nothing is missing, and nothing is there twice
    check(system, [one for one, _ in made], dice)


async def prove(system: System) -> Proof:
    return await asyncio.to_thread(verify, system.redis_url, system.database_url, answer_timeout_s=5.0)


async def test_meters_that_come_while_events_are_on_their_way_have_the_values_of_these_too(system: System) -> None:
    # given events of a type without a meter, and of a meter that only sums, in Redis
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, '[[meters]]\nname = "money"\nevent_type = "sale"\n')
    ingest = await system.sidecar()
    await system.until(lambda: ingest.revision.number == 1)
    made = [("pay", 3, "e-1"), ("sale", 5, "e-2"), ("pay", 4, "e-3")]
    await system.send([an_event(name, event_type=kind, nanos=number * NANO) for kind, number, name in made])
    # when both are to keep each event from now on, before anything is drained
    detailed = '[[meters]]\nname = "{}"\nevent_type = "{}"\ndetailed = true\n'
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, detailed.format("money", "sale") + detailed.format("pay", "pay"))
    await system.flush()
    # then what was counted under the meters of before is kept as well
    with connect(system.database_url) as connection:
        needs = [Need(name, period(JULY_US - DAY_US, JULY_US + DAY_US), 0) for name in ("pay", "money")]
        found = read_usage(connection, [(("cus_1",), need) for need in needs])
    assert [[values_of(measure) for measure in one.measures] for one in found if isinstance(one, Reading)] == [
        [[Decimal(3), Decimal(4)]],
        [[Decimal(5)]],
    ]
    assert (await prove(system)).ok


async def test_the_proof_holds_values_against_usage(system: System) -> None:
    # given events of every aggregation
    dice = random.Random(5)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog())
    await system.send([event for _, event in happenings(dice, 20)])
    await system.flush()
    proof = await prove(system)
    assert proof.ok, proof.as_json()
    # when a value is changed, or gone
    for change in (
        "UPDATE usage_values SET value = value + 1 WHERE ctid = (SELECT min(ctid) FROM usage_values)",
        "DELETE FROM usage_values WHERE ctid = (SELECT min(ctid) FROM usage_values)",
    ):
        with connect(system.database_url) as connection:
            connection.execute(change)
            connection.commit()
        proof = await prove(system)
        # then the proof says so
        assert [check.name for check in proof.checks if check.ok is False] == ["values"]


async def test_what_came_back_from_quarantine_has_its_values_and_what_is_discarded_none(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given events of which Postgres refuses some at first: a chunk that is taken apart
    dice = random.Random(9)
    with connect(system.database_url, autocommit=True) as connection:
        apply_catalog(connection, catalog())
        connection.execute("ALTER TABLE events ADD CONSTRAINT odd CHECK (user_id <> 'bob') NOT VALID")
    made = happenings(dice, 40)
    await system.send([event for _, event in made])
    await system.flush()
    check(system, [one for one, _ in made if one.user_id != "bob"], dice)
    # when Postgres takes them, and an operator tries again with all but one
    with connect(system.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT odd")
        held = [row.id for row in list_quarantine(connection, 1000)]
        kept = discard(connection, held[0], "nobody's")
    with closing(Ledger(system.database_url)) as ledger:
        for number in held[1:]:
            retry(ledger, number)
    await system.flush()
    # then they count, each once
    assert kept.events == 1
    assert (await prove(system)).ok
    with connect(system.database_url) as connection:
        counted = {row[0] for row in connection.execute("SELECT event_key FROM events").fetchall()}
    assert len(counted) == len(made) - 1
    check(system, [one for one, _ in made if one.key in counted], dice)
