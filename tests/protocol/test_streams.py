"""Random streams of events over several sidecars and shards, against a dictionary: equal to the last digit."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from flusher.database import connect
from sidecar.contract.event import Event
from sidecar.contract.units import NANO, to_decimal
from sidecar.ingest import Receipt
from tests.protocol.system import System, an_event, indexed
from tests.protocol.test_proof import prove

SIDECARS = ("a", "b", "c")
SHARDS = 3
OPERATIONS = 60


class Model:
    """What should be counted: the first payload of every identity."""

    def __init__(self) -> None:
        self.seen: dict[bytes, bytes] = {}
        self.nanos: dict[tuple[str, str], int] = {}
        self.events: dict[tuple[str, str], int] = {}

    def accept(self, event: Event) -> str:
        """Returns what should become of the event."""
        if event.key in self.seen:
            return "duplicate" if self.seen[event.key] == event.fingerprint else "conflict"
        self.seen[event.key] = event.fingerprint
        place = (event.user_id, event.event_type)
        self.nanos[place] = self.nanos.get(place, 0) + event.nanos
        self.events[place] = self.events.get(place, 0) + 1
        return "accepted"


def random_event(rng: random.Random, now_us: int) -> Event:
    """Returns an event that often repeats an earlier identity, seldom with another payload."""
    whole = rng.choice([0, 1, 1, 2, 7, 10**6, 10**15 - 1])
    fraction = rng.choice([0, 0, 1, 333_333_333, 999_999_999])
    number = rng.randrange(150)
    payload = random.Random(number if rng.random() < 0.95 else rng.random())
    nanos = (whole * NANO + fraction) * payload.choice([1, 1, 1, -1])
    nanos = payload.choice([1, 2, 3]) * NANO if payload.random() < 0.5 else nanos
    timed = number % 3 != 0
    return an_event(
        f"e-{number}",
        user_id=f"cus_{number % 7}",
        event_type=payload.choice(["api_call", "tokens"]),
        nanos=nanos if payload.random() < 0.2 else payload.randrange(10**12),
        time_us=now_us - (number % 50) * 60_000_000 if timed else None,
    )


@pytest.fixture
async def wide(make_database: Callable[..., str], redis_url: str, tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, make_database(shards=SHARDS), tmp_path)
    for name in SIDECARS:
        await made.sidecar(name)
    yield made
    await made.close()


@pytest.mark.parametrize("seed", range(6))
async def test_random_streams_over_several_sidecars_are_counted_like_a_dictionary(wide: System, seed: int) -> None:
    rng = random.Random(seed)
    model = Model()
    now_us = time.time_ns() // 1000 // 900_000_000 * 900_000_000
    sent: list[tuple[list[Event], str | None]] = []
    for operation in range(OPERATIONS):
        # given a batch: new, or one that was sent before, to any sidecar, with and without a key
        if sent and rng.random() < 0.3:
            events, key = rng.choice(sent)
            if key is None:
                events = rng.sample(events, len(events))  # reordered
        else:
            events = [random_event(rng, now_us) for _ in range(rng.randrange(1, 25))]
            key = f"key-{operation}" if rng.random() < 0.3 else None
            events = indexed(events, key, SHARDS) if key else events
            sent.append((events, key))
        expected = [model.accept(event) for event in events]
        # when it is sent
        receipt = await wide.send(events, to=rng.choice(SIDECARS), key=key, digest=b"d" * 16 if key else None)
        # then the answer says what became of every event
        assert receipt.applied
        assert list(receipt.duplicates) == [n for n, what in enumerate(expected) if what == "duplicate"], (
            seed,
            operation,
        )
        assert list(receipt.conflicts) == [n for n, what in enumerate(expected) if what == "conflict"], (
            seed,
            operation,
        )
        if rng.random() < 0.2:
            await asyncio.to_thread(wide.worker.run_once)
        if rng.random() < 0.1:
            await assert_live(wide, model, now_us)
    await wide.flush()
    # and usage is the dictionary's, in Postgres and live, and it is proven
    wanted = {place: (to_decimal(nanos), model.events[place]) for place, nanos in model.nanos.items()}
    assert wide.usage() == wanted, seed
    await assert_live(wide, model, now_us)
    proof = await prove(wide)
    assert proof.ok, (seed, proof.as_json())


async def test_the_same_events_sent_to_all_sidecars_at_once_are_counted_once(wide: System) -> None:
    # given events with ids, with fractions, of users on every shard
    events = [an_event(f"e-{number}", user_id=f"cus_{number % 9}", nanos=number * 7 + 1) for number in range(600)]
    rng = random.Random(3)
    # when every sidecar gets all of them at the same time, each in an order of its own, while the flusher drains
    sending = [
        wide.send(mixed[first : first + 50], to=name)
        for name in SIDECARS
        for mixed in [rng.sample(events, len(events))]
        for first in range(0, len(events), 50)
    ]
    draining = asyncio.to_thread(wide.worker.flush)
    receipts = await asyncio.gather(*sending, draining)
    await wide.flush()
    # then each counts once, and of three answers one said that it was new
    duplicates = sum(len(receipt.duplicates) for receipt in receipts if isinstance(receipt, Receipt))
    assert duplicates == 2 * len(events)
    assert sum(units for units, _ in wide.usage().values()) == to_decimal(sum(event.nanos for event in events))
    assert (await prove(wide)).ok


async def assert_live(system: System, model: Model, now_us: int) -> None:
    """Live usage is what the dictionary has, at any moment."""
    user = "cus_1"
    day_us = 86_400_000_000
    live = await system.live(user, start_us=now_us - day_us, end_us=now_us + day_us)
    assert live == {meter: nanos for (who, meter), nanos in model.nanos.items() if who == user}


async def test_dimensions_and_properties_are_counted_apart_to_the_last_digit(system: System) -> None:
    # given a meter by region and one that sums a property
    meters: list[dict[str, object]] = [
        {"name": "calls", "event_type": "api_call", "group_by": ["region"]},
        {"name": "tokens", "event_type": "api_call", "field": "properties.tokens", "filter": {"model": ["a", "b"]}},
    ]
    await asyncio.to_thread(add_revision, system, 1, meters)
    ingest = await system.sidecar()
    await system.until(lambda: ingest.revision.number == 1)
    rng = random.Random(7)
    wanted: dict[tuple[str, str], Decimal] = {}
    for number in range(200):
        region, model, tokens = (
            rng.choice(["eu", "us"]),
            rng.choice(["a", "b", "c"]),
            Decimal(rng.randrange(10**9)).scaleb(-9),
        )
        properties = f'{{"model":"{model}","region":"{region}","tokens":{tokens:f}}}'
        # when events are sent and drained
        await system.send([an_event(f"e-{number}", properties=properties)])
        wanted["calls", region] = wanted.get(("calls", region), Decimal(0)) + 1
        if model != "c":
            wanted["tokens", ""] = wanted.get(("tokens", ""), Decimal(0)) + tokens
    await system.flush()
    # then each counter is exact
    rows = system.rows("SELECT meter, coalesce(dimensions->>'region', ''), sum(units) FROM usage GROUP BY 1, 2")
    assert {(meter, region): units for meter, region, units in rows} == wanted
    assert (await prove(system)).ok


def add_revision(system: System, number: int, meters: list[dict[str, object]]) -> None:
    """Puts meters in force."""
    with connect(system.database_url) as connection:
        connection.execute(
            "INSERT INTO revisions (revision, meters) VALUES (%s, %s)", (number, msgspec.json.encode(meters).decode())
        )
        connection.commit()
