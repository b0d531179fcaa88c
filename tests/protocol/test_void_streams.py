"""Random streams of events and voids over several sidecars and shards, against a dictionary."""

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flusher import drain, voids
from sidecar.contract.event import VOID_TYPE, Event
from sidecar.contract.identity import void_key
from sidecar.contract.units import from_decimal
from tests.protocol.system import System, an_event
from tests.protocol.voiding import DAY_US, NOW_US, a_void, die_before_publishing, forget, settle

SIDECARS = ("a", "b")
SHARDS = 3
OPERATIONS = 40


class Model:
    """What counts, as a dictionary sees it: the first payload of every identity that no void names."""

    def __init__(self) -> None:
        self.known: dict[bytes, Event] = {}

    def accept(self, event: Event) -> str:
        """Returns what becomes of an event or a void."""
        first = self.known.setdefault(event.key, event)
        if first is event:
            return "accepted"
        return "duplicate" if first.fingerprint == event.fingerprint else "conflict"

    def usage(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Returns nanos and events by user and meter; of whoever had events, also where none is left."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for event in self.known.values():
            if event.event_type == VOID_TYPE:
                continue
            nanos, events = found.get((event.user_id, event.event_type), (0, 0))
            counts = void_key(event.key, event.time_us) not in self.known
            amount = (nanos + event.nanos, events + 1) if counts else (nanos, events)
            found[event.user_id, event.event_type] = amount
        return found


@pytest.fixture
async def wide(make_database: Callable[..., str], redis_url: str, tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, make_database(shards=SHARDS), tmp_path)
    for name in SIDECARS:
        await made.sidecar(name)
    yield made
    await made.close()


def some_event(number: int, rng: random.Random) -> Event:
    """Returns the event of a number: mostly with the payload that it always has."""
    payload = random.Random(number if rng.random() < 0.95 else rng.random())
    return an_event(
        f"e-{number}",
        user_id=f"cus_{number % 5}",
        event_type=payload.choice(["api_call", "tokens"]),
        nanos=payload.randrange(-(10**12), 10**15),
        time_us=NOW_US - number % 40 * 600_000_000,
    )


def of(system: System) -> dict[tuple[str, str], tuple[int, int]]:
    return {place: (from_decimal(units), events) for place, (units, events) in system.usage().items()}


@pytest.mark.parametrize("seed", range(6))
async def test_any_interleaving_of_events_voids_repeats_and_drains_counts_like_a_dictionary(
    wide: System, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given drains that take a few events at a time, and voids a few at a time
    monkeypatch.setattr(drain, "CHUNK_EVENTS", 7)
    monkeypatch.setattr(voids, "TAKEN_AT_ONCE", 3)
    rng, model = random.Random(seed), Model()
    for operation in range(OPERATIONS):
        batch: list[Event] = []
        for _ in range(rng.randrange(1, 20)):
            event = some_event(rng.randrange(80), rng)
            reason = "a mistake" if rng.random() < 0.9 else "another one"
            batch.append(event if rng.random() < 0.6 else a_void(event, reason))
        expected = [model.accept(event) for event in batch]
        receipt = await wide.send(batch, to=rng.choice(SIDECARS))
        # then each answer says what the dictionary says
        for what, places in (("duplicate", receipt.duplicates), ("conflict", receipt.conflicts)):
            assert list(places) == [place for place, found in enumerate(expected) if found == what], (seed, operation)
        if rng.random() < 0.3:
            await wide.flush()
    await settle(wide)
    assert of(wide) == model.usage()
    # when everything is voided
    rest = [event for event in model.known.values() if event.event_type != VOID_TYPE]
    await wide.send([a_void(event, "all of it") for event in rest])
    await settle(wide)
    # then nothing is left, in Postgres, in Redis, and after Redis was rebuilt from nothing
    forget(wide)
    await settle(wide)
    assert set(of(wide).values()) == {(0, 0)}
    for user in range(5):
        live = await wide.live(f"cus_{user}", start_us=NOW_US - DAY_US, end_us=NOW_US + DAY_US)
        assert set(live.values()) <= {0}


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_dies_and_forgets_in_between_the_same_is_left(wide: System, seed: int) -> None:
    # given events and voids that come again and again, always the same
    rng, model = random.Random(seed), Model()
    for _ in range(25):
        numbers = [rng.randrange(60) for _ in range(rng.randrange(1, 12))]
        batch = [_always(number) if rng.random() < 0.6 else a_void(_always(number)) for number in numbers]
        for event in batch:
            model.accept(event)
        await wide.send(batch, to=rng.choice(SIDECARS))
        # when flushers die before they publish, Redis forgets, sidecars stop and begin again
        what = rng.random()
        if what < 0.2:
            await die_before_publishing(wide)
        elif what < 0.3:
            forget(wide)
        elif what < 0.4:
            await wide.stop(rng.choice(list(wide.sidecars)))
        elif what < 0.6:
            await wide.flush()
    for name in SIDECARS:
        await wide.sidecar(name)
    await settle(wide)
    # then every event counts once, or not at all
    assert of(wide) == model.usage()


def _always(number: int) -> Event:
    return some_event(number, random.Random(number))
