"""Values of the contract for the tests: fixed ones, makers of one, and hypothesis strategies of all."""

from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from sidecar.contract.codec import Batch, Claim
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event, Identity, compact_units
from sidecar.contract.identity import claim_key, event_key, fingerprint, indexed_key, shard_of
from sidecar.contract.units import NANO, NANOS_BOUND

JULY_US = 1_753_090_461_000_000  # 2025-07-21T09:34:21Z
LARGEST = NANOS_BOUND - 1  # 24 digits: 999999999999999.999999999

nanos = st.integers(-LARGEST, LARGEST)
texts = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


def an_event(
    name: str | None = "e-1",
    *,
    user_id: str = "cus_1",
    event_type: str = "api_call",
    nanos: int = NANO,
    time_us: int = JULY_US,
    identity: Identity = Identity.TIMED,
    properties: str = "",
) -> Event:
    """Returns an event with an id; without a `name` one whose key is made from what it says."""
    payload = f"{event_type}|{nanos}|{properties}".encode()
    key = event_key(user_id, "", name) if name is not None else (fingerprint(payload) * 2)
    identity = identity if name is not None else Identity.MADE
    units = compact_units(nanos)
    return Event(key, fingerprint(payload), identity, 0, time_us, user_id, "", name, event_type, units, properties)


def indexed(key: str, indices: Sequence[int], *, nanos: int = NANO, user_id: str = "cus_1") -> list[Event]:
    """Returns events without ids, at these indices of a request under an Idempotency-Key, on shard 0."""
    share = claim_key(key, 0)
    payload = fingerprint(f"api_call|{nanos}|".encode())
    units = compact_units(nanos)
    return [
        Event(
            indexed_key(share, index),
            payload,
            Identity.INDEXED,
            index,
            JULY_US,
            user_id,
            "",
            None,
            "api_call",
            units,
            "",
        )
        for index in indices
    ]


def a_claim(key: str, events: Sequence[Event], *, digest: bytes = b"d" * 16, first: int = 0) -> Claim:
    """Returns the claim of a share that begins at place `first` of its batch, on shard 0."""
    return Claim(claim_key(key, 0), digest, first, len(events))


def a_batch(events: Sequence[Event], claims: Sequence[Claim] = (), *, revision: int = 0) -> Batch:
    """Returns a batch of shard 0, accepted in July."""
    return Columns.of(events).batch(0, revision, JULY_US, JULY_US, claims)


def shares(events: Sequence[Event], shards: int = 1, key: str | None = None) -> dict[int, Columns]:
    """Returns a request as it is submitted: its events by shard. Those that have no index yet get their place."""
    found: dict[int, list[Event]] = {}
    for place, event in enumerate(events):
        placed = event if event.identity == Identity.INDEXED else msgspec.structs.replace(event, index=place)
        found.setdefault(shard_of(event.user_id, shards), []).append(placed)
    columns = {shard: Columns.of(mine) for shard, mine in found.items()}
    for shard, mine in columns.items():
        mine.claim_key = claim_key(key, shard) if key is not None else None
    return columns
